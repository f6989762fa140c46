"""What a user shows or says of a concept: boxes, points, strokes, words, a number from a list.

All places are pixels of the upright photo, from its upper left corner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lora_scene.errors import SceneError, SegmenterError
from lora_scene.scenes.handles import check_handles

Kind = Literal["box", "point", "stroke", "words", "pick"]


@dataclass(frozen=True)
class Box:
    """A rectangle around a concept; right and bottom lie just outside it."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Point:
    """A place in a concept, or, with `is_inside` False, a place that is not part of it."""

    x: float
    y: float
    is_inside: bool = True


@dataclass(frozen=True)
class Stroke:
    """A brush stroke over a concept, or, with `is_inside` False, over what is not part of it.

    Attributes:
        path: (x, y) corners of the stroke.
        width: Width of the brush, pixels.
        is_inside: Whether it lies in the concept.
    """

    path: tuple[tuple[float, float], ...]
    width: float
    is_inside: bool = True


Mark = Point | Stroke


@dataclass(frozen=True)
class Prompt:
    """All that is known of one concept.

    Attributes:
        handle: The concept's handle.
        noun: Its class noun.
        box: A box around it.
        points: Places in it, or beside it.
        strokes: Strokes over it, or beside it.
        words: Words for it.
        pick: Its number in a list of regions, from 1.
    """

    handle: str
    noun: str
    box: Box | None = None
    points: tuple[Point, ...] = ()
    strokes: tuple[Stroke, ...] = ()
    words: str | None = None
    pick: int | None = None

    @property
    def kinds(self) -> frozenset[Kind]:
        """Return what is given."""
        given: dict[Kind, bool] = {
            "box": self.box is not None,
            "point": bool(self.points),
            "stroke": bool(self.strokes),
            "words": self.words is not None,
            "pick": self.pick is not None,
        }
        return frozenset(kind for kind, is_given in given.items() if is_given)

    @property
    def says_where(self) -> bool:
        """Return whether anything tells where the concept is, not only where it is not."""
        return bool(self.kinds & {"box", "words", "pick"}) or any(
            mark.is_inside for mark in self.marks
        )

    @property
    def marks(self) -> tuple[Mark, ...]:
        """Return the points and the strokes."""
        return (*self.points, *self.strokes)


def check_prompts(
    prompts: Sequence[Prompt],
    shape: tuple[int, int],
    *,
    accepted: frozenset[Kind],
    segmenter: str,
) -> None:
    """Refuse prompts that cannot be followed.

    Args:
        prompts: One per concept.
        shape: (height, width) of the upright photo.
        accepted: The kinds that the segmenter follows.
        segmenter: Its name, for messages.

    Raises:
        SegmenterError: All that is wrong with them, collected.
    """
    problems: list[SceneError] = []
    if not prompts:
        problems.append(
            SegmenterError(
                "no concept is asked for",
                expected=f"for each concept one of: {', '.join(sorted(accepted))}",
                hint="for example a box around it, left,top,right,bottom in pixels",
            )
        )
    handles = [prompt.handle for prompt in prompts]
    nouns = [prompt.noun for prompt in prompts]
    problems += check_handles(handles, "prompts", nouns=nouns, error=SegmenterError)
    for prompt in prompts:
        problems += _kind_problems(prompt, accepted, segmenter)
        problems += _place_problems(prompt, shape)
    if problems:
        raise SegmenterError.collect(problems, "the prompts cannot be followed")


def _kind_problems(
    prompt: Prompt, accepted: frozenset[Kind], segmenter: str
) -> list[SegmenterError]:
    ignored = prompt.kinds - accepted
    if ignored:
        return [
            SegmenterError(
                f"{segmenter} does not understand {' or '.join(sorted(ignored))}",
                where=prompt.handle,
                expected=", ".join(sorted(accepted)),
                hint=_other_way(ignored),
            )
        ]
    beside = prompt.kinds - {"pick"}
    if prompt.pick is not None and beside:
        return [
            SegmenterError(
                "a picked region takes nothing beside it",
                where=prompt.handle,
                expected="a number alone, or no number",
                got=f"pick and {', '.join(sorted(beside))}",
            )
        ]
    if not prompt.says_where:
        return [
            SegmenterError(
                "nothing tells where it is",
                where=prompt.handle,
                expected=f"one of: {', '.join(sorted(accepted))}",
                got="only places outside it" if prompt.kinds else "no prompt",
            )
        ]
    return []


def _other_way(ignored: frozenset[Kind]) -> str:
    if "words" in ignored:
        return "words need a model: --segmenter clipseg, grounding-dino or sam3"
    if "pick" in ignored:
        return "numbers need a model that lists regions: --segmenter sam, sam2 or maskformer"
    return "boxes, points and strokes are followed by --segmenter grabcut, which is built in"


def _place_problems(prompt: Prompt, shape: tuple[int, int]) -> list[SegmenterError]:
    height, width = shape
    limits = f"within the photo of {width} x {height} pixels"
    problems = _box_problems(prompt, shape, limits)
    for stroke in prompt.strokes:
        if stroke.width > max(shape):
            problems.append(
                SegmenterError(
                    "a stroke is wider than the photo",
                    where=prompt.handle,
                    expected=f"at most {max(shape)} pixels",
                    got=f"{stroke.width:g}",
                )
            )
    for x, y, is_inside in _places(prompt):
        box = prompt.box
        if is_inside and box and not (box.left <= x <= box.right and box.top <= y <= box.bottom):
            problems.append(
                SegmenterError(
                    "a point or stroke lies outside its own box",
                    where=prompt.handle,
                    expected="places in the box, or none",
                    got=f"{x:g},{y:g}",
                    hint="the box must hold all of the concept; widen it, or move the point",
                )
            )
        elif not (0 <= x < width and 0 <= y < height):
            problems.append(
                SegmenterError(
                    "a point or stroke lies outside the photo",
                    where=prompt.handle,
                    expected=limits,
                    got=f"{x:g},{y:g}",
                )
            )
    return problems


def _box_problems(prompt: Prompt, shape: tuple[int, int], limits: str) -> list[SegmenterError]:
    """Return what is wrong with the box, if there is one."""
    box = prompt.box
    if box is None:
        return []
    height, width = shape
    where = f"{prompt.handle}: box"
    got = f"{box.left:g},{box.top:g},{box.right:g},{box.bottom:g}"
    if not (box.left < box.right and box.top < box.bottom):
        message = "the box is inverted or empty"
        expected = "left,top,right,bottom with left < right and top < bottom"
        return [SegmenterError(message, where=where, expected=expected, got=got)]
    if box.left < 0 or box.top < 0 or box.right > width or box.bottom > height:
        message = "the box leaves the photo"
        hint = "places are pixels of the upright photo, from its upper left corner"
        return [SegmenterError(message, where=where, expected=limits, got=got, hint=hint)]
    return []


def _places(prompt: Prompt) -> list[tuple[float, float, bool]]:
    """Return the (x, y) of points and of strokes' corners, and whether they lie in the concept."""
    places = [(point.x, point.y, point.is_inside) for point in prompt.points]
    places += [(x, y, stroke.is_inside) for stroke in prompt.strokes for x, y in stroke.path]
    return places
