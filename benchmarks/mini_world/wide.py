"""Compose the wide world, on which version 3 of the base is trained.

The first two versions saw 48 drawings, apart from each other, on a grid, in their own colours: they
hardly denoise a drawing that they never saw. Here two things in five are any other drawing of the
training styles, which captions call a "thing"; hues are turned, drawings mirrored, places off the
grid; things touch and cover each other, and two may share a noun.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.mini_world.backgrounds import BACKGROUNDS, paint_background
from benchmarks.mini_world.compose import (
    GRID,
    SIDE,
    Composition,
    Placement,
    paste,
    place_apart,
    reading_key,
    shrink,
)
from benchmarks.mini_world.drawings import TRAINING_STYLES, Drawings
from benchmarks.mini_world.nouns import THING, Noun
from benchmarks.mini_world.splits import is_held_out

Kind = Literal["apart", "free", "contact"]

N_PROBS = (0.02, 0.30, 0.42, 0.18, 0.08)
"""Share of scenes with 0, 1, 2, 3 and 4 drawings."""

KINDS: dict[Kind, float] = {"apart": 0.5, "free": 0.2, "contact": 0.3}
"""Share of scenes, of those with several drawings, that are laid out so."""

LARGEST = (46, 46, 42, 32, 28)
"""Number of drawings -> the longest side of one, px, where sizes are free."""

SMALLEST = 16

THING_PROB, TWIN_PROB, TURN_PROB, MIRROR_PROB, GRID_PROB = 0.4, 0.12, 0.4, 0.3, 0.5

VISIBLE = 0.6
"""The least share of a drawing that others leave visible."""

TOUCHING = 0.03
"""The least share of some drawing that is hidden where things touch."""

_OPAQUE = 128
_LEAST_OPAQUE = 0.25
_TRIES = 60


@dataclass(frozen=True, eq=False)
class Drawn:
    """A drawing that is to be placed: its noun, its number among the noun's, its sprite.

    The sprite is (h, w, 4) uint8, straight alpha.
    """

    noun: str
    number: int
    part: NDArray[np.uint8]


class WideSprites:
    """The named drawings, and all others under one word."""

    def __init__(self, drawings: Drawings, nouns: Sequence[Noun]) -> None:
        """Sort the drawings of the training styles by word.

        Args:
            drawings: where they come from.
            nouns: those that captions name.
        """
        self.nouns = tuple(noun.word for noun in nouns)
        self._drawings: dict[str, list[NDArray[np.uint8]]] = {}
        for noun in nouns:
            found = [drawings.find(style, noun.code) for style in noun.styles]
            self._drawings[noun.word] = [drawing for drawing in found if drawing is not None]
        named = {noun.code for noun in nouns}
        known = drawings.of(*TRAINING_STYLES)
        self._drawings[THING] = [
            rgba
            for rgba, code in zip(known.rgba, known.codes, strict=True)
            if code not in named and (rgba[..., 3] >= _OPAQUE).mean() >= _LEAST_OPAQUE
        ]

    def draw(self, noun: str, size: int, rng: np.random.Generator) -> Drawn:
        """Draw one of a noun's drawings, turned and mirrored or not."""
        number = int(rng.integers(len(self._drawings[noun])))
        part = shrink(self._drawings[noun][number], size)
        if rng.random() < TURN_PROB:
            part = turned(part, int(rng.integers(1, 256)))
        return Drawn(noun, number, part[:, ::-1] if rng.random() < MIRROR_PROB else part)


def turned(part: NDArray[np.uint8], turn: int) -> NDArray[np.uint8]:
    """Turn a sprite's hues by `turn` of 256 parts of a circle."""
    hsv = np.array(Image.fromarray(np.ascontiguousarray(part[..., :3])).convert("HSV"))
    hsv[..., 0] += np.uint8(turn)  # bytes: a whole circle is 256
    colours = np.asarray(Image.fromarray(hsv, mode="HSV").convert("RGB"))
    return np.concatenate([colours, part[..., 3:]], axis=-1)


def draw_words(
    nouns: Sequence[str], n: int, rng: np.random.Generator
) -> tuple[tuple[str, ...], str]:
    """Draw n words and a background that training may show together; two may be the same."""
    grounds = list(BACKGROUNDS)
    while True:
        words = [str(word) for word in rng.choice(nouns, n, replace=False)]
        words = [THING if rng.random() < THING_PROB else word for word in words]
        if n > 1 and rng.random() < TWIN_PROB:
            words[1] = words[0]
        background = grounds[int(rng.integers(len(grounds)))]
        if not is_held_out(words, background):
            return tuple(words), background


def compose_wide(sprites: WideSprites, rng: np.random.Generator) -> Composition:
    """Compose one scene that training may show."""
    n = int(rng.choice(len(N_PROBS), p=N_PROBS))
    words, background = draw_words(sprites.nouns, n, rng)
    kind = list(KINDS)[int(rng.choice(len(KINDS), p=list(KINDS.values())))] if n > 1 else "free"
    least, most = (24, 32 if n < 3 else 28) if kind == "apart" else (SMALLEST, LARGEST[n])
    while True:
        drawn = [sprites.draw(word, int(rng.integers(least, most + 1)), rng) for word in words]
        scene = lay_out(drawn, background, kind, rng)
        if scene is not None:
            return scene


def lay_out(
    drawn: Sequence[Drawn], background: str, kind: Kind, rng: np.random.Generator
) -> Composition | None:
    """Place sprites, the farthest first; None where no place in some tries fits the kind."""
    parts, n = [one.part for one in drawn], len(drawn)
    shapes = [part.shape[:2] for part in parts]
    ground = paint_background(background, SIDE, rng)
    for _ in range(_TRIES):
        boxes = place_apart(shapes, rng) if kind == "apart" else _anywhere(shapes, rng)
        picture = ground.copy()
        wholes = _stacked(
            [paste(picture, part, *box) for part, box in zip(parts, boxes, strict=True)]
        )
        masks = _stacked([whole & ~wholes[k + 1 :].any(0) for k, whole in enumerate(wholes)])
        if _fits(kind, masks.sum(axis=(1, 2)), wholes.sum(axis=(1, 2))):
            places = [
                Placement(one.noun, one.number, *box, *shape, depth=k * (kind == "contact"))
                for k, (one, box, shape) in enumerate(zip(drawn, boxes, shapes, strict=True))
            ]
            order = sorted(range(n), key=lambda k: reading_key(places[k], n))
            return Composition(picture, masks[order], tuple(places[k] for k in order), background)
    return None


def _stacked(masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    return np.array(masks, bool).reshape(-1, SIDE, SIDE)


def _anywhere(shapes: Sequence[tuple[int, ...]], rng: np.random.Generator) -> list[tuple[int, int]]:
    """Draw (top, left) for each (height, width), on the grid or off it."""
    step = GRID if rng.random() < GRID_PROB else 1
    return [
        (step * int(rng.integers((SIDE - height) // step + 1)),
         step * int(rng.integers((SIDE - width) // step + 1)))
        for height, width in shapes
    ]  # fmt: skip


def _fits(kind: Kind, visible: NDArray[np.int64], whole: NDArray[np.int64]) -> bool:
    """Tell whether what is visible of each drawing, px of its whole, is as the kind wants it."""
    shares = visible / np.maximum(whole, 1)
    least = shares.min(initial=1.0)
    return VISIBLE <= least <= 1 - TOUCHING if kind == "contact" else least == 1.0
