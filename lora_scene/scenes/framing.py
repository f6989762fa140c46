"""Bring photos and their masks together to the sizes that training uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from lora_scene.scenes.canvas import MOST_ASPECT, Canvas
from lora_scene.scenes.pictures import Mask, Pixels
from lora_scene.scenes.scene import Photo, Scene, View
from lora_scene.size import Size

Resize = Literal["area", "nearest"]

CUT_WARNING = 0.9  # a concept of which less than this stays in the frame is worth a word


@dataclass(frozen=True)
class Frame:
    """The part of a photo that is learnt.

    Attributes:
        left: Its left edge, pixels of the photo.
        top: Its upper edge, pixels of the photo.
        window: Its size, pixels of the photo.
        photo: The photo's size.
        kept: Fraction of each concept's mask inside it, 0..1; 1 for an absent concept.
    """

    left: int
    top: int
    window: Size
    photo: Size
    kept: tuple[float, ...]

    @property
    def cut(self) -> tuple[int, int, int, int]:
        """Return what is cut off at the left, top, right and bottom, pixels of the photo."""
        right = self.photo.width - self.left - self.window.width
        bottom = self.photo.height - self.top - self.window.height
        return self.left, self.top, right, bottom

    def warnings(self, canvas: Canvas, handles: Mapping[int, str]) -> tuple[str, ...]:
        """Say what the framing costs, one sentence a loss.

        Args:
            canvas: What the photo is framed for.
            handles: The concepts to speak of, index to handle.
        """
        said, size = [], canvas.size_for(self.photo)
        longer, shorter = max(self.photo), min(self.photo)
        if canvas.shape == "photo" and longer > MOST_ASPECT * shorter:
            share = 1 - self.window.area / self.photo.area
            said.append(
                f"the photo is {longer / shorter:.1f} times as long as it is short, and at most "
                f"{MOST_ASPECT:g} is learnt: {100 * share:.0f} % of it is cut off"
            )
        if self.window.width < size.width:
            said.append(
                f"the photo's part of {self.window} px is enlarged to {size} px: details cannot "
                f"be learnt that are not there; {_remedy(canvas, self.photo)}"
            )
        said += [
            f"only {100 * self.kept[k]:.0f} % of {handle} fits into the frame"
            for k, handle in handles.items()
            if self.kept[k] < CUT_WARNING
        ]
        return tuple(said)


def plan_frame(photo: Photo, size: Size, *, focus: Sequence[int] | None = None) -> Frame:
    """Choose the largest part of a photo that has the shape of `size`; always the same one.

    It lies where the worst-held concept is held best, then where all of them are, then nearest to
    the middle.

    Args:
        photo: The photo, any size.
        size: The size that it is brought to.
        focus: The concepts that count; default all that are present.
    """
    counted = [k for k in (photo.present if focus is None else focus) if photo.masks[k].any()]
    is_wide = photo.size.width * size.height > photo.size.height * size.width
    if is_wide:
        window = Size(max(round(photo.height * size.width / size.height), 1), photo.height)
    else:
        window = Size(photo.width, max(round(photo.width * size.height / size.width), 1))
    left, top = (photo.width - window.width) // 2, (photo.height - window.height) // 2
    if counted and photo.width > window.width:
        left = _best_start(photo.masks[counted].sum(axis=1), window.width)
    elif counted and photo.height > window.height:
        top = _best_start(photo.masks[counted].sum(axis=2), window.height)
    return Frame(left, top, window, photo.size, _kept(photo.masks, left, top, window))


def frame(photo: Photo, size: Size, *, focus: Sequence[int] | None = None) -> Photo:
    """Crop a photo and its masks to the part of `plan_frame`, and resize them together.

    Args:
        photo: The photo, any size.
        size: Size of the result, pixels.
        focus: As in `plan_frame`.

    Returns:
        pixels (H, W, 3) uint8 and masks (K, H, W) float32.
    """
    plan = plan_frame(photo, size, focus=focus)
    return resized(cut(photo, plan.left, plan.top, plan.window), size)


def cut(photo: Photo, left: int, top: int, window: Size) -> Photo:
    """Return the part of a photo that begins at (left, top), pixels of the photo."""
    rows, columns = slice(top, top + window.height), slice(left, left + window.width)
    own = photo.view
    across, down = own.width / photo.width, own.height / photo.height
    return Photo(
        photo.pixels[rows, columns],
        photo.masks[:, rows, columns],
        photo.source,
        View(
            own.of,
            own.left + left * across,
            own.top + top * down,
            window.width * across,
            window.height * down,
        ),
    )


def resized(photo: Photo, size: Size) -> Photo:
    """Return a photo at another size, its masks with it."""
    shape = size.rows_columns
    pixels, masks = resize_pixels(photo.pixels, shape), rescale_masks(photo.masks, shape)
    return Photo(pixels, masks, photo.source, photo.view)


def frame_scene(scene: Scene, canvas: Canvas) -> Scene:
    """Frame every photo of a scene; the background does not pull the frame."""
    photos = tuple(
        frame(photo, canvas.size_for(photo.size), focus=scene.things) for photo in scene.photos
    )
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


def grid_masks(masks: Mask, grid: Size, *, resize: Resize = "area") -> Mask:
    """Bring masks to a coarse grid, such as that of the latents or of the attention maps.

    Args:
        masks: (K, H, W) in 0..1.
        grid: Its cells.
        resize: `area`: a cell has the mean of what lies in it, so that thin things keep their
            share. `nearest`: a cell has the value of one pixel, as the published code takes it.

    Returns:
        (K, rows, columns) float32 in 0..1.
    """
    axes = list(zip(masks.shape[1:], grid.rows_columns, strict=True))
    if resize == "nearest":
        rows, columns = (np.arange(cells) * n // cells for n, cells in axes)
        return masks[:, rows[:, None], columns]
    rows, columns = (_cell_weights(n, cells) for n, cells in axes)
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


def _remedy(canvas: Canvas, photo: Size) -> str:
    """Name what trains a photo as large as it is."""
    other = canvas.without_enlarging(photo)
    if other is None:
        return "take a larger photo"
    changed = [f"base.shape={other.shape}"] * (other.shape != canvas.shape)
    changed += [f"base.resolution={other.resolution}"] * (other.resolution != canvas.resolution)
    return f"{' '.join(changed)} enlarges nothing: {other.size_for(photo)} px"


def _kept(masks: Mask, left: int, top: int, window: Size) -> tuple[float, ...]:
    rows, columns = slice(top, top + window.height), slice(left, left + window.width)
    totals = masks.sum(axis=(1, 2), dtype=np.float64)
    inside = masks[:, rows, columns].sum(axis=(1, 2), dtype=np.float64)
    return tuple(
        float(part / total) if total > 0 else 1.0
        for part, total in zip(inside, totals, strict=True)
    )
