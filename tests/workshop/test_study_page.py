from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_scene.errors import JudgingError
from lora_scene.workshop.results import keep_row
from lora_scene.workshop.study_page import make_study
from tests.workshop import rows as made

WANTED = os.environ.get("LORA_SCENE_BROWSER") != "none"  # one that is there may not start
BROWSERS = ("chromium", "chromium-browser") if WANTED else ()
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.fixture
def study(tmp_path):
    made.write(tmp_path / "results")
    return make_study(tmp_path / "results", tmp_path / "study", per_person=2)


def data_of(page: Path) -> dict:
    match = re.search(
        r'<script type="application/json" id="study">(.*?)</script>', page.read_text("utf-8")
    )
    return json.loads(match[1])


def test_the_page_is_one_file_and_tells_no_method(study) -> None:
    text = study.page.read_text("utf-8")
    assert "{{" not in text
    assert not re.search(r'(?:src|href)="(?!data:)[^"$]', text)
    data = json.dumps(data_of(study.page))
    assert not any(re.search(rf"\b{method}\b", data) for method in made.METHODS)


def test_pictures_in_the_page_do_not_say_how_they_were_made(study) -> None:
    for item in data_of(study.page)["items"]:
        for trial in item["trials"]:
            raw = base64.b64decode(trial["picture"].partition(",")[2])
            with Image.open(io.BytesIO(raw)) as image:
                assert image.info == {}


def test_the_key_knows_every_trial(study) -> None:
    key, data = json.loads(study.key.read_text("utf-8")), data_of(study.page)
    trials = [trial["id"] for item in data["items"] for trial in item["trials"]]
    checks = [check["id"] for check in data["checks"]]
    assert sorted(key["trials"]) == sorted([*trials, *checks])
    assert {key["trials"][trial]["method"] for trial in trials} == set(made.METHODS)
    assert {key["trials"][check]["check"] for check in checks} <= {"own", "other"}
    assert study.n_trials == 2 * 3 + len(checks)


def test_what_the_checks_cannot_tell_is_said(tmp_path) -> None:
    results = tmp_path / "results"
    rows = made.write(results)
    alike = make_study(results, tmp_path / "alike", per_person=2)  # every scene has a bear
    assert [*alike.lacks] == ["no check shows another scene, so that who always gives 5 passes"]
    for row in rows:
        nouns = [f"{noun}{row['scene']}" for noun in row["nouns"]]
        keep_row({**row, "nouns": nouns}, results / "runs" / row["key"])
    assert make_study(results, tmp_path / "whole").lacks == ()
    [few] = make_study(results, tmp_path / "few", n_items=2).lacks
    assert few.startswith("2 of 4 checks stand between")
    for scene in (results / "scenes").iterdir():
        shutil.copy(scene / "photo0.png", scene / "photo1.png")
    none = make_study(results, tmp_path / "none")
    assert data_of(none.page)["checks"] == []
    assert [*none.lacks] == ["no check stands between: only scenes of one photo have any"]


def test_the_order_within_an_item_tells_nothing(study) -> None:
    key = json.loads(study.key.read_text("utf-8"))["trials"]
    orders = {
        tuple(key[trial["id"]]["method"] for trial in item["trials"])
        for item in data_of(study.page)["items"]
    }
    assert len(orders) > 1


def test_a_study_is_made_again_alike(study, tmp_path) -> None:
    again = make_study(tmp_path / "results", tmp_path / "again", per_person=2)
    assert again.page.read_bytes() == study.page.read_bytes()


def test_another_study_has_another_id_and_replaces_no_key(study, tmp_path) -> None:
    pairs = [made.METHODS[:2], made.METHODS[1:3]]
    keys = [
        make_study(tmp_path / "results", tmp_path / methods[0], methods=methods).key
        for methods in pairs
    ]
    first, second = (json.loads(key.read_text("utf-8")) for key in keys)
    assert list(first["trials"]) == list(second["trials"])  # names tell nothing, not even that
    assert first["study"] != second["study"]
    before = study.key.read_bytes(), study.page.read_bytes()
    with pytest.raises(JudgingError, match=r"(?s)key\.json: the key of another study.*--out"):
        make_study(tmp_path / "results", tmp_path / "study", methods=pairs[0])
    assert (study.key.read_bytes(), study.page.read_bytes()) == before
    make_study(tmp_path / "results", tmp_path / "study", per_person=2)


