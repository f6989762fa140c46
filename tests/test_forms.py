"""Typed records of tables: a frozen dataclass is the form."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from lora_scene.errors import MAX_SHOWN, LoraSceneError, SceneError
from lora_scene.forms import between, build, filled


@dataclass(frozen=True)
class Part:
    n: int = between(3, 1, 9)
    share: float = 0.5


@dataclass(frozen=True)
class Whole:
    name: str
    words: tuple[str, ...] = filled(("none",))
    box: tuple[int, int] = (0, 0)
    kind: Literal["a", "b"] = "a"
    is_on: bool = False
    path: Path | None = None
    part: Part = Part(n=7)
    parts: tuple[Part, ...] = ()
    groups: Mapping[str, tuple[int, ...]] | None = None
    seed: int = 0
    anything: Any = None


def built(**table: Any) -> tuple[Whole | None, list[str]]:
    problems: list[LoraSceneError] = []
    whole = build(Whole, {"name": "x", "words": ["w"], **table}, problems, error=SceneError)
    assert all(type(problem) is SceneError for problem in problems)
    return whole, [str(problem) for problem in problems]


def test_every_kind_of_field_is_read_as_its_annotation_says():
    whole, problems = built(
        box=[1, 2], kind="b", is_on=True, path="a/b", part={"share": 1},
        parts=[{"n": 1}, {}], groups={"g": [1, 2]}, seed=-5, anything=[None],
    )  # fmt: skip
    assert not problems
    assert whole == Whole(
        "x", ("w",), (1, 2), "b", True, Path("a/b"), Part(7, 1.0), (Part(1), Part()),
        {"g": (1, 2)}, -5, [None],
    )  # fmt: skip
    assert type(whole.part.share) is float


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"nam": 1}, "nam: unknown key\n  expected: one of name, words"),
        ({"nam": 1}, "did you mean name"),
        ({"name": 3}, "name: wrong value\n  expected: a text\n  got:      3"),
        ({"words": []}, "words: wrong value"),
        ({"words": ["a", 1]}, "a list of texts"),
        ({"box": [1]}, "a list of 2"),
        ({"box": [1, "a"]}, "a list: a whole number"),
        ({"kind": "c"}, "one of a, b"),
        ({"kind": ["a"]}, "one of a, b"),
        ({"is_on": 1}, "true or false"),
        ({"seed": True}, "a whole number"),
        ({"seed": 1.0}, "a whole number"),
        ({"seed": 2**63}, "a whole number from"),
        ({"part": 3}, "part: expected a section"),
        ({"part": {"n": 0}}, "part.n: wrong value\n  expected: a whole number from 1 to 9"),
        ({"part": {"share": math.nan}}, "part.share: wrong value\n  expected: a number"),
        ({"part": {"share": math.inf}}, "part.share"),
        ({"part": {"share": 10**400}}, "part.share"),
        ({"parts": [{}, {"m": 1}]}, "parts #2.m: unknown key"),
        ({"parts": {"n": 1}}, "parts: wrong value\n  expected: a list of sections"),
        ({"part": [{"n": 1}]}, "part: expected a section"),
        ({"whole": {"name": "x"}}, "hint:     name: outside of it, in no section"),
        ({"groups": {"g": 1}}, "groups: wrong value\n  expected: a list of whole numbers"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(table, said):
    _, problems = built(**table)
    assert said in "\n".join(problems)
    assert len(problems) == 1


def test_all_mistakes_are_collected_and_defaults_stand_in_for_them():
    whole, problems = built(kind=1, seed="x", part={"n": -1, "o": 0})
    assert len(problems) == 4
    assert whole == Whole("x", ("w",), part=Part(n=7))


def test_a_missing_or_wrong_field_without_a_default_gives_no_record():
    problems: list[LoraSceneError] = []
    assert build(Whole, {}, problems, error=SceneError, where="file: ") is None
    assert str(problems[0]) == "file: name: missing"
    assert build(Whole, [1], problems, error=SceneError) is None


def test_unknown_keys_may_be_left_out():
    problems: list[LoraSceneError] = []
    read = build(Part, {"later": 1}, problems, error=SceneError, ignores_unknown=True)
    assert (read, problems) == (Part(), [])


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[parts]\nn = 1", "write [[parts]], in double brackets, once for each"),
        ("[parts.one]\nn = 1", "write [[parts]], in double brackets, once for each"),
        ("parts = [1]", "write [[parts]], in double brackets, once for each"),
        ("[[part]]\nn = 1", "write [part], once, in single brackets"),
        ("part = 3", None),
        ("[[groups]]\ng = [1]", "write [groups], once, in single brackets"),
        ("[[whole]]\nbox = [1, 2]", "box: outside of it, in no section"),
        (
            "[part]\nn = 1\nseed = 5",
            "write it above the first line in brackets: what is below belongs to that section",
        ),
        ("[part]\nn = 1\ngroups.a = 5", None),
    ],
)
@pytest.mark.parametrize("where", ["", "C: my scene/scene.toml: "])
def test_brackets_of_toml_that_are_wrong_are_written_right_in_the_hint(text, hint, where):
    problems: list[LoraSceneError] = []
    table = {"name": "x", "words": ["w"], **tomllib.loads(text)}
    build(Whole, table, problems, error=SceneError, where=where, is_toml=True)
    (problem,) = problems
    assert problem.hint == hint
    problems.clear()
    build(Whole, table, problems, error=SceneError)
    assert "[" not in str(problems[0].hint), "JSON has no such brackets"


def test_many_problems_are_told_in_part_and_long_values_shortened():
    problems: list[LoraSceneError] = []
    table = {"name": "x", "words": ["w"], **{f"key{n}": n for n in range(10_000)}}
    build(Whole, table, problems, error=SceneError)
    text = str(SceneError.collect(problems, "scene.toml"))
    assert text.count("unknown key") == MAX_SHOWN == 20
    assert "10000 problems" in text
    assert [f"key{n}:" in text for n in (0, 19, 20)] == [True, True, False]
    assert "- and 9980 more" in text
    assert len(str(SceneError("x" * 10**6, got="y" * 10**6))) < 3000
