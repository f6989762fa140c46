"""Points and strokes on a part of a photo: drawn there, and set against a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lora_scene.errors import warn_of
from lora_scene.scenes.mask_prompts import Mark, Point
from lora_scene.scenes.refine import Flags

MUCH_LOST = 0.6  # of a mask, to marks: worth a look


@dataclass(frozen=True)
class Window:
    """Where a crop lies in the photo, in its pixels, and the scale from photo to crop."""

    left: int
    top: int
    right: int
    bottom: int
    scale: float

    @classmethod
    def around(
        cls,
        sides: tuple[float, float, float, float],
        margins: tuple[float, float],
        shape: tuple[int, int],
        *,
        most: int,
    ) -> Window:
        """Return the window around a rectangle, reduced to a longest side.

        Args:
            sides: left, top, right, bottom.
            margins: Seen around it, across and down, pixels.
            shape: (height, width) of the photo.
            most: Longest side of the crop, pixels.
        """
        across, down = margins
        left, top = max(int(sides[0] - across), 0), max(int(sides[1] - down), 0)
        right = min(int(np.ceil(sides[2] + across)), shape[1])
        bottom = min(int(np.ceil(sides[3] + down)), shape[0])
        return cls(left, top, right, bottom, min(most / max(right - left, bottom - top), 1.0))

    @property
    def inner(self) -> tuple[slice, slice]:
        """Return its rows and columns in the photo."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def size(self) -> tuple[int, int]:
        """Return the crop's (width, height)."""
        width, height = self.right - self.left, self.bottom - self.top
        return max(round(width * self.scale), 1), max(round(height * self.scale), 1)

    def to_crop(self, x: float, y: float) -> tuple[float, float]:
        """Return where a place of the photo lies in the crop."""
        return (x - self.left) * self.scale, (y - self.top) * self.scale


def paint(marks: Sequence[Mark], window: Window, disk: float) -> Flags:
    """Return the pixels of a window's crop, (h, w), that marks hold; a point holds a disk.

    Args:
        marks: Points and strokes, in pixels of the photo.
        window: Where the crop lies.
        disk: Radius of what a point holds, pixels of the crop.
    """
    import cv2

    canvas = np.zeros(window.size[::-1], dtype=np.uint8)
    for mark in marks:
        if isinstance(mark, Point):
            x, y = window.to_crop(mark.x, mark.y)
            cv2.circle(canvas, (int(x), int(y)), int(disk), 1, -1)
        else:
            path = np.array([window.to_crop(x, y) for x, y in mark.path]).astype(np.int32)
            cv2.polylines(canvas, [path], False, 1, max(round(mark.width * window.scale), 1))
    painted: Flags = canvas.astype(bool)
    return painted


def touched(flags: Flags, marks: Flags) -> Flags:
    """Return the components of flags that marks touch."""
    labels = _labels(flags)
    touching: Flags = np.isin(labels, np.setdiff1d(labels[marks], 0))
    return touching


def contradicted(marks: Flags, mask: Flags, *, is_inside: bool) -> Flags:
    """Return the marks of which most lies where a mask says otherwise."""
    labels = _labels(marks)
    areas = np.maximum(np.bincount(labels.ravel()), 1)
    wrong = np.bincount(labels.ravel(), weights=(mask != is_inside).ravel()) > areas / 2
    wrong[0] = False
    found: Flags = wrong[labels]
    return found


def warn_of_loss(mask: Flags, taken: Flags, handle: str) -> None:
    """Warn where marks outside a concept take much of its mask away."""
    lost = float((mask & taken).sum() / max(int(mask.sum()), 1))
    if lost > MUCH_LOST:
        warn_of(handle, f"marks outside it take {100 * lost:.0f} % of the mask away")


def _labels(flags: Flags) -> npt.NDArray[np.int32]:
    import cv2

    labels: npt.NDArray[np.int32] = cv2.connectedComponents(flags.astype(np.uint8))[1]
    return labels
