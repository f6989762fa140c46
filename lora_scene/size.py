"""Width and height, of whatever is counted: pixels, cells of latents, cells of attention maps."""

from __future__ import annotations

import re
from typing import NamedTuple

FORM = "512 or WIDTHxHEIGHT, such as 512x768"  # of a size as text


class Size(NamedTuple):
    """A width and a height; as text `768x512`, the way options and records give it."""

    width: int
    height: int

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> Size:
        """Return the size of an array or tensor whose last axes are rows and columns."""
        return cls(int(shape[-1]), int(shape[-2]))

    @classmethod
    def parse(cls, text: str) -> Size:
        """Read `512`, both sides, or `512x768`.

        Raises:
            ValueError: It is neither.
        """
        match = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", text.strip(), re.ASCII)
        if match is None:
            raise ValueError(f"{text!r:.40} is not {FORM}")
        return cls(int(match[1]), int(match[2] or match[1]))

    @property
    def rows_columns(self) -> tuple[int, int]:
        """Return (height, width), as arrays have them."""
        return self.height, self.width

    @property
    def area(self) -> int:
        """Return width times height."""
        return self.width * self.height

    def cells(self, n: int) -> Size:
        """Return how many cells of n x n cover it; the last ones may be covered in part."""
        return Size(-(-self.width // n), -(-self.height // n))

    def times(self, n: int) -> Size:
        """Return it with each side n times as long."""
        return Size(n * self.width, n * self.height)

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"
