from __future__ import annotations

import base64
import re
from xml.etree import ElementTree

import pytest

from lora_scene.errors import JudgingError
from lora_scene.workshop import benchmark_page
from lora_scene.workshop.benchmark_page import (
    group_plot,
    report_tables,
    scene_sheet,
    write_report,
)
from lora_scene.workshop.results import keep_row, read_rows
from lora_scene.workshop.statistics import Interval
from lora_scene.workshop.tables import told
from tests.workshop import rows as made


def courses(tree: ElementTree.Element) -> list[str]:
    return [e.get("id") for e in tree.iter() if (e.get("id") or "").startswith("course-")]


def test_the_report_needs_no_other_file(tmp_path) -> None:
    made.write(tmp_path)
    page = write_report(tmp_path, title="tiny", reference="full", note="a <note>").read_text()
    assert "{{" not in page
    assert "a &lt;note&gt;" in page
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert page.count("data:image/svg+xml;base64") == 1
    assert page.count("data:image/png;base64") == 3 + 1  # a sheet per scene, one of failures
    assert "Runs: 9. Methods: 3. Scenes: 3. Judge: fake." in page


def test_the_tables_hold_means_with_intervals_and_paired_differences(tmp_path) -> None:
    rows = made.write(tmp_path)
    quality, differences, costs = report_tables(rows, "full")
    ours = dict(zip(quality.header, quality.rows[0], strict=True))
    assert ours["method"] == "ours"
    assert ours["identity ↑"].startswith("0.820 [0.8")
    assert ours["drift ↓"] == "–"
    difference = dict(zip(differences.header, differences.rows[0], strict=True))
    assert difference["identity ↑"] == "+0.100 [+0.100, +0.100]"
    assert [row[0] for row in differences.rows] == ["ours", "naive"]
    assert costs.rows[1][2] == "2,000"


def test_a_mean_over_fewer_scenes_than_the_group_has_says_over_how_many(tmp_path) -> None:
    rows = [r for r in made.write(tmp_path) if r["key"] not in ("full/all-s0-s0", "ours/all-s1-s0")]
    for row in rows:
        if row["method"] == "naive" and row["scene"] != "s2":
            row["summary"]["missing_rate"] = None
    quality, differences, _ = report_tables(rows, "full")
    assert "over 3 scenes" in quality.title
    told_of = {row[0]: dict(zip(quality.header, row, strict=True)) for row in quality.rows}
    assert told_of["ours"]["identity ↑"] == "0.820 [0.800, 0.840] (2 scenes)"
    assert told_of["naive"]["identity ↑"] == "0.620 [0.600, 0.640]"
    assert told_of["naive"]["missing ↓"] == "0.500 (1 scene)"
    pairs = {row[0]: dict(zip(differences.header, row, strict=True)) for row in differences.rows}
    assert pairs["naive"]["identity ↑"] == "−0.100 [−0.100, −0.100] (2 scenes)"
    assert pairs["ours"]["identity ↑"] == "+0.100 (1 scene)"


def test_the_markdown_has_as_many_cells_in_every_line(tmp_path) -> None:
    for table in report_tables(made.write(tmp_path), "full"):
        lines = [line for line in table.as_markdown().splitlines() if line.startswith("|")]
        assert {line.count("|") for line in lines} == {len(table.header) + 1}


def test_the_plot_is_well_formed_and_holds_every_method(tmp_path) -> None:
    rows = made.write(tmp_path)
    tree = ElementTree.fromstring(group_plot(rows))
    texts = [element.text for element in tree.iter() if element.text]
    assert set(made.METHODS) <= set(texts)
    assert len(courses(tree)) == 1
    assert group_plot(rows) == group_plot(rows), "the same bytes for the same rows"


def test_a_sheet_tells_two_things_of_one_noun_apart(tmp_path, monkeypatch) -> None:
    drawn = made.write_twins(tmp_path)
    seen = {}
    monkeypatch.setattr(
        benchmark_page, "contact_sheet", lambda cells, **labels: seen.update(labels, cells=cells)
    )
    rows = [row for row in read_rows(tmp_path) if row["method"] in made.METHODS[:2]]
    for row in rows:  # no two columns ask for the same
        for key in ("plain", "prompt"):
            row["pictures"][1][key] += " in the snow"
    scene_sheet(rows, tmp_path)
    assert seen["columns"] == ["photo", "a photo of <bear>", "a photo of <bowl> in the snow"]
    ours = seen["cells"][seen["rows"].index("ours")]
    for k, cell in enumerate(ours[1:]):
        assert tuple(cell[0, 0]) == tuple(drawn[k][0, 0])


