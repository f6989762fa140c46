"""Text files within bounds."""

from __future__ import annotations

import os
import time

import pytest

from lora_scene.documents import MAX_DEPTH, parse_json, parse_toml, read_text
from lora_scene.errors import SceneError


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