def test_things_that_are_asked_for_are_shown(study) -> None:
    for item in data_of(study.page)["items"]:
        assert all(thing["noun"] in item["prompt"] for thing in item["things"])
        assert len(item["things"]) == (2 if "bowl" in item["prompt"] else 1)


def test_two_things_of_one_noun_are_two_items_each_with_its_own_thing(tmp_path) -> None:
    drawn = made.write_twins(tmp_path / "results")
    study = make_study(tmp_path / "results", tmp_path / "study", methods=made.METHODS[:2])
    key = json.loads(study.key.read_text("utf-8"))["trials"]
    items = [item for item in data_of(study.page)["items"] if item["prompt"] == "a photo of cat"]
    assert len(items) == 2
    seen = {}
    for item in items:
        (trial,) = [t for t in item["trials"] if key[t["id"]]["method"] == "ours"]
        (k,) = key[trial["id"]]["subset"]
        raw = base64.b64decode(trial["picture"].partition(",")[2])
        assert tuple(np.asarray(Image.open(io.BytesIO(raw)))[0, 0]) == tuple(drawn[k][0, 0])
        seen[k] = item["things"]
    assert seen[0] != seen[1], "each shows the thing that is asked for"


def test_data_in_the_page_ends_no_script_and_begins_none(tmp_path) -> None:
    words = "<!--<script>]]></script>&\u2028\u2029'\""
    for row in made.write(tmp_path / "results"):
        pictures = [{**one, "plain": f"{words} {one['plain']}"} for one in row["pictures"]]
        changed = {**row, "pictures": pictures, "nouns": [words, "bowl"]}
        keep_row(changed, tmp_path / "results" / "runs" / row["key"])
    page = make_study(tmp_path / "results", tmp_path / "study").page
    data = re.search(r'id="study">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)[1]
    assert not set("<>&\u2028\u2029") & set(data)
    assert all(item["prompt"].startswith(words) for item in json.loads(data)["items"])
    assert {thing["noun"] for item in json.loads(data)["items"] for thing in item["things"]} == {
        words,
        "bowl",
    }


def test_unknown_and_lonely_methods_are_refused(tmp_path) -> None:
    made.write(tmp_path)
    with pytest.raises(JudgingError, match=r"no such method[\s\S]*naive"):
        make_study(tmp_path, tmp_path / "s", methods=["naiv", "ours"])
    for methods in (["ours"], ["ours", "ours"]):
        with pytest.raises(JudgingError, match=r"2 to 8\s+got:\s+1: ours"):
            make_study(tmp_path, tmp_path / "s", methods=methods)
    with pytest.raises(JudgingError, match="no finished run of a benchmark"):
        make_study(tmp_path / "scenes", tmp_path / "s")


# What a participant does, played inside the page; what was seen is left on the body.
HANDS = """
HTMLAnchorElement.prototype.click = () => {};  // a download may keep the browser from ending
const keys = (key) => document.dispatchEvent(new KeyboardEvent("keydown", { key }));
const notes = [];
const choose = (name, value) => byId(name).querySelector(`input[value="${value}"]`).click();
const rest = () => {
  while (state.position < state.order.length) {
    choose("identity", 3);
    choose("prompt-fit", 5);
    byId("next").click();
  }
};
"""
VISIT = """
keys("Enter");
notes.push(byId("trial").hidden ? "hidden" : "open");
keys("Enter");
notes.push(state.position);
keys("4"); keys("2"); keys("Enter");
notes.push(state.position);
begin();  // as a visit on another day does: from what the browser kept
notes.push(byId("start").textContent);
byId("start").click();
notes.push(state.position);
rest();
notes.push(byId("end").hidden ? "hidden" : "end");
byId("download").click();
"""
HALF = """
byId("start").click();
choose("identity", 4);
choose("prompt-fit", 2);
byId("next").click();
choose("prompt-fit", 3);
state.position = 2;  // as pages of before went on after a reload
choose("identity", 1);
keep();
begin();
byId("start").click();
notes.push(state.position);
rest();
notes.push(state.order.filter((id) => !isComplete(id)).length);
delete state.answers[state.order[1]].identity;
keep();
begin();
notes.push(byId("end").hidden ? "hidden" : "end");
byId("start").click();
notes.push(state.position);
"""
BACK = """
byId("start").click();
choose("identity", 4);
choose("prompt-fit", 2);
byId("next").click();
choose("identity", 4);
choose("prompt-fit", 2);
const enter = { key: "Enter", bubbles: true, cancelable: true };
byId("back").focus();
notes.push(byId("back").dispatchEvent(new KeyboardEvent("keydown", enter)));  // the browser's click
notes.push(state.position);
byId("back").click();
notes.push(state.position);
keys("5");
notes.push(document.activeElement === byId("back"));
keys("Enter");
notes.push(state.position);
byId("back").focus();
byId("back").dispatchEvent(new MouseEvent("click", { detail: 1 }));
notes.push(document.activeElement === byId("back"));
"""
NEXT_PERSON = """
const shown = () => notes.push(byId("another").hidden ? "hidden" : "shown");
byId("start").click();
rest();
shown();
byId("download").click();
shown();
begin();
shown();
byId("review").click();
choose("identity", 1);
rest();
shown();
byId("download").click();
shown();
const first = state.participant;
byId("another").click();
notes.push(byId("intro").hidden, byId("start").textContent, Object.keys(state.answers).length);
notes.push(state.participant === first);
begin();
notes.push(state.participant === first, byId("start").textContent);
"""
NAMES = """
byId("start").click();
while (state.position < state.order.length) {
  const frame = byId("things").getBoundingClientRect();
  for (const cell of byId("things").querySelectorAll("span")) {
    const place = cell.getBoundingClientRect();
    if (place.bottom > frame.bottom || cell.scrollWidth > cell.clientWidth)
      notes.push(`${innerWidth}: ${cell.textContent}`);
  }
  choose("identity", 3);
  choose("prompt-fit", 5);
  byId("next").click();
}
"""


def visit(page: Path, script: str, folder: Path, size: str = "1000,800") -> tuple[str, str]:
    """Play a visit; return what was noted, and the answers that were downloaded last."""
    folder.mkdir()
    played = folder / "visit.html"
    play = f"<script>{HANDS}{script}document.body.dataset.visit = notes.join(';');</script></body>"
    played.write_text(page.read_text("utf-8").replace("</body>", play))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000"]
    result = subprocess.run(
        [*command, f"--window-size={size}", "--dump-dom", played.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    body = re.search(r"<body[^>]*>", result.stdout)[0]
    left = [re.search(rf'data-{name}="([^"]*)"', body) for name in ("visit", "answers")]
    noted, answers = (one[1].replace("&quot;", '"') if one else "" for one in left)
    return noted, answers


in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@in_a_browser
def test_a_visit_in_a_real_browser_by_keyboard_and_mouse(study, tmp_path) -> None:
    noted, answers = visit(study.page, VISIT, tmp_path / "visit")
    assert noted == "open;0;1;Go on;1;end"
    given = json.loads(answers)
    key = json.loads(study.key.read_text("utf-8"))
    assert given["study"] == key["study"]
    assert len(given["answers"]) == study.n_trials
    assert {answer["trial"] for answer in given["answers"]} <= set(key["trials"])
    first, *others = given["answers"]
    assert (first["identity"], first["prompt"]) == (4, 2)
    assert {(answer["identity"], answer["prompt"]) for answer in others} == {(3, 5)}
    assert {answer["side"] for answer in given["answers"]} <= {"left", "right"}
    assert given["finished"] is not None


@in_a_browser
def test_a_picture_that_is_half_answered_is_asked_again(study, tmp_path) -> None:
    assert visit(study.page, HALF, tmp_path / "visit")[0] == "1;0;hidden;1"


@in_a_browser
def test_enter_on_a_button_is_that_button_until_an_answer_is_typed(study, tmp_path) -> None:
    noted, _ = visit(study.page, BACK, tmp_path / "visit")
    assert noted == "true;1;0;false;1;false"


@in_a_browser
def test_another_person_begins_once_the_answers_are_downloaded(study, tmp_path) -> None:
    noted, _ = visit(study.page, NEXT_PERSON, tmp_path / "visit")
    assert noted == "hidden;shown;shown;hidden;shown;false;Begin;0;false;false;Begin"


@in_a_browser
@pytest.mark.parametrize("size", ["500,844", "800,844"])
def test_no_name_of_a_thing_is_cut_off(tmp_path, size) -> None:
    for row in made.write(tmp_path / "results", n_scenes=1):
        changed = {**row, "nouns": ["bear", "Donaudampfschifffahrtsgesellschaftskapitaen" * 2]}
        keep_row(changed, tmp_path / "results" / "runs" / row["key"])
    study = make_study(tmp_path / "results", tmp_path / "study")
    assert visit(study.page, NAMES, tmp_path / "visit", size)[0] == ""


@pytest.mark.parametrize(
    ("key", "now", "told"),
    [
        (
            "drawing.steps",
            50,
            r"drawing.steps: rows of different[\s\S]*25 in full, naive; 50 in ours",
        ),
        ("image_forwards", 800, r"image_forwards: [\s\S]*1600 in full, naive; 800 in ours"),
        ("drawing.seeds", [3], r"drawing.seeds: [\s\S]*\[0\] in full, naive; \[3\] in ours"),
        ("drawing.prompts", ["a {}"], r"drawing.prompts: rows of different protocols"),
    ],
)
def test_rows_that_do_not_compare_make_no_study(tmp_path, key, now, told) -> None:
    results, then = tmp_path / "results", {"drawing.seeds": [0], "image_forwards": 1600}
    then |= {"drawing.steps": 25, "drawing.prompts": ["a photo of {}"]}
    for row in made.write(results):
        terms = row["terms"] | then | ({key: now} if row["method"] == "ours" else {})
        keep_row({**row, "terms": terms}, results / "runs" / row["key"])
    with pytest.raises(JudgingError, match=told):
        make_study(results, tmp_path / "study")
    assert not (tmp_path / "study").exists()
    alike = make_study(results, tmp_path / "study", methods=["full", "naive"], per_person=2)
    assert not any("compare" in lack for lack in alike.lacks)


def test_another_scene_under_the_same_name_is_none_to_compare(tmp_path) -> None:
    results = tmp_path / "results"
    for row in made.write(results):
        own = {"scene all/s1": "1"} if row["method"] == "ours" and row["scene"] == "s1" else {}
        keep_row({**row, "terms": row["terms"] | own}, results / "runs" / row["key"])
    with pytest.raises(JudgingError, match=r"scene all/s1: rows of different protocols"):
        make_study(results, tmp_path / "study")


def test_rows_that_do_not_tell_how_they_were_drawn_are_told(tmp_path) -> None:
    results = tmp_path / "results"
    rows = made.write(results)
    for row in rows:
        keep_row({**row, "terms": {}, "protocol": "mini"}, results / "runs" / row["key"])
    (*_, told) = make_study(results, tmp_path / "study").lacks
    assert told.startswith("9 of 9 runs are of an earlier version")
    keep_row({**rows[0], "terms": {}, "protocol": "long"}, results / "runs" / rows[0]["key"])
    with pytest.raises(JudgingError, match=r"protocol: rows of different protocols"):
        make_study(results, tmp_path / "another")
