"""Regions without prompts: a point of a grid each, the good masks kept, doubles left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lora_scene.scenes.pictures import Mask
from lora_scene.scenes.scene import INSIDE, MIN_COVERAGE
from lora_scene.scenes.segmenters.regions import Segment, drop_doubles

GRID = 12  # points a side
BATCH = 24  # points at once
MIN_SCORE = 0.8  # of the network's own estimate of its mask
MAX_COVERAGE = 0.95  # of the photo: more is the photo itself


def propose_on_grid(
    answer: Callable[[Sequence[tuple[float, float]]], tuple[Mask, Sequence[float]]],
    shape: tuple[int, int],
) -> tuple[Segment, ...]:
    """Ask at every point of a grid, and keep the best of the masks that are one region.

    Args:
        answer: Asks a network at n (x, y) points of the photo; it says (n, H, W) masks in 0..1
            and n scores in 0..1.
        shape: (height, width) of the photo.
    """
    steps = (np.arange(GRID) + 0.5) / GRID
    points = [(float(x * shape[1]), float(y * shape[0])) for y in steps for x in steps]
    found: tuple[Segment, ...] = ()
    for start in range(0, len(points), BATCH):
        pairs = zip(*answer(points[start : start + BATCH]), strict=True)
        more = [
            Segment("region", float(score), mask)
            for mask, score in pairs
            if score >= MIN_SCORE and MIN_COVERAGE <= (mask >= INSIDE).mean() <= MAX_COVERAGE
        ]
        found = drop_doubles([*found, *more])  # now: masks of a large photo fill the memory
    return found
