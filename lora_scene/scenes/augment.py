"""Other views of a photo: flips, crops, pasting and recomposition, on pixels and masks together.

Every function is pure: a photo and a generator in, a new photo out. Sizes never change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lora_scene.scenes.framing import cut, rescale_masks, resize_pixels, resized
from lora_scene.scenes.pictures import Mask, Pixels
from lora_scene.scenes.scene import INSIDE, Photo
from lora_scene.size import Size

SIMPLE_BACKGROUND = " on a simple background"  # the caption that MuDI's recomposition needs

_CROP_TRIES = 20
_PLACE_TRIES = 40
_MOST_OVERLAP = 0.1  # fraction of the smaller of two pasted concepts that they may share
_SMALLER, _LARGER = 0.85, 1.15  # bounds of a rearranged concept's size, of that in the photo
_MAX_ENLARGEMENT = 1.5  # beyond it a pasted concept is visibly blurred
_GRAIN = 20.0  # largest change of brightness by noise, of 255
_GRAIN_CELLS = 16  # a side
_RIM = 0.02  # by which a thing's hole is wider than its mask, of the shorter side
_VISIBLE = 1 / 255  # the smallest opacity that an 8-bit mask has


@dataclass(frozen=True, eq=False)
class Variant:
    """A photo to train on.

    Attributes:
        photo: The pixels and masks.
        present: Indices of the concepts that it shows and that a prompt may name.
        caption_suffix: What the prompt must add, such as " on a simple background".
    """

    photo: Photo
    present: tuple[int, ...]
    caption_suffix: str = ""


def flip(photo: Photo) -> Photo:
    """Mirror a photo left to right."""
    pixels = np.ascontiguousarray(photo.pixels[:, ::-1])
    masks = np.ascontiguousarray(photo.masks[:, :, ::-1])
    own = photo.view
    mirrored = replace(own, left=own.of.width - own.left - own.width)
    return Photo(pixels, masks, photo.source, mirrored)


def random_crop(
    photo: Photo,
    generator: np.random.Generator,
    *,
    scale: tuple[float, float] = (0.7, 1.0),
    keep: float = 0.8,
    focus: Sequence[int] | None = None,
) -> Photo:
    """Cut a random window and enlarge it to the photo's size.

    Args:
        photo: The photo.
        generator: Source of randomness.
        scale: Range of the window's side, as a fraction of the photo's; its shape is the photo's.
        keep: Fraction of each of the masks that must stay inside, 0..1.
        focus: The concepts whose masks they are, where present; None for all. A background, which
            nearly every window cuts, is better left out.

    Returns:
        The cut photo, or the whole one where no window of some tries kept enough.
    """
    totals = photo.masks.sum(axis=(1, 2), dtype=np.float64)
    kept = [k for k in photo.present if focus is None or k in focus]
    for _ in range(_CROP_TRIES):
        side = generator.uniform(*scale)
        height, width = max(round(side * photo.height), 1), max(round(side * photo.width), 1)
        top = int(generator.integers(photo.height - height + 1))
        left = int(generator.integers(photo.width - width + 1))
        rows, columns = slice(top, top + height), slice(left, left + width)
        inside = photo.masks[:, rows, columns].sum(axis=(1, 2), dtype=np.float64)
        if all(inside[k] >= keep * totals[k] for k in kept):
            return resized(cut(photo, left, top, Size(width, height)), photo.size)
    return photo


def paste(photo: Photo, subset: Sequence[int], generator: np.random.Generator) -> Variant:
    """Leave only some concepts, in their places, on a random solid colour.

    This is the input of the paper's adapted baselines TI-m, DB-m and CD-m (arXiv:2305.16311,
    section 4.1).

    Args:
        photo: The photo.
        subset: The concepts that stay.
        generator: Source of the colour.
    """
    colour = generator.integers(0, 256, size=3).astype(np.float32)
    opacity = photo.masks[list(subset)].max(axis=0)[:, :, None]
    pixels = opacity * photo.pixels + (1.0 - opacity) * colour
    masks = np.zeros_like(photo.masks)
    masks[list(subset)] = photo.masks[list(subset)]
    pasted = replace(photo, pixels=np.rint(pixels).astype(np.uint8), masks=masks)
    return Variant(pasted, tuple(k for k in subset if k in photo.present))


def recompose(
    photo: Photo,
    subset: Sequence[int],
    generator: np.random.Generator,
    *,
    scale: tuple[float, float] = (0.3, 0.8),
) -> Variant:
    """Cut concepts out with their soft masks and paste them at random sizes and places.

    After MuDI (arXiv:2404.04243): a concept that is seen in other places and beside others is
    mixed less with them, and the photo's layout is copied less. Unlike there, a concept is never
    enlarged by more than half, sizes shrink with the number of concepts so that they fit, and the
    background is one colour, coarsely shaded.

    Args:
        photo: The photo.
        subset: The concepts to paste, the background's never among them; later ones lie on top.
        generator: Source of randomness.
        scale: Range of a pasted concept's longer side, as a fraction of the photo's shorter one,
            for a single concept; divided by the square root of their number for several.
    """
    present = tuple(k for k in subset if k in photo.present)
    canvas = _backdrop((photo.height, photo.width), generator)
    room = min(photo.height, photo.width) / np.sqrt(max(len(present), 1))
    spans = dict.fromkeys(present, (scale[0] * room, scale[1] * room))
    composed = _assemble(photo, canvas, spans, generator)
    return Variant(composed, present, SIMPLE_BACKGROUND)


def rearrange(
    photo: Photo,
    empty: Pixels,
    subset: Sequence[int],
    generator: np.random.Generator,
) -> Variant:
    """Put concepts, and nothing else, at random places of the photo's own background.

    So the picture shows what the prompt names: what is left out of it leaves no hole in which
    another concept could be learnt, and no place belongs to a concept.

    Args:
        photo: The photo.
        empty: (H, W, 3) uint8, the photo without its things, from `emptied`.
        subset: The concepts to paste, the background's never among them; later ones lie on top.
        generator: Source of randomness.
    """
    present = tuple(k for k in subset if k in photo.present)
    longer = {k: max(np.ptp(np.nonzero(photo.masks[k] >= _VISIBLE), axis=1) + 1) for k in present}
    spans = {k: (_SMALLER * longer[k], _LARGER * longer[k]) for k in present}
    composed = _assemble(photo, empty.astype(np.float32), spans, generator)
    return Variant(composed, present)


def emptied(photo: Photo, things: Sequence[int]) -> Pixels:
    """Return the photo (H, W, 3) uint8 with things painted over from around them.

    By Telea's fast marching (https://doi.org/10.1080/10867651.2004.10487596); where nothing is
    left around them, by their own mean colour.
    """
    import cv2

    widen = max(round(_RIM * min(photo.height, photo.width)), 1)
    covered = (photo.masks[list(things)].max(axis=0, initial=0.0) >= _VISIBLE).astype(np.uint8)
    hole = cv2.dilate(covered, np.ones((2 * widen + 1, 2 * widen + 1), np.uint8))
    if hole.all():
        mean = photo.pixels.mean(axis=(0, 1), keepdims=True)
        return np.broadcast_to(mean.astype(np.uint8), photo.pixels.shape).copy()
    painted: Pixels = cv2.inpaint(photo.pixels, hole, 2 * widen + 1, cv2.INPAINT_TELEA)
    return painted


def _assemble(
    photo: Photo,
    canvas: Mask,
    spans: Mapping[int, tuple[float, float]],
    generator: np.random.Generator,
) -> Photo:
    """Paste concepts onto a canvas (H, W, 3), each with its longer side in a range of pixels."""
    canvas = canvas.copy()
    masks = np.zeros_like(photo.masks)
    for k, span in spans.items():
        pixels, opacity = _cut_out(photo, k, generator, span)
        top, left = _place(opacity, masks, generator)
        rows, columns = slice(top, top + len(opacity)), slice(left, left + opacity.shape[1])
        masks[:, rows, columns] *= 1.0 - opacity
        masks[k, rows, columns] = opacity
        blend = opacity[:, :, None]
        canvas[rows, columns] = blend * pixels + (1.0 - blend) * canvas[rows, columns]
    return replace(photo, pixels=np.rint(canvas).clip(0, 255).astype(np.uint8), masks=masks)


def _backdrop(shape: tuple[int, int], generator: np.random.Generator) -> Mask:
    """Return a (H, W, 3) float32 backdrop in 0..255: one colour, coarsely shaded."""
    colour = generator.uniform(32, 224, size=3).astype(np.float32)
    cells = generator.uniform(-_GRAIN, _GRAIN, size=(1, _GRAIN_CELLS, _GRAIN_CELLS))
    shade = rescale_masks((0.5 + cells / 255).astype(np.float32), shape)[0]
    canvas: Mask = colour + (255 * (shade - 0.5))[:, :, None]
    return canvas.clip(0, 255)


def _cut_out(
    photo: Photo, k: int, generator: np.random.Generator, spans: Sequence[float]
) -> tuple[Pixels, Mask]:
    """Cut concept k by its bounding box; bring its longer side into a range of pixels.

    Where all of the range is above the limit on enlargement: into the octave below that limit.
    """
    mask = photo.masks[k]
    ys, xs = np.nonzero(mask >= _VISIBLE)
    box = slice(ys.min(), ys.max() + 1), slice(xs.min(), xs.max() + 1)
    height, width = mask[box].shape
    longer = max(height, width)
    most = min(spans[1], _MAX_ENLARGEMENT * longer)
    least = spans[0] if spans[0] < most else most / 2
    factor = generator.uniform(least, most) / longer
    factor = min(factor, photo.height / height, photo.width / width)
    shape = max(int(height * factor), 1), max(int(width * factor), 1)
    opacity = rescale_masks(mask[None][:, box[0], box[1]], shape)[0]
    return resize_pixels(photo.pixels[box], shape), opacity


def _place(opacity: Mask, masks: Mask, generator: np.random.Generator) -> tuple[int, int]:
    """Return the first random place with little overlap, or the best of those tried."""
    piece = opacity >= INSIDE
    others = masks >= INSIDE
    areas = others.sum(axis=(1, 2))
    best, best_share = (0, 0), np.inf
    for _ in range(_PLACE_TRIES):
        top = int(generator.integers(masks.shape[1] - opacity.shape[0] + 1))
        left = int(generator.integers(masks.shape[2] - opacity.shape[1] + 1))
        window = others[:, top : top + piece.shape[0], left : left + piece.shape[1]]
        smaller = np.maximum(np.minimum(areas, piece.sum()), 1)
        share = float(((window & piece).sum(axis=(1, 2)) / smaller).max(initial=0.0))
        if share < best_share:
            best, best_share = (top, left), share
        if share <= _MOST_OVERLAP:
            break
    return best
