"""Compose drawings onto backgrounds: pictures with exact masks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.mini_world.backgrounds import BACKGROUNDS, paint_background
from benchmarks.mini_world.drawings import Drawings, Style
from benchmarks.mini_world.nouns import Noun
from benchmarks.mini_world.splits import is_held_out

SIDE = 64
"""Side of a scene, px."""

GRID = 4
"""Drawings stand on multiples of this, px: one latent cell."""

SIZES: dict[int, tuple[int, ...]] = {1: (28, 32, 36), 2: (28, 32), 3: (24, 28), 4: (24, 28)}
"""Number of drawings -> their possible sizes (longer side), px."""

_OPAQUE = 128


@dataclass(frozen=True)
class Placement:
    """One drawing in a scene: its noun, which of the noun's drawings, and its box, px.

    Where things cover each other, `depth` counts them from the back; elsewhere it is 0.
    """

    noun: str
    drawing: int
    top: int
    left: int
    height: int
    width: int
    depth: int = 0

    def cells(self, axis: int) -> tuple[int, int]:
        """Return the first latent cell that it covers along an axis, and the next."""
        start = (self.top, self.left)[axis]
        end = start + (self.height, self.width)[axis]
        return start // GRID, -(-end // GRID)

    @property
    def centre(self) -> tuple[float, float]:
        """Return (row, column), px."""
        return self.top + self.height / 2, self.left + self.width / 2


@dataclass(frozen=True)
class Composition:
    """A composed scene.

    Attributes:
        picture: (SIDE, SIDE, 3) uint8, RGB.
        masks: (K, SIDE, SIDE) bool, one per drawing, disjoint.
        placements: K placements, in reading order.
        background: its name.
    """

    picture: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    placements: tuple[Placement, ...]
    background: str

    @property
    def nouns(self) -> tuple[str, ...]:
        """Return the nouns, in reading order."""
        return tuple(placement.noun for placement in self.placements)


class Sprites:
    """Drawings of some nouns in some styles, resized once to every size in use."""

    def __init__(
        self, drawings: Drawings, nouns: Iterable[Noun], styles: Sequence[Style] | None = None
    ) -> None:
        """Resize the drawings.

        Args:
            drawings: where to find them.
            nouns: which nouns.
            styles: which styles; None: the training styles that suit each noun.
        """
        self.nouns = tuple(noun.word for noun in nouns)
        self._sprites: dict[tuple[str, int], list[NDArray[np.uint8]]] = {}
        for noun in nouns:
            found = [drawings.find(style, noun.code) for style in styles or noun.styles]
            self.add(noun.word, (drawing for drawing in found if drawing is not None))

    def n_of(self, noun: str) -> int:
        """Return how many drawings of a noun there are."""
        return len(self._sprites[noun, SIZES[1][0]])

    def add(self, noun: str, drawings: Iterable[NDArray[np.uint8]]) -> None:
        """Add a noun of one's own, with its drawings, each (S, S, 4) uint8."""
        pictures = list(drawings)
        for size in sorted({size for group in SIZES.values() for size in group}):
            self._sprites[noun, size] = [shrink(picture, size) for picture in pictures]

    def pick(self, noun: str, size: int, number: int) -> NDArray[np.uint8]:
        """Return drawing `number` of a noun, (h, w, 4) uint8, its longer side `size` px."""
        return self._sprites[noun, size][number]


def draw_combination(
    nouns: Sequence[str], n: int, rng: np.random.Generator
) -> tuple[tuple[str, ...], str]:
    """Draw n distinct nouns and a background that training may show together."""
    names = list(BACKGROUNDS)
    while True:
        words = tuple(str(word) for word in rng.choice(nouns, n, replace=False))
        background = names[rng.integers(len(names))]
        if not is_held_out(words, background):
            return words, background


def compose(
    sprites: Sprites,
    nouns: Sequence[str],
    background: str,
    rng: np.random.Generator,
    *,
    drawings: Sequence[int] | None = None,
) -> Composition:
    """Compose one scene of the given nouns.

    Args:
        sprites: where the drawings come from.
        nouns: 0 to 4 nouns.
        background: its name.
        rng: draws sizes, places and the background's shades.
        drawings: which drawing of each noun; None: any.
    """
    if drawings is None:
        drawings = [int(rng.integers(sprites.n_of(noun))) for noun in nouns]
    sizes = rng.choice(SIZES[max(1, len(nouns))], len(nouns))
    chosen = zip(nouns, sizes, drawings, strict=True)
    parts = [sprites.pick(noun, int(size), drawing) for noun, size, drawing in chosen]
    boxes = place_apart([part.shape[:2] for part in parts], rng)
    picture = paint_background(background, SIDE, rng)
    placed = []
    for noun, drawing, part, (top, left) in zip(nouns, drawings, parts, boxes, strict=True):
        mask = paste(picture, part, top, left)
        placed.append((Placement(noun, drawing, top, left, *part.shape[:2]), mask))
    placed.sort(key=lambda pair: reading_key(pair[0], len(nouns)))
    masks = np.array([mask for _, mask in placed], bool).reshape(-1, SIDE, SIDE)
    return Composition(picture, masks, tuple(place for place, _ in placed), background)


def shrink(drawing: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize a square drawing to `size` px and crop it to its opaque part."""
    picture = Image.fromarray(drawing).resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture)
    rows, columns = np.nonzero(pixels[..., 3])
    return pixels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def place_apart(
    shapes: Sequence[tuple[int, ...]], rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Draw (top, left) for each (height, width), on the grid, without overlap."""
    while True:
        boxes: list[tuple[int, int]] = []
        quarters = rng.permutation(4)
        for (height, width), quarter in zip(shapes, quarters, strict=False):
            rows, columns = (SIDE - height) // GRID + 1, (SIDE - width) // GRID + 1
            top, left = rng.integers(rows), rng.integers(columns)
            if len(shapes) > 2:
                top = quarter // 2 * (rows - 1) - (2 * (quarter // 2) - 1) * rng.integers(2)
                left = quarter % 2 * (columns - 1) - (2 * (quarter % 2) - 1) * rng.integers(2)
            boxes.append((GRID * int(top), GRID * int(left)))
        if not _overlap(shapes, boxes):
            return boxes


def _overlap(shapes: Sequence[tuple[int, ...]], boxes: Sequence[tuple[int, int]]) -> bool:
    taken = np.zeros((SIDE, SIDE), np.int8)
    for (height, width), (top, left) in zip(shapes, boxes, strict=True):
        taken[top : top + height, left : left + width] += 1
    return bool(taken.max(initial=0) > 1)


def paste(
    picture: NDArray[np.uint8], part: NDArray[np.uint8], top: int, left: int
) -> NDArray[np.bool_]:
    """Blend a sprite into the picture, in place; return its mask, (SIDE, SIDE) bool."""
    height, width = part.shape[:2]
    alpha = part[..., 3:].astype(np.float32) / 255
    here = picture[top : top + height, left : left + width]
    here[:] = np.rint(part[..., :3] * alpha + here * (1 - alpha))
    mask = np.zeros(picture.shape[:2], bool)
    mask[top : top + height, left : left + width] = part[..., 3] >= _OPAQUE
    return mask


def reading_key(placement: Placement, n: int) -> float:
    """Two drawings are read along the longer way; more, row by row."""
    row, column = placement.centre
    return row + column if n <= 2 else 2 * SIDE * (row > SIDE / 2) + column
