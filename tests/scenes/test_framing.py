from __future__ import annotations

import numpy as np
import pytest

from lora_scene.scenes.canvas import Canvas
from lora_scene.scenes.framing import frame, frame_scene, grid_masks, plan_frame
from lora_scene.scenes.scene import Concept, Photo, Scene
from lora_scene.size import Size
from tests.scenes.factory import BEAR, BOWL, photo, rectangle

SQUARE = Size(32, 32)


def test_a_square_photo_of_the_right_size_is_unchanged():
    square = photo(32, 32, BEAR)
    framed = frame(square, Size(32, 32))
    np.testing.assert_array_equal(framed.pixels, square.pixels)
    np.testing.assert_array_equal(framed.masks, square.masks)


@pytest.mark.parametrize(("height", "width"), [(32, 80), (80, 32)])
def test_the_square_goes_where_the_mask_is(height, width):
    region = (slice(height - 10, height - 2), slice(width - 10, width - 2))
    plan = plan_frame(photo(height, width, region), SQUARE)
    assert (plan.window, plan.kept) == ((32, 32), (1.0,))
    assert max(plan.left, plan.top) >= 46  # the window must reach column or row 78


def test_no_concept_is_lost_for_another_one():
    left, right = (slice(0, 30), slice(0, 30)), (slice(10, 14), slice(40, 44))
    plan = plan_frame(photo(32, 60, left, right), SQUARE)
    worst = [
        min(
            np.clip(min(30, start + 32) - start, 0, 30) / 30,
            np.clip(start + 32 - 40, 0, 4) / 4,
        )
        for start in range(29)
    ]
    assert min(plan.kept) == pytest.approx(max(worst))


def test_a_held_mask_leaves_the_square_near_the_middle():
    assert plan_frame(photo(32, 64, (slice(4, 8), slice(30, 34))), SQUARE).left == 16


def test_pixels_and_masks_are_resized_together():
    mask = rectangle((96, 96), (slice(24, 72), slice(0, 48)))
    pixels = np.repeat((mask * 255).astype(np.uint8)[:, :, None], 3, axis=2)
    framed = frame(Photo(pixels, mask[None], "x"), SQUARE)
    assert framed.pixels.shape == (32, 32, 3)
    assert framed.masks.shape == (1, 32, 32)
    difference = np.abs(framed.pixels[:, :, 0] / 255 - framed.masks[0]).max()
    assert difference < 0.2, difference
    np.testing.assert_array_equal(
        framed.masks[0] >= 0.5, rectangle((32, 32), (slice(8, 24), slice(0, 16))) == 1
    )


def test_soft_edges_stay_soft_and_in_range():
    ramp = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (64, 1))
    framed = frame(Photo(np.zeros((64, 64, 3), np.uint8), ramp[None], "x"), Size(128, 128))
    assert framed.masks.min() >= 0.0
    assert framed.masks.max() <= 1.0
    expected = np.tile(np.linspace(0, 1, 128), (128, 1))
    assert np.abs(framed.masks[0] - expected).max() < 0.02


def test_costs_of_the_framing_are_told_not_printed(capsys):
    left, right = (slice(0, 30), slice(0, 30)), (slice(0, 30), slice(70, 100))
    plan = plan_frame(photo(32, 100, left, right), SQUARE)
    said = plan.warnings(Canvas(512, 8, 4, 8), {0: "<a>", 1: "<b>"})
    assert any("enlarged to 512x512 px" in sentence for sentence in said)
    assert any("<b>" in sentence for sentence in said)
    assert plan_frame(photo(32, 32, BEAR), SQUARE).warnings(Canvas(32, 8, 4, 8), {0: "<a>"}) == ()
    assert capsys.readouterr() == ("", "")


def test_the_background_does_not_pull_the_square():
    thing = rectangle((32, 96), (slice(0, 32), slice(0, 20)))
    masks = np.stack([thing, 1.0 - thing])
    concepts = (Concept("<a>", "a"), Concept("<room>", "room", is_background=True))
    wide = Photo(np.zeros((32, 96, 3), np.uint8), masks, "x")
    framed = frame_scene(Scene(concepts, (wide,), "x"), Canvas(32, 8, 4, 8))
    assert framed.photos[0].masks[0].sum() == 32 * 20


