"""The size at which each photo is learnt: its own shape, or a square."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Literal

from lora_scene.size import Size

Shape = Literal["photo", "square"]

MOST_ASPECT = 2.4  # of the longer side to the shorter; what is longer is cut
WRONG_SIZE = 2.0  # times what a base was made for, or a part of it: beyond, it draws another thing


@dataclass(frozen=True)
class Canvas:
    """What a base is shown: pictures of one area, with sides that it can halve.

    Attributes:
        resolution: Side of the square of that area, pixels.
        multiple: What every side is a multiple of: as often as VAE and UNet halve it, pixels.
        latent_cell: Side of a cell of the latents, pixels.
        map_cell: Side of a cell of the attention maps that the loss reads, pixels.
        shape: `photo` keeps a photo's aspect within 1:2.4, `square` does not.
        own: The resolution that the base was made for, pixels; 0 where it is not known.
    """

    resolution: int
    multiple: int
    latent_cell: int
    map_cell: int
    shape: Shape = "square"
    own: int = 0

    def size_for(self, photo: Size) -> Size:
        """Return the size at which a photo is learnt, pixels."""
        if self.shape == "square":
            return Size(self.resolution, self.resolution)
        return nearest_size(photo.width / photo.height, self.resolution, self.multiple)

    def latents(self, size: Size) -> Size:
        """Return the latents' cells at a size in pixels."""
        return size.cells(self.latent_cell)

    def maps(self, size: Size) -> Size:
        """Return the attention maps' cells at a size in pixels."""
        return size.cells(self.map_cell)

    def without_enlarging(self, photo: Size) -> Canvas | None:
        """Return the canvas nearest to this one on which a photo is not enlarged.

        The photo's shape at the same area, or the largest area down to a quarter of what the base
        was made for; below that it is too far from it.
        """
        least = (self.own or self.resolution) / WRONG_SIZE
        smaller = range((self.resolution - 1) // self.multiple, 0, -1)
        sides = [n * self.multiple for n in smaller if n * self.multiple >= least]
        for other in (
            replace(self, shape="photo"),
            *(replace(self, resolution=side) for side in sides),
            *(replace(self, shape="photo", resolution=side) for side in sides),
        ):
            size = other.size_for(photo)
            if size.width <= photo.width and size.height <= photo.height:
                return other
        return None


@functools.cache
def nearest_size(aspect: float, resolution: int, multiple: int) -> Size:
    """Return the multiples nearest in area to `resolution` squared and in shape to an aspect.

    Both are compared by their logarithms. A wrong aspect counts twice: what it cuts off is lost,
    while a smaller area only blurs.

    Args:
        aspect: Width over height; beyond 1:2.4 it is taken for that.
        resolution: Pixels.
        multiple: Pixels.
    """
    aspect = min(max(aspect, 1 / MOST_ASPECT), MOST_ASPECT)
    sizes = []
    for width in range(multiple, 2 * resolution + multiple, multiple):
        n = int(width / aspect / multiple)  # for a width the nearest height has nearly the aspect
        sizes += [Size(width, height) for height in (n * multiple, (n + 1) * multiple) if height]
    sizes = [size for size in sizes if max(size) <= MOST_ASPECT * min(size)]

    def distance(size: Size) -> tuple[float, int, int]:
        area = abs(math.log(size.area / resolution**2))
        shape = abs(math.log(size.width / size.height / aspect))
        return round(area + 2 * shape, 9), -size.area, size.width

    return min(sizes, key=distance)
