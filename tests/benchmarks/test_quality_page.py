"""The tables of docs/quality.md and its pages, and the rows that they come from."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from benchmarks.quality_page import filled, tables
from lora_scene.scenes.scene import load_scene
from lora_scene.workshop.fingerprints import fingerprint_of
from lora_scene.workshop.protocol import read_protocol
from lora_scene.workshop.results import known_rows

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
FILES = {
    "": "mini.jsonl",
    "hard": "hard.jsonl",
    "long": "long-test.jsonl",
    "earlier": "mini-earlier.jsonl",
}
TABLES = {
    "README.md": ["headline_long"],
    "docs/quality.md": ["methods_long", "differences_long", "grounds_long"],
    "docs/quality/choosing.md": [],
    "docs/quality/earlier.md": [
        "methods_earlier", "differences_earlier", "parts_earlier", "course_earlier",
    ],
    "docs/quality/hard.md": ["methods_hard", "differences_hard", "parts_hard"],
    "docs/quality/methods.md": ["methods", "differences", "parts", "weights", "many"],
}  # fmt: skip


def row(method: str, scene: str, identity: float, *, seed: int = 0) -> dict:
    summary = {"identity": identity, "missing_rate": 0.5}
    return {
        "method": method, "group": "test", "scene": scene, "seed": seed, "n_concepts": 2,
        "summary": summary, "curve": {},
    }  # fmt: skip


def test_a_table_holds_means_differences_and_nothing_empty() -> None:
    rows = [row("ours", "a", 0.7), row("ours", "b", 0.9), row("full", "a", 0.75)]
    made = tables([*rows, row("full", "b", 0.95)])
    assert "| ours | 0.80 [0.70, 0.90] | 0.50 [0.50, 0.50] |" in made["methods"]
    assert "| ours | −0.05 [−0.05, −0.05] | 0.00 [0.00, 0.00] |" in made["differences"]
    assert made["parts"].count("\n") == 2


def test_parts_are_taken_against_ours_of_the_same_training_seeds() -> None:
    rows = [row("ours", "a", 0.7), row("ours", "a", 0.1, seed=1), row("no-mask", "a", 0.6)]
    rows += [row("naive", "a", 0.5), row("naive", "a", 0.2, seed=1)]
    made = tables(rows)["parts"]
    assert "| the mask in the loss | −0.10 (1 scene) |" in made
    assert "(each thing alone, put together) | −0.05 (1 scene) |" in made


def test_grounds_stand_beside_what_has_the_same_scenes_and_training_seeds() -> None:
    rows = [row("ours, by colours", "a", 0.8), row("ours, by colours", "b", 0.6)]
    rows += [row("full", "a", 0.5), row("full", "b", 0.5), row("ours", "b", 0.4)]
    rows += [row("ours, by colours", "a", 0.2, seed=1), row("full", "a", 0.1, seed=1)]
    rows += [row("full", "a", 0.9, seed=2), row("ours, on grounds", "a", 0.75)]
    made = tables([{**one, "group": "test-hard"} for one in rows], of="long")["grounds_long"]
    assert "| ours, by colours | 0.55 [0.50, 0.60] |" in made
    assert "| ours, on grounds | 0.75 (1 scene) |" in made
    assert "minus full, training seeds 0, 1 | +0.15 [+0.10, +0.20] |" in made
    assert "minus ours, training seeds 0 | +0.20 (1 scene) |" in made


def test_only_the_tables_of_a_page_are_written() -> None:
    page = "Before\n\n<!-- table: methods -->\nold\n<!-- end -->\n\nafter\n"
    made = filled(page, tables([row("ours", "a", 0.7)]))
    assert made.startswith("Before\n\n<!-- table: methods -->\n\n| method |")
    assert made.endswith("|\n\n<!-- end -->\n\nafter\n")
    assert "old" not in made


def test_tables_of_other_rows_are_left_alone() -> None:
    other, own = (
        f"<!-- table: {name} -->\nold\n<!-- end -->\n" for name in ("methods", "methods_hard")
    )
    made = filled(other + own, tables([row("ours", "a", 0.7)], of="hard"))
    assert made.startswith(other)
    assert made.count("| ours | 0.70 (1 scene) |") == 1


@cache
def kept_tables() -> dict[str, str]:
    made = {}
    for of, file in FILES.items():
        made |= tables(list(known_rows(RESULTS / file).values()), of=of)
    return made


@pytest.mark.parametrize("page", TABLES)
def test_a_page_shows_its_tables_of_the_rows_that_are_kept(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    assert re.findall(r"<!-- table: (\w+) -->", text) == TABLES[page]
    assert filled(text, kept_tables()) == text
    assert set(TABLES[page]) <= kept_tables().keys()


def test_every_page_of_quality_is_looked_at() -> None:
    pages = {page.relative_to(ROOT).as_posix() for page in (ROOT / "docs/quality").glob("*.md")}
    assert pages == {page for page in TABLES if page.startswith("docs/quality/")}


@pytest.mark.parametrize(
    ("protocol", "file", "is_known"),
    [
        ("mini.toml", "mini.jsonl", True),
        ("hard.toml", "hard.jsonl", True),
        ("long-test.toml", "long-test.jsonl", True),
        ("mini.toml", "mini-earlier.jsonl", False),
    ],
)
def test_rows_are_of_the_protocol_or_said_to_be_of_an_earlier_version(
    protocol: str, file: str, is_known: bool
) -> None:
    asked, load = read_protocol(ROOT / "benchmarks" / "protocols" / protocol), cache(load_scene)
    now = {run.key: fingerprint_of(asked, run, scene=load(run.scene)) for run in asked.runs()}
    assert all(now.get(key) == then for key, then in known_rows(RESULTS / file)) == is_known


def test_the_page_of_an_earlier_version_s_rows_says_so() -> None:
    shown = [page for page, names in TABLES.items() if any("_earlier" in name for name in names)]
    assert shown == ["docs/quality/earlier.md"]
    assert "made by an earlier version" in (ROOT / shown[0]).read_text("utf-8")
