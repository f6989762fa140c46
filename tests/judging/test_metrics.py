from __future__ import annotations

import numpy as np
import pytest

from lora_scene.judging import metrics


def box(rows: slice, columns: slice) -> np.ndarray:
    region = np.zeros((8, 8), bool)
    region[rows, columns] = True
    return region


def test_iou_is_shared_over_joint_cells() -> None:
    a, b = box(slice(0, 4), slice(0, 4)), box(slice(2, 6), slice(0, 4))
    assert metrics.iou(a, b) == 8 / 24
    assert metrics.iou(a, a) == 1
    assert metrics.iou(a & False, a & False) == 0


def test_a_mirrored_layout_is_copied_too() -> None:
    trained = box(slice(0, 4), slice(0, 3))
    mirrored = box(slice(0, 4), slice(5, 8))
    assert metrics.layout_copy(mirrored, [trained]) == 1
    assert metrics.layout_copy(box(slice(5, 8), slice(0, 3)), [trained]) == 0


def test_diversity_is_zero_for_equal_pictures_and_one_for_orthogonal_ones() -> None:
    assert metrics.diversity(np.eye(3, dtype=np.float32)) == pytest.approx(1.0)
    assert metrics.diversity(np.ones((3, 1), np.float32)) == pytest.approx(0.0)
    assert metrics.diversity(np.ones((1, 4), np.float32)) is None


def test_drift_is_the_mean_loss_of_cosine() -> None:
    before = np.eye(2, dtype=np.float32)
    after = np.array([[1, 0], [1, 0]], np.float32)
    assert metrics.drift(before, after) == pytest.approx(0.5)
    assert metrics.drift(before[:0], after[:0]) is None


def test_the_mean_leaves_out_what_is_not_there() -> None:
    assert metrics.mean([1.0, None, 2.0]) == 1.5
    assert metrics.mean([None]) is None
