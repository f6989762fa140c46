"""Spoilt drawings: what the judge must learn not to take for a thing."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SMUDGE = "smudge"
"""The word for a spoilt drawing."""

_BLOCKS = 4
_MUSH_CELLS = 4


def spoil(
    drawings: Sequence[NDArray[np.uint8]], n: int, rng: np.random.Generator
) -> list[NDArray[np.uint8]]:
    """Return n spoilt drawings: shuffled in blocks, melted to mush, or two halves glued.

    Args:
        drawings: (S, S, 4) uint8 each; S a multiple of 4.
        n: how many.
        rng: draws which and how.
    """
    spoilt: list[NDArray[np.uint8]] = []
    while len(spoilt) < n:
        first, second = (drawings[i] for i in rng.integers(len(drawings), size=2))
        way = rng.integers(3)
        if way == 0:
            spoilt.append(_shuffle(first, rng))
        elif way == 1:
            spoilt.append(_melt(first, rng))
        elif first is not second:
            spoilt.append(_glue(first, second))
    return spoilt


def _shuffle(drawing: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    step = len(drawing) // _BLOCKS
    blocks = drawing.reshape(_BLOCKS, step, _BLOCKS, step, 4).swapaxes(1, 2)
    blocks = rng.permutation(blocks.reshape(-1, step, step, 4))
    tiles = blocks.reshape(_BLOCKS, _BLOCKS, step, step, 4).swapaxes(1, 2)
    return np.ascontiguousarray(tiles).reshape(drawing.shape)


def _melt(drawing: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    cells = Image.fromarray(drawing).resize((_MUSH_CELLS, _MUSH_CELLS), Image.Resampling.BOX)
    pixels = np.array(cells).reshape(-1, 4)
    mush = Image.fromarray(rng.permutation(pixels).reshape(_MUSH_CELLS, _MUSH_CELLS, 4))
    return np.asarray(mush.resize(drawing.shape[:2], Image.Resampling.BICUBIC))


def _glue(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.uint8]:
    glued = first.copy()
    glued[:, len(first) // 2 :] = second[:, len(first) // 2 :]
    return glued
