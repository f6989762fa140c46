"""Bring photos and their masks together to the square size that training uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from lora_scene.scenes.pictures import Mask, Pixels
from lora_scene.scenes.scene import Photo, Scene

Crop = Literal["masks", "center", "pad"]
Resize = Literal["area", "nearest"]

CUT_WARNING = 0.9  # a concept of which less than this stays in the square is worth a word


@dataclass(frozen=True)
class Frame:
    """The square that is taken from a photo.

    Attributes:
        left: Its left edge, pixels of the photo; negative where the photo is padded.
        top: Its upper edge, pixels of the photo; negative where the photo is padded.
        side: Its side, pixels of the photo.
        kept: Fraction of each concept's mask inside it, 0..1; 1 for an absent concept.
    """

    left: int
    top: int
    side: int
    kept: tuple[float, ...]

    def warnings(self, size: int, handles: Mapping[int, str]) -> tuple[str, ...]:
        """Say what the framing costs, one sentence a loss.

        Args:
            size: Side of the result, pixels.
            handles: The concepts to speak of, index to handle.
        """
        said = []
        if self.side < size:
            said.append(
                f"the photo's square of {self.side} px is enlarged to {size} px: "
                "details cannot be learnt that are not there"
            )
        said += [
            f"only {100 * self.kept[k]:.0f} % of {handle} fits into the square"
            for k, handle in handles.items()
            if self.kept[k] < CUT_WARNING
        ]
        return tuple(said)


def plan_frame(photo: Photo, *, crop: Crop = "masks", focus: Sequence[int] | None = None) -> Frame:
    """Choose the largest square for a photo; the same photo always gets the same one.

    Args:
        photo: The photo, any size.
        crop: `masks`: where the worst-held concept is held best, then where all of them are,
            then nearest to the middle. `center`: the middle. `pad`: all of the photo.
        focus: The concepts that count for `masks`; default all that are present.
    """
    counted = [k for k in (photo.present if focus is None else focus) if photo.masks[k].any()]
    height, width = photo.height, photo.width
    side = max(height, width) if crop == "pad" else min(height, width)
    slack = abs(width - height)
    start = slack // 2
    if crop == "masks" and slack and counted:
        axis = 0 if width > height else 1
        start = _best_start(photo.masks[counted].sum(axis=axis + 1), side)
    if crop == "pad":
        left, top = (width - side) // 2, (height - side) // 2
    else:
        left, top = (start, 0) if width > height else (0, start)
    return Frame(left, top, side, _kept(photo.masks, left, top, side))


def frame(
    photo: Photo, size: int, *, crop: Crop = "masks", focus: Sequence[int] | None = None
) -> Photo:
    """Crop a photo and its masks to the square of `plan_frame`, and resize them together.

    Args:
        photo: The photo, any size.
        size: Side of the result, pixels.
        crop: As in `plan_frame`.
        focus: As in `plan_frame`.

    Returns:
        pixels (size, size, 3) uint8 and masks (K, size, size) float32. Padding repeats the
        photo's edge, with masks 0.
    """
    plan = plan_frame(photo, crop=crop, focus=focus)
    pixels, masks = _cut(photo, plan)
    return Photo(
        resize_pixels(pixels, (size, size)), rescale_masks(masks, (size, size)), photo.source
    )


def frame_scene(scene: Scene, size: int, *, crop: Crop = "masks") -> Scene:
    """Frame every photo of a scene; the background does not pull the square."""
    photos = tuple(frame(photo, size, crop=crop, focus=scene.things) for photo in scene.photos)
    return replace(scene, photos=photos)


def resize_pixels(pixels: Pixels, shape: tuple[int, int]) -> Pixels:
    """Resize (H, W, 3) uint8 pixels to `shape` (height, width) with an anti-aliased Lanczos."""
    if pixels.shape[:2] == shape:
        return pixels.copy()
    image = Image.fromarray(pixels).resize((shape[1], shape[0]), Image.Resampling.LANCZOS)
    return np.array(image)


def rescale_masks(masks: Mask, shape: tuple[int, int]) -> Mask:
    """Resize (K, H, W) masks to `shape` (height, width), linearly: values stay in 0..1."""
    if masks.shape[1:] == shape:
        return masks.copy()
    resized = np.empty((len(masks), *shape), dtype=np.float32)
    for k, mask in enumerate(masks):
        layer = Image.fromarray(np.ascontiguousarray(mask))
        resized[k] = np.asarray(layer.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))
    return resized.clip(0.0, 1.0)


def grid_masks(masks: Mask, side: int, *, resize: Resize = "area") -> Mask:
    """Bring masks to a coarse grid, such as that of the latents or of the attention maps.

    Args:
        masks: (K, H, W) in 0..1.
        side: Cells a side.
        resize: `area`: a cell has the mean of what lies in it, so that thin things keep their
            share. `nearest`: a cell has the value of one pixel, as the published code takes it.

    Returns:
        (K, side, side) float32 in 0..1.
    """
    if resize == "nearest":
        rows, columns = (np.arange(side) * n // side for n in masks.shape[1:])
        return masks[:, rows[:, None], columns]
    rows, columns = (_cell_weights(n, side) for n in masks.shape[1:])
    return (rows @ masks.astype(np.float64) @ columns.T).astype(np.float32)


def _cell_weights(n: int, side: int) -> npt.NDArray[np.float64]:
    """Return (side, n): what each of n pixels adds to the mean of each of `side` cells."""
    edges = np.linspace(0, n, side + 1)
    starts, pixels = np.maximum(edges[:-1, None], np.arange(n)), np.arange(1, n + 1)
    return (np.minimum(edges[1:, None], pixels) - starts).clip(0) * side / n


def _best_start(profiles: npt.NDArray[np.float32], side: int) -> int:
    """Slide a window over (K, n) mask profiles; return the start that holds them best."""
    totals = profiles.sum(axis=1, keepdims=True, dtype=np.float64)
    sums = np.cumsum(np.pad(profiles.astype(np.float64), ((0, 0), (1, 0))), axis=1) / totals
    held = (sums[:, side:] - sums[:, :-side]).round(6)
    starts = np.arange(held.shape[1])
    off_middle = np.abs(2 * starts - (len(starts) - 1))
    return int(np.lexsort((starts, off_middle, -held.sum(axis=0), -held.min(axis=0)))[0])


def _kept(masks: Mask, left: int, top: int, side: int) -> tuple[float, ...]:
    rows, columns = slice(max(top, 0), top + side), slice(max(left, 0), left + side)
    totals = masks.sum(axis=(1, 2), dtype=np.float64)
    inside = masks[:, rows, columns].sum(axis=(1, 2), dtype=np.float64)
    return tuple(
        float(part / total) if total > 0 else 1.0
        for part, total in zip(inside, totals, strict=True)
    )


def _cut(photo: Photo, plan: Frame) -> tuple[Pixels, Mask]:
    above, before = max(-plan.top, 0), max(-plan.left, 0)
    rows = slice(max(plan.top, 0), min(plan.top + plan.side, photo.height))
    columns = slice(max(plan.left, 0), min(plan.left + plan.side, photo.width))
    pixels, masks = photo.pixels[rows, columns], photo.masks[:, rows, columns]
    below, after = plan.side - above - pixels.shape[0], plan.side - before - pixels.shape[1]
    margins = ((above, below), (before, after))
    return np.pad(pixels, (*margins, (0, 0)), mode="edge"), np.pad(masks, ((0, 0), *margins))
