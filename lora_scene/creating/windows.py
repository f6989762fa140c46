"""Where in a large photo a base of fixed size works: windows, and how their pixels are put back.

Whatever is outside a mask is never touched: results are laid over the photo through an alpha that
is 0 there, so it stays equal to the last bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from lora_scene.errors import CreationError
from lora_scene.scenes.framing import rescale_masks, resize_pixels
from lora_scene.scenes.pictures import Mask, Pixels

CONTEXT = 0.5  # of the mask's larger side, left free on each side of it
FEATHER = 0.03  # of the window's side: how far the seam's blending reaches into the mask
INPAINT_RADIUS = 3  # pixels


@dataclass(frozen=True)
class SquareWindow:
    """A square of a photo; it may reach beyond the photo's edges.

    Attributes:
        left: Pixels of the photo.
        top: Pixels of the photo.
        side: Pixels of the photo.
    """

    left: int
    top: int
    side: int

    @property
    def inside(self) -> tuple[slice, slice]:
        """Return the rows and columns of a photo that it covers."""
        rows = slice(max(self.top, 0), self.top + self.side)
        return rows, slice(max(self.left, 0), self.left + self.side)

    def cut(self, pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Return the window (side, side, ...) of (H, W, ...) pixels, edges repeated beyond them."""
        rows = np.clip(np.arange(self.top, self.top + self.side), 0, pixels.shape[0] - 1)
        columns = np.clip(np.arange(self.left, self.left + self.side), 0, pixels.shape[1] - 1)
        return pixels[rows][:, columns]

    def cut_mask(self, mask: Mask) -> Mask:
        """Return the window (side, side) of a mask (H, W); beyond the photo it is 0."""
        cut = self.cut(mask).astype(np.float32)
        rows = np.arange(self.top, self.top + self.side)
        columns = np.arange(self.left, self.left + self.side)
        cut[(rows < 0) | (rows >= mask.shape[0])] = 0
        cut[:, (columns < 0) | (columns >= mask.shape[1])] = 0
        return cut

    def paste(self, photo: Pixels, patch: Pixels, alpha: Mask) -> Pixels:
        """Lay a patch (side, side, 3) over a copy of a photo, through alpha (side, side) 0..1."""
        result = photo.copy()
        top, left = max(self.top, 0), max(self.left, 0)
        bottom = min(self.top + self.side, photo.shape[0])
        right = min(self.left + self.side, photo.shape[1])
        inner = (
            slice(top - self.top, bottom - self.top),
            slice(left - self.left, right - self.left),
        )
        share = alpha[inner][..., None]
        below = photo[top:bottom, left:right].astype(np.float32)
        mixed = below + share * (patch[inner].astype(np.float32) - below)
        result[top:bottom, left:right] = np.where(share > 0, np.rint(mixed), below).astype(np.uint8)
        return result


def window_around(mask: Mask, least: int) -> SquareWindow:
    """Return the smallest square that holds a mask (H, W) with room around it.

    Args:
        mask: Its values above 0 count.
        least: The side that it has at least, pixels; the photo may be smaller.

    Raises:
        CreationError: The mask is empty.
    """
    ys, xs = np.nonzero(mask > 0)
    if not len(ys):
        raise CreationError("an empty region", where="mask", expected="at least one bright pixel")
    height, width = mask.shape
    needed = max(int(xs.max() - xs.min()), int(ys.max() - ys.min())) + 1
    side = max(least, min(round(needed * (1 + 2 * CONTEXT)), max(height, width)), needed)
    middle = (int(xs.min() + xs.max()) // 2, int(ys.min() + ys.max()) // 2)
    return SquareWindow(_start(middle[0], side, width), _start(middle[1], side, height), side)


def next_window(hole: npt.NDArray[np.generic], side: int) -> SquareWindow:
    """Return the window that fills much of a hole (H, W) while much around it is known.

    The score of a window is its number of pixels to fill times its number of known ones. They are
    counted in a summed-area table (H+1, W+1), for all windows at once.
    """
    height, width = hole.shape
    counted = cv2.integral(np.greater(hole, 0).view(np.uint8))
    stride = max(side // 8, 1)
    tops = np.array(_starts(height, side, stride))[:, None]
    lefts = np.array(_starts(width, side, stride))[None]
    top, bottom = np.maximum(tops, 0), np.minimum(tops + side, height)
    left, right = np.maximum(lefts, 0), np.minimum(lefts + side, width)
    above, below = (counted[rows, right] - counted[rows, left] for rows in (top, bottom))
    n_hole = (below - above).astype(np.int64)  # the product of two counts may exceed 32 bits
    scores = np.where(n_hole > 0, n_hole * ((bottom - top) * (right - left) - n_hole), -1)
    if scores.max() < 0:
        return SquareWindow(0, 0, side)
    row, column = np.unravel_index(scores.argmax(), scores.shape)
    return SquareWindow(int(lefts[0, column]), int(tops[row, 0]), side)


def to_size(window: SquareWindow, photo: Pixels, mask: Mask, size: int) -> tuple[Pixels, Mask]:
    """Return a window's pixels and mask, resized to `size` x `size`."""
    pixels = window.cut(photo).astype(np.uint8)
    cut = window.cut_mask(mask)
    return resize_pixels(pixels, (size, size)), rescale_masks(cut[None], (size, size))[0]


def feathered(mask: Mask, side: int, feather: float = FEATHER) -> Mask:
    """Return an alpha (H, W) that is 0 outside a mask and rises to the mask's value inside it.

    Where a mask is too narrow for two seams, it rises to its middle: no thin part stays a ghost.

    Args:
        mask: 0..1.
        side: The window's side, pixels.
        feather: Share of the side over which it rises; 0 keeps the mask's own edge.
    """
    reach = feather * side
    if reach < 1:
        return mask
    inside = np.pad((mask > 0).astype(np.uint8), 1, mode="edge")
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    around = np.ones((2 * math.ceil(2 * reach) + 1,) * 2, np.uint8)  # wide enough for corners
    half_width = cv2.dilate(distance, around)
    seam = np.clip(half_width, 1, reach)
    alpha: Mask = (mask * np.clip(distance / seam, 0, 1)).astype(np.float32)
    return alpha


def prefilled(pixels: Pixels, hole: Mask) -> Pixels:
    """Fill a hole by continuing its rim, so that what is encoded beside it is not disturbed."""
    if not (hole > 0).any() or (hole > 0).all():
        return pixels
    inverse = (hole > 0).astype(np.uint8)
    return np.asarray(cv2.inpaint(pixels, inverse, INPAINT_RADIUS, cv2.INPAINT_TELEA))


def _start(middle: int, side: int, length: int) -> int:
    """Return where a window of `side` around a pixel starts, kept within the photo if it fits."""
    if side >= length:
        return -((side - length) // 2)
    return int(min(max(middle - side // 2, 0), length - side))


def _starts(length: int, side: int, stride: int) -> list[int]:
    if side >= length:
        return [-((side - length) // 2)]
    return sorted({*range(0, length - side, stride), length - side})
