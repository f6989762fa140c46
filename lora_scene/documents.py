"""Text files of people and strangers, read within bounds.

`read_text` gives a file's text, `parse_toml` and `parse_json` the tables in it, of which `forms`
makes typed records. What is wrong is a sentence of the caller's own kind of error.
"""

from __future__ import annotations

import json
import re
import stat
import tomllib
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from lora_scene.errors import LoraSceneError

MAX_TEXT_BYTES = 8 << 20  # a scene.toml of 10,000 concepts takes one
MAX_DEPTH = 32
INTEGERS = (-(2**63), 2**63 - 1)  # what TOML promises; JSON promises nothing

_PART = r"""(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(  # a.b.c...: the parser's time grows with the square of the parts
    rf"(?<![\w-]){_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{MAX_DEPTH}}}"
)
_MARKS = re.compile("^\ufeff+", re.MULTILINE)  # of files that were joined, too

Error = type[LoraSceneError]


def read_text(path: Path, error: Error, *, limit: int = MAX_TEXT_BYTES) -> str:
    """Return the text of a regular file, byte order marks taken off its lines.

    Args:
        path: The file; devices and pipes are refused, they may never end.
        error: What is raised.
        limit: The most bytes that are read.

    Raises:
        LoraSceneError: Of the kind `error`: it cannot be read, is too long or no UTF-8.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            got = "a folder" if path.is_dir() else "a device or pipe"
            raise error("cannot be read", where=path, expected="a file of text", got=got)
        with path.open("rb") as file:
            raw = file.read(limit + 1)
    except (OSError, ValueError) as problem:
        said = getattr(problem, "strerror", None) or str(problem)
        raise error("cannot be read", where=path, got=said) from problem
    if len(raw) > limit:
        raise error("too long", where=path, expected=f"at most {limit:,} bytes of text")
    try:
        if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in raw:
            raise UnicodeError("UTF-16, which some editors call Unicode, or no text at all")
        return _MARKS.sub("", raw.decode("utf-8"))
    except UnicodeError as problem:
        told = {"expected": "a file of UTF-8 text", "hint": "save it as UTF-8"}
        raise error("cannot be read", where=path, got=problem, **told) from problem


def parse_toml(text: str, where: object, error: Error) -> dict[str, Any]:
    """Return the table of a TOML text.

    Raises:
        LoraSceneError: Of the kind `error`: not valid, too deep, or numbers beyond 64 bits.
    """
    if _LONG_KEY.search(text):
        raise _too_deep(where, error)
    return dict(_parsed(text, tomllib.loads, "TOML", where, error))


def parse_json(text: str, where: object, error: Error) -> Any:
    """Return what a JSON text holds; NaN and infinities are none.

    Raises:
        LoraSceneError: As `parse_toml`.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    return _parsed(text, partial(json.loads, parse_constant=refuse), "JSON", where, error)


def _refuse_excess(held: object, where: object, error: Error) -> None:
    """Refuse what would exhaust whoever walks or prints it."""
    level = [held]
    for _ in range(MAX_DEPTH):
        if any(isinstance(one, int) and not INTEGERS[0] <= one <= INTEGERS[1] for one in level):
            raise error("a number is too large", where=where, expected="whole numbers of 64 bits")
        tables = (one.values() for one in level if isinstance(one, dict))
        level = [*chain(*tables, *(one for one in level if isinstance(one, list)))]
        if not level:
            return
    raise _too_deep(where, error)


def _parsed(text: str, parse: Callable[[str], Any], kind: str, where: object, error: Error) -> Any:
    try:
        held = parse(text.removeprefix("\ufeff"))
    except RecursionError:
        raise _too_deep(where, error) from None
    except ValueError as problem:
        raise error(f"not valid {kind}", where=where, got=problem) from problem
    _refuse_excess(held, where, error)
    return held


def _too_deep(where: object, error: Error) -> LoraSceneError:
    return error("nested too deeply", where=where, expected=f"at most {MAX_DEPTH} levels")
