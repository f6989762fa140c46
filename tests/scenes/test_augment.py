from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from lora_scene.scenes.augment import emptied, flip, paste, random_crop, rearrange, recompose
from lora_scene.scenes.scene import Photo
from tests.scenes.factory import photo, rectangle

RED, GREEN = (255, 0, 0), (0, 255, 0)


def painted(side: int = 96) -> Photo:
    """A red and a green square on blue, with their masks."""
    masks = np.stack(
        [
            rectangle((side, side), (slice(10, 34), slice(8, 32))),
            rectangle((side, side), (slice(60, 80), slice(50, 90))),
        ]
    )
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[:, :, 2] = 255
    pixels[masks[0] == 1] = RED
    pixels[masks[1] == 1] = GREEN
    return Photo(pixels, masks, "x")


def purity(photo: Photo, k: int, colour: tuple[int, int, int]) -> float:
    """Fraction of the pixels well inside mask k that have the concept's colour."""
    inside = photo.masks[k] > 0.99
    close = np.abs(photo.pixels.astype(int) - colour).max(axis=2) < 12
    return float(close[inside].mean())


def test_flipping_twice_changes_nothing_and_once_mirrors_both():
    original = photo()
    once = flip(original)
    np.testing.assert_array_equal(once.pixels, original.pixels[:, ::-1])
    np.testing.assert_array_equal(once.masks, original.masks[:, :, ::-1])
    np.testing.assert_array_equal(flip(once).pixels, original.pixels)


@pytest.mark.parametrize("seed", range(8))
def test_a_crop_keeps_size_and_the_asked_part_of_every_mask(seed):
    original = painted()
    cropped = random_crop(original, np.random.default_rng(seed), scale=(0.6, 0.9), keep=0.75)
    assert cropped.pixels.shape == original.pixels.shape
    assert purity(cropped, 0, RED) > 0.9
    assert purity(cropped, 1, GREEN) > 0.9
    # a mask that is cut keeps 75 %, and is enlarged by at least 1 / 0.9 a side
    areas = cropped.masks.sum(axis=(1, 2)) / original.masks.sum(axis=(1, 2))
    assert (areas > 0.75 / 0.9**2 * 0.97).all(), areas


def test_a_crop_that_cannot_keep_enough_is_the_whole_photo():
    original = photo(40, 40, (slice(0, 40), slice(0, 40)))
    assert random_crop(original, np.random.default_rng(0), scale=(0.3, 0.5), keep=0.9) is original


def test_a_crop_with_a_focus_may_cut_a_background_and_draws_the_same_windows():
    original = painted()
    background = 1.0 - original.masks.max(axis=0, keepdims=True)
    whole = replace(original, masks=np.concatenate([original.masks, background]))
    for seed in range(8):
        alone = random_crop(original, np.random.default_rng(seed), scale=(0.6, 0.8), keep=0.6)
        window = random_crop(
            whole, np.random.default_rng(seed), scale=(0.6, 0.8), keep=0.6, focus=(0, 1)
        )
        np.testing.assert_array_equal(window.pixels, alone.pixels)
        assert window.view.width < 0.85 * original.width, "and the background keeps below 0.6"


def test_crops_differ_and_repeat_with_their_seed():
    original = painted()
    one, same, other = (
        random_crop(original, np.random.default_rng(s), scale=(0.7, 0.9), keep=0.5)
        for s in (3, 3, 4)
    )
    np.testing.assert_array_equal(one.pixels, same.pixels)
    assert not np.array_equal(one.pixels, other.pixels)


def test_pasting_keeps_the_subset_and_one_colour_elsewhere():
    original = painted()
    variant = paste(original, (1,), np.random.default_rng(0))
    inside = original.masks[1] == 1
    np.testing.assert_array_equal(variant.photo.pixels[inside], original.pixels[inside])
    assert len(np.unique(variant.photo.pixels[~inside], axis=0)) == 1
    assert variant.photo.masks[0].max() == 0.0
    np.testing.assert_array_equal(variant.photo.masks[1], original.masks[1])
    assert (variant.present, variant.caption_suffix) == ((1,), "")