def test_a_picture_that_was_deleted_leaves_its_place_empty(tmp_path) -> None:
    made.write(tmp_path)
    first, *others = sorted((tmp_path / "runs").rglob("*.png"))
    first.unlink()
    assert write_report(tmp_path, title="tiny").is_file()
    for path in others:
        path.unlink()
    assert write_report(tmp_path, title="tiny").is_file(), "of none that is wrong is anything left"


def test_methods_stand_in_the_order_of_the_protocol(tmp_path) -> None:
    made.write(tmp_path)
    write_report(tmp_path, title="tiny", methods=["naive", "ours"])
    lines = (tmp_path / "report.md").read_text().splitlines()
    names = [line.split()[1] for line in lines if line.startswith(("| ours", "| full", "| naive"))]
    assert names[:3] == ["naive", "ours", "full"]


def test_shorter_trainings_are_joined_to_their_method_by_a_line(tmp_path) -> None:
    rows = made.write(tmp_path)
    for row in rows:
        if row["method"] == "naive":
            row.update(course_of="full", image_forwards=50)
    tree = ElementTree.fromstring(group_plot(rows))
    texts = [element.text for element in tree.iter() if element.text]
    assert len(courses(tree)) == 2
    assert "naive" not in texts
    assert {"50 f", "100 f"} <= set(texts)


@pytest.mark.parametrize("course_of", ["absent", "naive"])
def test_a_course_of_what_is_not_drawn_is_a_method_of_its_own(tmp_path, course_of) -> None:
    rows = made.write(tmp_path)
    for row in rows:
        row["course_of"] = course_of if row["method"] == "naive" else ""
    tree = ElementTree.fromstring(group_plot(rows))
    assert set(made.METHODS) <= {element.text for element in tree.iter()}


def test_wide_pictures_are_scrolled_sideways_on_a_phone(tmp_path) -> None:
    made.write(tmp_path)
    page = write_report(tmp_path, title="tiny").read_text()
    assert page.count("<img ") == page.count('<div class="wide"><img ') > 2
    assert page.count("max(100%, 800px)") == 2


def test_one_scene_has_no_interval() -> None:
    assert told(Interval(0.5, 0.5, 0.5, 1)) == "0.500 (1 scene)"
    assert told(Interval(-0.0004, -0.02, 0.0, 2), signed=True) == "0.000 [−0.020, 0.000]"


def test_nothing_is_reported_of_nothing(tmp_path) -> None:
    with pytest.raises(JudgingError, match="no run is finished"):
        write_report(tmp_path, title="tiny")


def test_rows_without_pictures_are_reported_without_pictures(tmp_path) -> None:
    for row in made.write(tmp_path):
        if row["scene"] != "s0":
            keep_row({**row, "pictures": []}, tmp_path / "runs" / row["key"])
    page = write_report(tmp_path, title="tiny").read_text()
    assert "Scenes: 3" in page
    assert page.count("data:image/png;base64") == 1 + 1  # a sheet and its failures


HOSTILE = "<script>alert(1)</script>\"'&$x_1$\u2028"


def test_what_strangers_wrote_is_shown_and_not_obeyed(tmp_path) -> None:
    for row in made.write(tmp_path, n_scenes=1):
        if row["method"] == "ours":
            words = dict.fromkeys(("method", "judge"), HOSTILE)
            keep_row({**row, **words}, tmp_path / "runs" / row["key"])
    page = write_report(tmp_path, title=HOSTILE, note=HOSTILE).read_text()
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5
    plot = base64.b64decode(re.search(r"svg\+xml;base64,([^\"]+)", page)[1]).decode()
    texts = [one.text for one in ElementTree.fromstring(plot).iter() if one.text]
    assert HOSTILE.replace("\u2028", "") in "".join(texts).replace("\u2028", "")