def test_absent_concepts_do_not_disturb():
    wide = photo(32, 64, BEAR, BOWL)
    masks = wide.masks.copy()
    masks[1] = 0.0
    plan = plan_frame(Photo(wide.pixels, masks, "x"), SQUARE)
    assert plan.kept == (1.0, 1.0)


def test_a_thin_thing_keeps_its_share_on_a_coarse_grid():
    pole = rectangle((512, 512), (slice(0, 512), slice(261, 281)))
    for side in (16, 24, 64):
        np.testing.assert_allclose(
            grid_masks(pole[None], Size(side, side)).mean(), 20 / 512, rtol=1e-6
        )
    cells = grid_masks(pole[None], Size(16, 16))[0]
    np.testing.assert_allclose(cells[:, 8], 20 / 32)  # columns 256 to 287 hold all of its 20
    assert cells[:, :8].max() == cells[:, 9:].max() == 0.0


def test_a_cell_between_pixels_takes_its_part_of_them():
    ramp = np.array([[[0.0, 0.3, 0.9]]], np.float32).repeat(3, axis=1)  # three columns, two cells
    cells = grid_masks(ramp, Size(2, 2))
    np.testing.assert_allclose(cells[0, 0], [(0.0 + 0.3 / 2) / 1.5, (0.3 / 2 + 0.9) / 1.5], 1e-6)


def test_the_published_way_takes_one_pixel_a_cell():
    masks = photo(32, 32).masks
    np.testing.assert_array_equal(
        grid_masks(masks, Size(8, 8), resize="nearest"), masks[:, ::4, ::4]
    )


def test_a_rectangle_is_the_largest_of_its_shape_and_goes_where_the_mask_is():
    size = Size(48, 32)
    wide = photo(40, 80, (slice(10, 20), slice(68, 78)))
    plan = plan_frame(wide, size)
    assert (plan.window, plan.kept, plan.left + 60) == ((60, 40), (1.0,), 80 - plan.cut[2])
    assert plan.cut == (plan.left, 0, 20 - plan.left, 0)
    tall = plan_frame(photo(90, 60, (slice(80, 90), slice(0, 60))), size)
    assert (tall.window, tall.cut) == ((60, 40), (0, 50, 0, 0))
    framed = frame(wide, size)
    assert (framed.size, framed.view.of, framed.view.left) == (size, (80, 40), plan.left)


def test_more_than_1_to_2_4_is_cut_and_said():
    canvas = Canvas(512, 64, 8, 32, "photo")
    strip = photo(20, 3000, (slice(0, 20), slice(0, 30)))
    plan = plan_frame(strip, canvas.size_for(strip.size))
    assert plan.window == (48, 20)
    said = plan.warnings(canvas, {})
    assert said[0] == (
        "the photo is 150.0 times as long as it is short, and at most 2.4 is learnt: 98 % of it is "
        "cut off"
    )
    assert said[1].endswith("take a larger photo")


@pytest.mark.parametrize(
    ("shape", "size", "remedy"),
    [
        ("square", (1000, 400), "base.shape=photo enlarges nothing: 768x320 px"),
        ("photo", (450, 300), "base.resolution=320 enlarges nothing: 384x256 px"),
        ("square", (400, 400), "base.resolution=384 enlarges nothing: 384x384 px"),
    ],
)
def test_a_small_photo_is_told_what_enlarges_nothing(shape, size, remedy):
    canvas, small = Canvas(512, 64, 8, 32, shape), photo(size[1], size[0], BEAR)
    (said,) = plan_frame(small, canvas.size_for(small.size)).warnings(canvas, {})
    assert said.endswith(f"details cannot be learnt that are not there; {remedy}")


@pytest.mark.parametrize(
    ("text", "size"), [("512", (512, 512)), (" 512x768 ", (512, 768)), ("0", (0, 0))]
)
def test_a_size_is_read_as_it_is_written(text, size):
    assert Size.parse(text) == size
    assert Size.parse(str(Size(*size))) == size


@pytest.mark.parametrize("text", ["", "64x", "x64", "64 x 64", "64X64", "-8", "1.5", "٣", "9" * 7])
def test_what_is_no_size_is_told(text):
    with pytest.raises(ValueError, match="is not 512 or WIDTHxHEIGHT"):
        Size.parse(text)