def test_pasting_blends_soft_edges():
    pixels = np.full((4, 4, 3), 100, np.uint8)
    half = np.full((1, 4, 4), 0.5, np.float32)
    variant = paste(Photo(pixels, half, "x"), (0,), np.random.default_rng(5))
    colour = np.random.default_rng(5).integers(0, 256, size=3)
    difference = np.abs(variant.photo.pixels - (50 + colour / 2)).max()
    assert difference <= 0.5, difference


@pytest.mark.parametrize("seed", range(6))
def test_recomposed_masks_lie_on_their_concepts(seed):
    variant = recompose(painted(), (1, 0), np.random.default_rng(seed))
    assert variant.photo.pixels.shape == (96, 96, 3)
    assert variant.present == (1, 0)
    assert variant.caption_suffix == " on a simple background"
    assert purity(variant.photo, 0, RED) > 0.95
    assert purity(variant.photo, 1, GREEN) > 0.9
    assert (variant.photo.masks.sum(axis=0) <= 1.0 + 1e-5).all()
    blue = np.abs(variant.photo.pixels.astype(int) - (0, 0, 255)).max(axis=2) < 12
    assert blue.mean() < 0.05


def test_recomposed_concepts_move_and_change_size():
    boxes = set()
    for seed in range(10):
        mask = recompose(painted(), (0,), np.random.default_rng(seed)).photo.masks[0]
        ys, xs = np.nonzero(mask > 0.5)
        boxes.add((ys.min(), xs.min(), ys.max() - ys.min()))
    assert len({box[:2] for box in boxes}) > 7
    assert len({box[2] for box in boxes}) > 4


def test_a_small_concept_is_not_blown_up_to_the_asked_size():
    mask = painted().masks[0]
    side = np.ptp(np.nonzero(mask > 0.5), axis=1).max() + 1
    for seed in range(10):
        pasted = recompose(painted(), (0,), np.random.default_rng(seed), scale=(0.3, 0.95))
        assert np.ptp(np.nonzero(pasted.photo.masks[0] > 0.5), axis=1).max() + 1 <= 1.5 * side


def test_recomposed_concepts_overlap_little():
    for seed in range(10):
        masks = recompose(painted(), (0, 1), np.random.default_rng(seed), scale=(0.4, 0.5))
        first = recompose(painted(), (0,), np.random.default_rng(seed), scale=(0.4, 0.5))
        assert masks.photo.masks[0].sum() > 0
        assert first.photo.masks[0].sum() > 0
        covered = (masks.photo.masks[0] > 0.5).sum()
        ys, xs = np.nonzero(masks.photo.masks[0] > 0.5)
        box = (ys.max() - ys.min() + 1) * (xs.max() - xs.min() + 1)
        assert covered >= 0.85 * box  # the square lost at most a tenth to the other


def test_an_emptied_photo_shows_what_lay_around_its_things():
    original = painted()
    empty = emptied(original, (0, 1))
    covered = original.masks.max(axis=0) > 0
    far = ~binary_dilation(covered, iterations=8)
    np.testing.assert_array_equal(empty[far], original.pixels[far])
    assert np.abs(empty[covered].astype(int) - (0, 0, 255)).max() < 40


