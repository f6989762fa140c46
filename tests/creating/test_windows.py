from __future__ import annotations

import time

import numpy as np

from lora_scene.creating.completion import plan_windows
from lora_scene.creating.windows import SquareWindow, next_window


def starts(length, side, stride):
    if side >= length:
        return [-((side - length) // 2)]
    return sorted({*range(0, length - side, stride), length - side})


def slow_window(hole, side):
    """Count each window's pixels one by one."""
    best, chosen = -1, SquareWindow(0, 0, side)
    for top in starts(hole.shape[0], side, max(side // 8, 1)):
        for left in starts(hole.shape[1], side, max(side // 8, 1)):
            part = hole[max(top, 0) : top + side, max(left, 0) : left + side] > 0
            n_hole = int(part.sum())
            if n_hole and n_hole * (part.size - n_hole) > best:
                best = n_hole * (part.size - n_hole)
                chosen = SquareWindow(left, top, side)
    return chosen


def test_the_next_window_has_the_most_to_fill_beside_the_most_that_is_known():
    rng = np.random.default_rng(0)
    for _ in range(40):
        height, width, side = rng.integers(5, 160, 3)
        hole = (rng.random((height, width)) < rng.random() ** 3).astype(np.float32)
        assert next_window(hole, int(side)) == slow_window(hole, int(side))


def test_the_windows_of_a_large_photo_are_planned_in_seconds():
    hole = np.zeros((2128, 3128), np.float32)
    hole[:64] = 1
    begun = time.process_time()
    windows = plan_windows(hole, 64)
    assert len(windows) > 3128 // 64
    assert time.process_time() - begun < 30
