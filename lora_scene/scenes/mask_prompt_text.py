"""Prompts as people type them: bear=40,60,300,420."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from typing import Any

from lora_scene.errors import SegmenterError, did_you_mean
from lora_scene.scenes.handles import HANDLE_FORM, HANDLE_HELP, Concept, default_noun
from lora_scene.scenes.mask_prompts import Box, Point, Prompt, Stroke

BRUSH_WIDTH = 12.0  # pixels, where a stroke names none


@dataclass(frozen=True)
class PromptText:
    """What was typed, one string an option.

    Attributes:
        boxes: `bear=left,top,right,bottom`.
        points: `bear=x,y`: a place in the bear.
        outside: `bear=x,y`: a place that is not part of it.
        strokes: `bear=x,y;x,y;x,y` or the same with `@width`.
        words: `bear=panda plush`, or `shell`, which names itself.
        picks: `bear=3`.
        nouns: `bear=teddy bear`.
    """

    boxes: Sequence[str] = ()
    points: Sequence[str] = ()
    outside: Sequence[str] = ()
    strokes: Sequence[str] = ()
    words: Sequence[str] = ()
    picks: Sequence[str] = ()
    nouns: Sequence[str] = ()


def to_handle(name: str) -> str:
    """Return the handle that a typed name means: `<bear>` for `bear` or `<bear>`."""
    name = name.strip()
    return name if name.startswith("<") else f"<{name}>"


def parse_prompts(text: PromptText) -> tuple[Prompt, ...]:
    """Read typed prompts; concepts come in the order in which they are first named.

    Raises:
        SegmenterError: All that cannot be read, collected.
    """
    problems: list[SegmenterError] = []
    found: dict[str, Prompt] = {}
    for option, read in _READERS.items():
        for entry in getattr(text, option):
            try:
                name, value = _words(entry) if option == "words" else _split(entry, option)
                noun = value if option == "words" and "=" not in entry else default_noun(name)
                found[name] = read(found.get(name) or Prompt(name, noun), value)
            except SegmenterError as error:
                problems.append(error)
            except ValueError:
                problems.append(_unreadable(entry, option))
    problems += _add_nouns(found, text.nouns)
    if problems:
        raise SegmenterError.collect(problems, "the prompts cannot be read")
    return tuple(found.values())


def parse_background(text: str) -> Concept:
    """Read a typed background: `room`, or `room=empty room` with its noun.

    Raises:
        SegmenterError: It is not a name.
    """
    name, equals, noun = text.partition("=")
    handle = to_handle(name)
    if not HANDLE_FORM.fullmatch(handle) or (equals and not noun.strip()):
        raise SegmenterError("an illegal name", where=text, expected=HANDLE_HELP, got=repr(name))
    return Concept(handle, noun.strip() or default_noun(handle), is_background=True)


def _add_nouns(found: dict[str, Prompt], nouns: Sequence[str]) -> list[SegmenterError]:
    problems = []
    given: set[str] = set()
    for entry in nouns:
        try:
            name, noun = _split(entry, "nouns")
        except SegmenterError as error:
            problems.append(error)
            continue
        if name in given:
            problems.append(SegmenterError("noun is given twice", where=name))
        given.add(name)
        if name in found:
            found[name] = replace(found[name], noun=noun)
        else:
            problems.append(
                SegmenterError(
                    "a noun for an unknown concept",
                    where=f"noun {entry}",
                    expected=", ".join(found) or "a concept with a box, point, stroke or words",
                    got=name,
                    hint=did_you_mean(name, found),
                )
            )
    return problems


def _split(entry: str, option: str) -> tuple[str, str]:
    name, equals, value = entry.partition("=")
    handle = to_handle(name)
    if not equals or not value.strip():
        raise _unreadable(entry, option)
    if not HANDLE_FORM.fullmatch(handle):
        raise SegmenterError("an illegal name", where=entry, expected=HANDLE_HELP, got=repr(name))
    return handle, value.strip()


def _words(entry: str) -> tuple[str, str]:
    if "=" in entry or not entry.strip():
        return _split(entry, "words")
    stem = re.sub(r"[^A-Za-z0-9]+", "-", entry).strip("-").lower()
    return _split(f"{stem}={entry}", "words")


def _numbers(value: str, count: int) -> list[float]:
    """Read finite numbers between commas; anything else is a ValueError."""
    numbers = [float(part) for part in value.split(",")]
    if len(numbers) != count or not all(map(isfinite, numbers)):
        raise ValueError(value)
    return numbers


def _unreadable(entry: str, option: str) -> SegmenterError:
    hint = "places are in pixels" if option in _PLACES else None
    where = entry.strip() or f"an empty --{option}"
    return SegmenterError("cannot be read", where=where, expected=_FORMS[option], hint=hint)


def _set_once(prompt: Prompt, field: str, value: Any) -> Prompt:
    if getattr(prompt, field) is not None:
        raise SegmenterError(f"{field} is given twice", where=prompt.handle)
    changes: dict[str, Any] = {field: value}
    return replace(prompt, **changes)


def _read_point(prompt: Prompt, value: str, *, is_inside: bool = True) -> Prompt:
    x, y = _numbers(value, 2)
    return replace(prompt, points=(*prompt.points, Point(x, y, is_inside)))


def _read_stroke(prompt: Prompt, value: str) -> Prompt:
    path, _, width = value.partition("@")
    corners = [_numbers(corner, 2) for corner in path.split(";")]
    brush = _numbers(width, 1)[0] if width else BRUSH_WIDTH
    if len(corners) < 2 or brush <= 0:
        raise ValueError(value)
    stroke = Stroke(tuple((x, y) for x, y in corners), brush)
    return replace(prompt, strokes=(*prompt.strokes, stroke))


def _read_pick(prompt: Prompt, value: str) -> Prompt:
    if not value.isascii() or not value.isdigit():
        raise ValueError(value)
    return _set_once(prompt, "pick", int(value))


_READERS: Mapping[str, Callable[[Prompt, str], Prompt]] = {
    "boxes": lambda prompt, value: _set_once(prompt, "box", Box(*_numbers(value, 4))),
    "points": _read_point,
    "outside": partial(_read_point, is_inside=False),
    "strokes": _read_stroke,
    "picks": _read_pick,
    "words": lambda prompt, value: _set_once(prompt, "words", value),
}
_PLACES = ("boxes", "points", "outside", "strokes")
_FORMS: Mapping[str, str] = {
    "boxes": "NAME=left,top,right,bottom",
    "points": "NAME=x,y",
    "outside": "NAME=x,y",
    "strokes": "NAME=x,y;x,y;... or NAME=x,y;x,y@width",
    "words": "NAME=some words, or a word that names itself",
    "picks": "NAME=number",
    "nouns": "NAME=some words",
}
