from __future__ import annotations

import numpy as np

from lora_scene.scenes.refine import (
    feather,
    fill_holes,
    finish,
    follow_edges,
    keep_main_parts,
    settle_overlaps,
)


def flags(*boxes, shape=(60, 60)):
    mask = np.zeros(shape, dtype=bool)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


def test_specks_go_and_large_or_seeded_parts_stay():
    large, second, speck, seeded = (5, 5, 35, 35), (5, 40, 25, 50), (50, 50, 54, 54), (50, 5, 55, 9)
    mask = flags(large, second, speck, seeded)
    np.testing.assert_array_equal(keep_main_parts(mask, [(6, 52)]), flags(large, second, seeded))
    np.testing.assert_array_equal(keep_main_parts(mask), flags(large, second))


def test_small_holes_are_filled_and_large_or_open_ones_are_not():
    mask = flags((5, 5, 45, 45))
    mask[10:13, 10:13] = False  # 9 of 1600 pixels
    mask[20:35, 20:35] = False  # 225 of 1600
    expected = mask.copy()
    expected[10:13, 10:13] = True
    np.testing.assert_array_equal(fill_holes(mask), expected)
    bay = flags((0, 0, 60, 30))
    bay[0:2, 10:12] = False  # open at the photo's edge
    np.testing.assert_array_equal(fill_holes(bay), bay)


def test_an_empty_mask_stays_empty():
    nothing = np.zeros((20, 20), dtype=bool)
    assert not keep_main_parts(nothing).any()
    photo = np.zeros((20, 20, 3), np.uint8)
    assert finish(nothing, photo, reach=2, growth=0.01).max() == 0.0


def test_an_edge_that_is_off_moves_to_the_photos_edge():
    pixels = np.full((40, 40, 3), 30, np.uint8)
    pixels[:, 20:] = (200, 180, 60)
    true = np.zeros((40, 40), np.float32)
    true[:, 20:] = 1.0
    rough = np.zeros_like(true)
    rough[:, 18:] = 1.0
    assert ((rough >= 0.5) != true).sum() == 80
    assert ((follow_edges(rough, pixels, radius=6) >= 0.5) != true).sum() == 0


def test_the_guided_filter_equals_its_written_out_formula():
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    mask = generator.random((12, 12)).astype(np.float32)
    radius, eps = 2, 1e-2

    def windows(array):
        padded = np.pad(array, [(radius, radius)] * 2 + [(0, 0)] * (array.ndim - 2), "symmetric")
        side = 2 * radius + 1
        return {
            (y, x): padded[y : y + side, x : x + side].reshape(side * side, *array.shape[2:])
            for y in range(12)
            for x in range(12)
        }

    guide = pixels / 255.0
    a, b = np.zeros((12, 12, 3)), np.zeros((12, 12))
    colours, values = windows(guide), windows(mask.astype(np.float64))
    for place, colour in colours.items():
        value = values[place]
        covariance = np.cov(colour.T, bias=True) + eps * np.eye(3)
        with_mask = (colour * value[:, None]).mean(0) - colour.mean(0) * value.mean()
        a[place] = np.linalg.inv(covariance) @ with_mask
        b[place] = value.mean() - a[place] @ colour.mean(0)
    mean_a, mean_b = windows(a), windows(b)
    expected = np.array(
        [
            [mean_a[y, x].mean(0) @ guide[y, x] + mean_b[y, x].mean() for x in range(12)]
            for y in range(12)
        ]
    ).clip(0, 1)
    difference = np.abs(follow_edges(mask, pixels, radius=radius, eps=eps) - expected).max()
    assert difference < 1e-4, difference


def test_feathering_softens_and_grows_by_half_the_blur():
    mask = flags((100, 100, 300, 300), shape=(400, 400)).astype(np.float32)
    soft = feather(mask, growth=0.05)  # a blur of 10 pixels: the edge moves by 5.2
    row = soft[200]
    assert ((row > 0.01) & (row < 0.99)).sum() > 20
    grown = (row >= 0.5).sum() - 200
    assert abs(grown - 2 * 5.2) <= 2, grown


def test_what_masks_share_goes_to_the_smaller():
    large = flags((0, 0, 40, 40)).astype(np.float32)
    small = flags((30, 30, 50, 50)).astype(np.float32)
    settled = settle_overlaps(np.stack([large, small]))
    np.testing.assert_array_equal(settled[1], small)
    np.testing.assert_array_equal(settled[0], large * (1 - small))


def test_settled_soft_masks_never_sum_above_one():
    masks = np.random.default_rng(0).random((4, 20, 20)).astype(np.float32)
    settled = settle_overlaps(masks)
    assert settled.sum(axis=0).max() <= 1.0 + 1e-6
    assert settled.min() >= 0.0


def test_finishing_brings_a_small_mask_to_the_photos_size():
    photo = np.full((120, 90, 3), 40, np.uint8)
    photo[40:80, 30:60] = 220
    rough = flags((10, 8, 20, 15), shape=(30, 23))  # the same place at a quarter
    mask = finish(rough, photo, reach=1.5, growth=0.005)
    assert mask.shape == (120, 90)
    assert mask[45:75, 35:55].min() > 0.9
    outside = mask.copy()
    outside[34:86, 24:66] = 0
    assert outside.max() == 0.0
