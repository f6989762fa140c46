"""Text files within bounds, and typed records."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from lora_scene.documents import (
    MAX_DEPTH,
    between,
    build,
    filled,
    parse_json,
    parse_toml,
    read_text,
)
from lora_scene.errors import MAX_SHOWN, LoraSceneError, SceneError


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


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa = 1\n")
    assert read_text(tmp_path / "a.txt", SceneError) == "a = 1\n"
    assert parse_toml("\ufeffa = 1", "a", SceneError) == {"a": 1}
    assert parse_json('\ufeff{"a": 1}', "a", SceneError) == {"a": 1}


@pytest.mark.parametrize("raw", [b"\xff\xfea\0", b"\x80"])
def test_what_is_no_utf8_is_refused(tmp_path, raw):
    (tmp_path / "a.txt").write_bytes(raw)
    with pytest.raises(SceneError, match="UTF-8"):
        read_text(tmp_path / "a.txt", SceneError)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "fifo", "folder", "missing", "a\0b"])
def test_what_is_no_file_is_refused_at_once(tmp_path, path):
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SceneError, match="cannot be read"):
        read_text(tmp_path / path, SceneError)


def test_a_file_is_read_up_to_its_limit(tmp_path):
    (tmp_path / "a.txt").write_text("x" * 10)
    assert read_text(tmp_path / "a.txt", SceneError, limit=10) == "x" * 10
    with pytest.raises(SceneError, match="at most 9 bytes"):
        read_text(tmp_path / "a.txt", SceneError, limit=9)


HOSTILE = {
    "5000 digits": "a = " + "9" * 5000,
    "400 digits": "a = " + "9" * 400,
    "hexadecimal": "a = 0x" + "f" * 60_000,
    "arrays": "a = " + "[" * 30_000 + "]" * 30_000,
    "tables": "a = " + "{a = " * 10_000 + "1" + "}" * 10_000,
    "dotted": ".".join("a" * 30_000) + " = 1",
    "dotted header": "[" + ".".join("a" * 30_000) + "]",
    "dotted and quoted": ". ".join(['"\\""'] * 30_000) + " = 1",
    "many dotted": ("a = {" + ".".join("b" * 500) + " = 1}\n") * 500,
    "not TOML": "a = ",
    "twice": "a = 1\na = 2",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_toml_is_a_sentence_in_bounded_time(kind):
    began = time.monotonic()
    with pytest.raises(SceneError) as caught:
        parse_toml(HOSTILE[kind], "scene.toml", SceneError)
    assert time.monotonic() - began < 5
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize(
    "text",
    ["9" * 5000, "9" * 400, "[" * 100_000, "[" * 40 + "]" * 40, '{"a":' * 99_999, "NaN", "", "{"],
)
def test_hostile_json_is_a_sentence(text):
    with pytest.raises(SceneError) as caught:
        parse_json(text, "row.json", SceneError)
    assert "recursion" not in str(caught.value)


def test_depth_is_allowed_up_to_its_limit():
    deepest = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    parse_json(deepest, "x", SceneError)
    with pytest.raises(SceneError, match="nested too deeply"):
        parse_json(f"[[{deepest}]]", "x", SceneError)


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


def test_a_message_cannot_steer_the_terminal():
    assert str(SceneError("no such", where="a\x1b[31m\udc80", got="b\nc")) == (
        "a\\x1b[31m\\udc80: no such\n  got:      b\nc"
    )


@pytest.mark.parametrize("mark", ["\ufeff", ""])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_named_with_what_to_do(tmp_path, encoding, mark):
    path = tmp_path / "prompts.txt"
    path.write_bytes(f"{mark}a photo of <bear>".encode(encoding))
    with pytest.raises(SceneError, match=r"UTF-16[^\0]*save it as UTF-8"):
        read_text(path, SceneError)


def test_byte_order_marks_of_joined_files_are_taken_off(tmp_path):
    (tmp_path / "joined.txt").write_bytes(("\ufeff<bear>\n" * 2).encode())
    assert read_text(tmp_path / "joined.txt", SceneError) == "<bear>\n<bear>\n"