def test_a_photo_without_surroundings_is_emptied_to_its_mean_colour():
    original = painted()
    everywhere = Photo(original.pixels, np.ones_like(original.masks[:1]), "x")
    assert len(np.unique(emptied(everywhere, (0,)).reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize("seed", range(4))
def test_rearranged_concepts_stand_alone_on_the_photos_own_background(seed):
    original = painted()
    variant = rearrange(original, emptied(original, (0, 1)), (1,), np.random.default_rng(seed))
    assert (variant.present, variant.caption_suffix) == ((1,), "")
    assert purity(variant.photo, 1, GREEN) > 0.9
    assert variant.photo.masks[0].max() == 0.0
    red = np.abs(variant.photo.pixels.astype(int) - RED).max(axis=2) < 60
    assert not red.any()
    sides = [np.ptp(np.nonzero(p.masks[1] > 0.5), axis=1).max() for p in (variant.photo, original)]
    assert 0.8 < sides[0] / sides[1] < 1.2


def test_absent_concepts_are_not_pasted():
    original = painted()
    masks = original.masks.copy()
    masks[0] = 0.0
    variant = recompose(Photo(original.pixels, masks, "x"), (0, 1), np.random.default_rng(0))
    assert variant.present == (1,)
    assert paste(Photo(original.pixels, masks, "x"), (0, 1), np.random.default_rng(0)).present == (
        1,
    )


def test_the_input_is_never_changed():
    original = painted()
    before = original.pixels.copy(), original.masks.copy()
    generator = np.random.default_rng(0)
    for change in (
        random_crop,
        lambda p, g: paste(p, (0,), g),
        lambda p, g: recompose(p, (0,), g),
        lambda p, g: rearrange(p, emptied(p, (0,)), (0,), g),
    ):
        change(original, generator)
    np.testing.assert_array_equal(original.pixels, before[0])
    np.testing.assert_array_equal(original.masks, before[1])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_later_concept_lies_on_top_in_pixels_and_masks(order):
    colours = np.array([(250, 10, 10), (10, 10, 250)], np.uint8)
    squares = np.zeros((2, 40, 40), np.float32)
    squares[0, :20, :20] = squares[1, :20, 20:] = 1.0
    pixels = np.where(squares[0][:, :, None] == 1.0, colours[0], colours[1])
    parts = Photo(pixels, squares, "x")
    below, above = order
    for seed in range(8):
        made = recompose(parts, order, np.random.default_rng(seed), scale=(1.0, 1.2)).photo
        ys, xs = np.nonzero(made.masks[above] >= 0.5)
        rectangle = made.masks[above][ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
        assert rectangle.min() == 1.0, "nothing lies on what was pasted last"
        assert made.masks[below][made.masks[above] == 1.0].max() == 0.0
        assert np.abs(made.pixels[made.masks[above] == 1.0].astype(int) - colours[above]).max() <= 1
        left = (made.masks[below] >= 0.5).sum()
        assert left <= 30**2 - (30 + 28 - 40) ** 2, "of sides of 28 to 30, in 40, they overlap"


@pytest.mark.parametrize("size", [(60, 40), (36, 64)])
def test_a_crop_of_any_shape_keeps_the_stated_share_and_says_where_it_was(size):
    width, height = size
    ramp = photo(height, width, (slice(2, 14), slice(2, 20)), (slice(20, 34), slice(20, 34)))
    columns = np.tile(np.arange(width), (height, 1))
    pixels = np.stack([columns] * 3, axis=2)
    ramp = Photo(pixels.astype(np.uint8), ramp.masks, "x")
    for seed in range(20):
        cropped = random_crop(ramp, np.random.default_rng(seed), scale=(0.6, 0.9), keep=0.8)
        view = cropped.view
        assert cropped.size == size
        rows = slice(round(view.top), round(view.top + view.height))
        inside = ramp.masks[:, rows, round(view.left) : round(view.left + view.width)]
        assert (inside.sum(axis=(1, 2)) >= 0.8 * ramp.masks.sum(axis=(1, 2))).all()
        middle = view.left + view.width / 2 - 0.5
        assert cropped.pixels[:, :, 0].mean() == pytest.approx(middle, abs=0.6)
        mirrored = flip(cropped).view
        assert mirrored.left + mirrored.width == pytest.approx(width - view.left)
