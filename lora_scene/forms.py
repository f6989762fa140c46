"""Typed records of the tables in files: a frozen dataclass is a form that a table fills in.

`build` makes one, whose annotations say what is right. What is wrong is a sentence of the caller's
own kind of error; they are collected, so that all mistakes are told at once.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from lora_scene.documents import INTEGERS, Error
from lora_scene.errors import MAX_SHOWN, LoraSceneError, did_you_mean

_type_hints = cache(typing.get_type_hints)

Record = TypeVar("Record")


def between(default: Any, low: float, high: float = math.inf) -> Any:
    """Declare a dataclass's field with a default and an inclusive range, for `build`."""
    return dataclasses.field(default=default, metadata={"range": (low, high)})


def filled(default: Any) -> Any:
    """Declare a field that must be given, and not empty; `default` stands in for what is wrong."""
    return dataclasses.field(default=default, metadata={"filled": True})


def build(
    kind: type[Record],
    table: object,
    problems: list[LoraSceneError],
    *,
    error: Error,
    where: str = "",
    omit: tuple[str, ...] = (),
    ignores_unknown: bool = False,
    is_toml: bool = False,
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
        is_toml: Whether a person wrote it as TOML, so that brackets help where one is no section.

    Returns:
        The record, defaults in place of what is wrong; None where there is no default.
    """
    top = frozenset(field.name for field in dataclasses.fields(kind) if is_toml)  # type: ignore[arg-type]
    builder = _Builder(problems, error, ignores_unknown, top)
    return builder.record(kind, table, where, omit=omit)


class _WrongError(Exception):
    """A value that does not fit; says what was expected, and perhaps what helps."""

    def __init__(self, expected: str, hint: str | None = None) -> None:
        super().__init__(expected)
        self.hint = hint


@dataclasses.dataclass(frozen=True)
class _Builder:
    problems: list[LoraSceneError]
    error: Error
    ignores_unknown: bool
    top: frozenset[str]  # keys above the first heading of a TOML file; none where it is no TOML

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
            place = where.rstrip(".: ") or None
            self._add(
                "expected a section", place, got=brief(table), hint=self._brackets(where, table)
            )
            return None
        hints = _type_hints(kind)  # type: ignore[arg-type]
        fields = [field for field in dataclasses.fields(kind) if field.name not in omit]  # type: ignore[arg-type]
        known = [field.name for field in fields]
        for key in [key for key in table if key not in known and not self.ignores_unknown]:
            hint = None
            if len(self.problems) < MAX_SHOWN:
                hint = self._above(where, key, table[key]) or did_you_mean(str(key), known)
                hint = hint or _outside(table[key], known)
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
        except _WrongError as wrong:
            told = {"expected": str(wrong), "got": brief(value), "hint": wrong.hint}
            self._add("wrong value", place, **told)
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
                raise _WrongError("a section", self._brackets(place, value))
            return {
                str(key): self._value(one, inner[1], f"{place}.{key}", None, None)
                for key, one in value.items()
            }
        return _plain(value, hint, limits)

    def _row(self, value: Any, inner: tuple[Any, ...], place: str) -> tuple[Any, ...]:
        is_open = len(inner) == 2 and inner[1] is Ellipsis
        has_sections = is_open and dataclasses.is_dataclass(inner[0])
        plural = NAMES.get(inner[0], ("", "sections"))[1] if is_open else len(inner)
        if not isinstance(value, list | tuple) or not (is_open or len(value) == len(inner)):
            hint = self._brackets(f"{place} #1.", value) if has_sections else None
            raise _WrongError(f"a list of {plural}", hint)
        if has_sections:
            kind = typing.cast(type, inner[0])
            made = [self.record(kind, one, f"{place} #{n}.") for n, one in enumerate(value, 1)]
            return tuple(one for one in made if one is not None)
        try:
            pairs = zip(value, [inner[0]] * len(value) if is_open else inner, strict=True)
            return tuple(self._value(one, kind, place, None, None) for one, kind in pairs)
        except _WrongError as expected:
            said = f"a list of {plural}" if is_open and inner[0] in NAMES else f"a list: {expected}"
            raise _WrongError(said) from None

    def _above(self, where: str, key: object, value: object) -> str | None:
        """Return that a key of the whole file, which stands in a section, belongs above it."""
        is_in_section = bool(where.rpartition(": ")[2])
        if not (is_in_section and key in self.top) or isinstance(value, Mapping):
            return None
        return "write it above the first line in brackets: what is below belongs to that section"

    def _brackets(self, place: str, value: object) -> str | None:
        """Return how the heading of a section at a place, such as `concepts #1.`, is written."""
        key, mark, _ = place.rpartition(": ")[2].rstrip(".").partition(" #")
        if not (self.top and key):
            return None
        if mark:
            return f"write [[{key}]], in double brackets, once for each"
        return f"write [{key}], once, in single brackets" if isinstance(value, list) else None

    def _add(self, what: str, where: str | None, **details: Any) -> None:
        self.problems.append(self.error(what, where=where, **details))


def _outside(value: object, known: Sequence[str]) -> str | None:
    """Say which keys were put into a section that is none."""
    inner = value[0] if isinstance(value, list) and value else value
    found = [key for key in known if isinstance(inner, Mapping) and key in inner]
    return f"{', '.join(found)}: outside of it, in no section" if found else None


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
