from __future__ import annotations

import numpy as np
import pytest

from benchmarks import masks
from benchmarks.drawn_scenes import draw_scene
from lora_scene.scenes.coverage import bounding_box


def test_derived_boxes_have_the_slack_and_points_lie_deep_inside():
    photo = draw_scene(0)
    for k, prompt in enumerate(masks.derive_prompts(photo, slack=0.1, n_points=2)):
        left, top, right, bottom = bounding_box(photo, k)
        assert prompt.box.left == pytest.approx(max(left - 0.1 * (right - left), 0))
        assert prompt.box.bottom == pytest.approx(min(bottom + 0.1 * (bottom - top), 256))
        assert len(prompt.points) == 2
        for point in prompt.points:
            x, y = int(point.x), int(point.y)
            assert photo.masks[k][y - 3 : y + 4, x - 3 : x + 4].min() == 1.0
        first, second = prompt.points
        assert np.hypot(first.x - second.x, first.y - second.y) > 0.2 * (right - left)


def test_iou_is_the_shared_part_of_the_union():
    a, b = np.zeros((4, 4)), np.zeros((4, 4))
    a[:2], b[1:3] = 1.0, 1.0
    assert masks.iou(a, b) == pytest.approx(4 / 12)


def test_drawn_scenes_repeat_and_camouflage_brings_colours_nearer():
    np.testing.assert_array_equal(draw_scene(4).pixels, draw_scene(4).pixels)

    def contrast(camouflage: float) -> float:
        photo = draw_scene(4, camouflage=camouflage)
        inside = photo.masks.max(axis=0) > 0.99
        outside = photo.masks.max(axis=0) == 0.0
        means = [photo.pixels[region].mean(axis=0) for region in (inside, outside)]
        return float(np.abs(means[0] - means[1]).sum())

    assert contrast(0.8) < 0.6 * contrast(0.0)


def test_every_mask_is_measured_in_every_setting(monkeypatch):
    monkeypatch.setattr(masks, "SLACKS", (0.05,))
    monkeypatch.setattr(masks, "N_POINTS", (0,))
    rows = masks.measure([("drawn", draw_scene(1))])
    assert list(rows) == ["drawn 0", "drawn 1", "drawn 2"]
    assert all(0.85 < value <= 1.0 for row in rows.values() for value in row.values())
