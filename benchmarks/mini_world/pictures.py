"""Draw labelled grids of pictures."""

import textwrap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

_CELL = 128
_LABEL = 28
_LETTERS = 22
_COLUMNS = 8


def labelled_grid(pictures: Sequence[NDArray[np.uint8]], labels: Sequence[str]) -> Image.Image:
    """Lay pictures out in rows, each enlarged to 128 px with its label below.

    Args:
        pictures: (S, S, 3) uint8 each.
        labels: one per picture; two lines are shown.
    """
    n_rows = -(-len(pictures) // _COLUMNS)
    grid = Image.new("RGB", (_COLUMNS * _CELL, n_rows * (_CELL + _LABEL)), "white")
    draw = ImageDraw.Draw(grid)
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        left, top = number % _COLUMNS * _CELL, number // _COLUMNS * (_CELL + _LABEL)
        enlarged = Image.fromarray(picture).resize((_CELL, _CELL), Image.Resampling.NEAREST)
        grid.paste(enlarged, (left, top))
        lines = "\n".join(textwrap.wrap(label, _LETTERS)[:2])
        draw.multiline_text((left + 2, top + _CELL + 1), lines, fill="black", spacing=1)
    return grid
