"""Paint the named backgrounds of the mini world: plain, quiet, told apart at a glance."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[Any]
Painter = Callable[[int, np.random.Generator], Floats]

_WAVE = 16.0
"""Wavelength of ripples and waves, px."""


def paint_background(name: str, side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Paint one background.

    Args:
        name: a key of BACKGROUNDS.
        side: width and height, px.
        rng: draws phases, clouds and shades.

    Returns:
        (side, side, 3) uint8, RGB.
    """
    picture: NDArray[np.uint8] = np.clip(_PAINTERS[name](side, rng) + 0.5, 0, 255).astype(np.uint8)
    return picture


def _plain(colour: tuple[int, int, int], side: int) -> Floats:
    return np.full((side, side, 3), colour, np.float32)


def _cloudy(side: int, rng: np.random.Generator) -> Floats:
    """Smooth noise of 4 x 4 cells, (side, side, 1), about -1..1."""
    coarse = rng.uniform(-1, 1, (4, 4)).astype(np.float32)
    smooth = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(smooth)[..., None]


def _axes(side: int) -> tuple[Floats, Floats]:
    """Row and column numbers, px: (side, 1, 1) and (1, side, 1)."""
    axis = np.arange(side, dtype=np.float32)
    return axis[:, None, None], axis[None, :, None]


def _grass(side: int, rng: np.random.Generator) -> Floats:
    rows, columns = _axes(side)
    shift = 4 * rng.integers(0, 4)
    blades = np.maximum(0, np.sin(2 * np.pi * (columns + shift + 2 * np.sin(rows)) / 8))
    tint = np.array([10, 14, 6], np.float32)
    picture: Floats = _plain((84, 158, 58), side) - blades * tint + 6 * _cloudy(side, rng)
    return picture


def _sand(side: int, rng: np.random.Generator) -> Floats:
    rows, columns = _axes(side)
    bend = 3 * np.sin(2 * np.pi * columns / 64 + rng.uniform(0, 6))
    ripples = np.sin(2 * np.pi * (rows + bend) / _WAVE + rng.uniform(0, 6))
    picture: Floats = _plain((226, 196, 138), side) + 7 * ripples
    return picture


def _snow(side: int, rng: np.random.Generator) -> Floats:
    drifts = _cloudy(side, rng)
    picture: Floats = _plain((240, 244, 250), side) + drifts * np.array([8, 6, 3], np.float32)
    return picture


def _sky(side: int, rng: np.random.Generator) -> Floats:
    rows, _ = _axes(side)
    blue = _plain((96, 172, 240), side) + rows / side * np.array([70, 45, 10], np.float32)
    cloud = np.clip(1.6 * _cloudy(side, rng) - 0.5, 0, 0.8)
    picture: Floats = blue * (1 - cloud) + 255 * cloud
    return picture


def _water(side: int, rng: np.random.Generator) -> Floats:
    rows, columns = _axes(side)
    bend = 2 * np.sin(2 * np.pi * columns / _WAVE + rng.uniform(0, 6))
    crests = np.maximum(0, np.sin(2 * np.pi * (rows + bend) / 12 + rng.uniform(0, 6)))
    picture: Floats = _plain((20, 110, 150), side) + crests**2 * np.array([26, 44, 44], np.float32)
    return picture


def _night(side: int, rng: np.random.Generator) -> Floats:
    rows, _ = _axes(side)
    dark = _plain((18, 18, 58), side) + rows / side * np.array([16, 12, 32], np.float32)
    for row, column in rng.integers(2, side - 2, (6, 2)):
        dark[row, column] = (230, 230, 200)
    return dark


def _wood(side: int, rng: np.random.Generator) -> Floats:
    rows, columns = _axes(side)
    start = 4 * rng.integers(0, 4)
    board = np.floor((rows + start) / 16)
    grain = np.sin(2 * np.pi * (rows + 1.5 * np.sin(columns / 9 + 2 * board)) / 5)
    seam = (rows + start) % 16 < 1
    shade = 8 * np.sin(2.4 * board) + 6 * grain - 40 * seam
    picture: Floats = _plain((158, 104, 58), side) + shade + 0 * columns
    return picture


def _brick(side: int, rng: np.random.Generator) -> Floats:
    rows, columns = _axes(side)
    down, across = 4 * rng.integers(0, 4, 2)
    course = np.floor((rows + down) / 8)
    offset = columns + across + 8 * (course % 2)
    mortar = ((rows + down) % 8 < 1) | (offset % 16 < 1)
    shade = 10 * np.sin(1.7 * course + 2.3 * np.floor(offset / 16))
    wall = _plain((166, 72, 56), side) + shade
    return np.where(mortar, np.array([206, 194, 184], np.float32), wall)


_PAINTERS: dict[str, Painter] = {
    "grass": _grass,
    "sand": _sand,
    "snow": _snow,
    "sky": _sky,
    "water": _water,
    "night": _night,
    "wood": _wood,
    "brick": _brick,
}

BACKGROUNDS: dict[str, tuple[str, ...]] = {
    "grass": ("on grass", "on the grass"),
    "sand": ("on sand", "on the sand"),
    "snow": ("on snow", "in the snow"),
    "sky": ("in the sky",),
    "water": ("on water", "on the water"),
    "night": ("at night", "in the night"),
    "wood": ("on a wooden table", "on a wooden floor"),
    "brick": ("by a brick wall", "in front of a brick wall"),
}
"""Name -> the phrases that captions use for it; the first is the usual one."""
