"""Text files of people and strangers, read within bounds, and the typed records in them.

`read_text` gives a file's text, `parse_toml` and `parse_json` the tables in it, `build` a frozen
dataclass of a table, whose annotations say what is right. What is wrong is a sentence of the
caller's own kind of error; `build` collects, so that all mistakes are told at once.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import stat
import sys
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeVar

from lora_scene.errors import MAX_SHOWN, LoraSceneError, did_you_mean

MAX_TEXT_BYTES = 8 << 20  # a scene.toml of 10,000 concepts takes one
MAX_DEPTH = 32
INTEGERS = (-(2**63), 2**63 - 1)  # what TOML promises; JSON promises nothing

_PART = r"""(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(  # a.b.c...: the parser's time grows with the square of the parts
    rf"(?<![\w-]){_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{MAX_DEPTH}}}"
)
_MARKS = re.compile("^\ufeff+", re.MULTILINE)  # of files that were joined, too
_type_hints = cache(typing.get_type_hints)

Error = type[LoraSceneError]
Record = TypeVar("Record")


def between(default: Any, low: float, high: float = math.inf) -> Any:
    """Declare a dataclass's field with a default and an inclusive range, for `build`."""
    return dataclasses.field(default=default, metadata={"range": (low, high)})


def filled(default: Any) -> Any:
    """Declare a field that must be given, and not empty; `default` stands in for what is wrong."""
    return dataclasses.field(default=default, metadata={"filled": True})


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


def build(
    kind: type[Record],
    table: object,
    problems: list[LoraSceneError],
    *,
    error: Error,
    where: str = "",
    omit: tuple[str, ...] = (),
    ignores_unknown: bool = False,
) -> Record | None:
    """Build a dataclass of a table by the annotations of its fields.

    A field is a text, number, truth value, `Path`, `Literal`, `None`, another dataclass, or a
    tuple or mapping of such. Numbers are finite, within `between` if declared so. A section that
    is given in part takes the rest from the field's default.

    Args:
        kind: The dataclass.
        table: What was read.
        problems: What is wrong is added here, `where` it is in front of its key.
        error: The kind of what is added.
        where: Such as `scene.toml: `.
        omit: Fields that no file may set.
        ignores_unknown: Whether keys that no field has are left out; else each is a problem.

    Returns:
        The record, defaults in place of what is wrong; None where there is no default.
    """
    return _Builder(problems, error, ignores_unknown).record(kind, table, where, omit=omit)


class _WrongError(Exception):
    """A value that does not fit; says what was expected."""


@dataclasses.dataclass(frozen=True)
class _Builder:
    problems: list[LoraSceneError]
    error: Error
    ignores_unknown: bool

    def record(
        self,
        kind: type[Record],
        table: object,
        where: str,
        *,
        omit: tuple[str, ...] = (),
        default: Record | None = None,
    ) -> Record | None:
        """Build one record; `default` has what the table does not say."""
        if not isinstance(table, Mapping):
            self._add("expected a section", where.rstrip(".: ") or None, got=brief(table))
            return None
        hints = _type_hints(kind)  # type: ignore[arg-type]
        fields = [field for field in dataclasses.fields(kind) if field.name not in omit]  # type: ignore[arg-type]
        known = [field.name for field in fields]
        for key in [key for key in table if key not in known and not self.ignores_unknown]:
            hint = did_you_mean(str(key), known) if len(self.problems) < MAX_SHOWN else None
            expected = f"one of {', '.join(known)}"
            self._add("unknown key", f"{where}{key}", expected=expected, hint=hint)
        values: dict[str, Any] = {}
        for field in fields:
            preset = getattr(default, field.name, field.default)
            value = self._field(field, hints[field.name], table, where, preset)
            if value is not dataclasses.MISSING:
                values[field.name] = value
            elif field.default_factory is dataclasses.MISSING:
                return None
        return kind(**values)

    def _field(
        self, field: Any, hint: Any, table: Mapping[str, Any], where: str, preset: Any
    ) -> Any:
        """Return a field's value, else its preset, which may be MISSING."""
        place = f"{where}{field.name}"
        if field.name not in table:
            is_lacking = (preset, field.default_factory) == (dataclasses.MISSING,) * 2
            if is_lacking or field.metadata.get("filled"):
                self._add("missing", place)
            return preset
        value = table[field.name]
        try:
            if field.metadata.get("filled") and value in ("", [], ()):
                raise _WrongError("something")
            return self._value(value, hint, place, field.metadata.get("range"), preset)
        except _WrongError as expected:
            self._add("wrong value", place, expected=str(expected), got=brief(value))
            return preset

    def _value(
        self, value: Any, hint: Any, place: str, limits: tuple[float, float] | None, preset: Any
    ) -> Any:
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        if origin in (typing.Union, types.UnionType):
            if value is None and type(None) in inner:
                return None
            (hint,) = [one for one in inner if one is not type(None)]
            return self._value(value, hint, place, limits, preset)
        if dataclasses.is_dataclass(hint):
            default = None if preset is dataclasses.MISSING else preset
            made = self.record(typing.cast(type, hint), value, f"{place}.", default=default)
            return preset if made is None else made
        if origin is tuple:
            return self._row(value, inner, place)
        if origin is not None and origin is not Literal:  # a mapping
            if not isinstance(value, Mapping):
                raise _WrongError("a section")
            return {
                str(key): self._value(one, inner[1], f"{place}.{key}", None, None)
                for key, one in value.items()
            }
        return _plain(value, hint, limits)

    def _row(self, value: Any, inner: tuple[Any, ...], place: str) -> tuple[Any, ...]:
        is_open = len(inner) == 2 and inner[1] is Ellipsis
        plural = NAMES.get(inner[0], ("", "..."))[1] if is_open else len(inner)
        if not isinstance(value, list | tuple) or not (is_open or len(value) == len(inner)):
            raise _WrongError(f"a list of {plural}")
        if is_open and dataclasses.is_dataclass(inner[0]):
            kind = typing.cast(type, inner[0])
            made = [self.record(kind, one, f"{place} #{n}.") for n, one in enumerate(value, 1)]
            return tuple(one for one in made if one is not None)
        try:
            pairs = zip(value, [inner[0]] * len(value) if is_open else inner, strict=True)
            return tuple(self._value(one, kind, place, None, None) for one, kind in pairs)
        except _WrongError as expected:
            said = f"a list of {plural}" if is_open and inner[0] in NAMES else f"a list: {expected}"
            raise _WrongError(said) from None

    def _add(self, what: str, where: str | None, **details: Any) -> None:
        self.problems.append(self.error(what, where=where, **details))


def brief(value: object) -> str:
    """Show a value of a file in at most a line."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:100]}... ({len(text):,} characters)"


NAMES: Mapping[Any, tuple[str, str]] = {  # one, and several
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "truth values"),
    str: ("a text", "texts"),
    Path: ("a path", "paths"),
}


def _plain(value: Any, hint: Any, limits: tuple[float, float] | None) -> Any:
    """Return a value without parts as its field holds it."""
    if hint in (Any, object):
        return value
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        if type(value) not in map(type, choices) or value not in choices:
            raise _WrongError(f"one of {', '.join(map(str, choices))}")
        return value
    kinds: Any = {float: int | float, Path: str}.get(hint, hint)
    if not isinstance(value, kinds) or (isinstance(value, bool) and hint is not bool):
        raise _WrongError(NAMES[hint][0])
    if hint is int or hint is float:
        low, high = limits or (INTEGERS if hint is int else (-math.inf, math.inf))
        if not low <= value <= high or (hint is float and not abs(value) <= sys.float_info.max):
            raise _WrongError(f"{NAMES[hint][0]} from {low:g} to {high:g}")
    return hint(value) if hint in (float, Path) else value


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
