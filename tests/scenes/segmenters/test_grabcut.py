from __future__ import annotations

import numpy as np
import pytest

from benchmarks.drawn_scenes import draw_scene
from benchmarks.masks import derive_prompts, iou
from lora_scene.errors import LoraSceneWarning
from lora_scene.scenes.mask_prompts import Box, Point, Prompt, Stroke
from lora_scene.scenes.masking import make_masks
from lora_scene.scenes.refine import settle_overlaps
from lora_scene.scenes.segmenters.grabcut import GrabCut


@pytest.mark.parametrize(("slack", "n_points"), [(0.05, 0), (0.15, 2)])
def test_drawn_things_are_found_by_loose_boxes(slack, n_points):
    found = []
    for seed in range(2):
        photo = draw_scene(seed)
        prompts = derive_prompts(photo, slack=slack, n_points=n_points)
        masks = make_masks(photo.pixels, prompts).scene.photos[0].masks
        found += [iou(mask, true) for mask, true in zip(masks, photo.masks, strict=True)]
    assert np.mean(found) >= 0.93, found
    assert min(found) >= 0.85, found


def two_tone(shape=(80, 120)) -> tuple[np.ndarray, np.ndarray]:
    """A thing of two colours, red above and blue below, on noisy green."""
    generator = np.random.default_rng(0)
    pixels = np.full((*shape, 3), (60, 150, 60), np.float64)
    mask = np.zeros(shape, np.float32)
    mask[20:60, 40:80] = 1.0
    pixels[20:40, 40:80] = (190, 60, 50)
    pixels[40:60, 40:80] = (40, 50, 190)
    pixels += generator.normal(0, 6, pixels.shape)
    return pixels.clip(0, 255).astype(np.uint8), mask


def test_a_thing_of_two_colours_is_found_whole():
    pixels, mask = two_tone()
    (found,) = GrabCut().segment(pixels, [Prompt("<a>", "a", Box(36, 16, 84, 64))])
    assert iou(found, mask) > 0.93


def test_strokes_inside_and_outside_are_obeyed():
    pixels, _ = two_tone()
    inside = Stroke(((50, 30), (70, 30)), 4)
    outside = Stroke(((50, 50), (70, 50)), 8, is_inside=False)
    (found,) = GrabCut().segment(
        pixels, [Prompt("<a>", "a", Box(36, 16, 84, 64), strokes=(inside, outside))]
    )
    assert found[30, 50:70].min() > 0.9
    assert found[50, 52:68].max() < 0.1


def test_the_marks_of_another_concept_lie_outside():
    pixels, _ = two_tone()
    box = Box(36, 16, 84, 64)
    prompts = [
        Prompt("<red>", "red", box, (Point(60, 30),)),
        Prompt("<blue>", "blue", box, (Point(60, 50),)),
    ]
    red, blue = settle_overlaps(GrabCut().segment(pixels, prompts))
    assert red[30, 60] > 0.9
    assert red[50, 60] < 0.1
    assert blue[50, 60] > 0.9


def test_nothing_outside_the_box_is_ever_taken():
    pixels, _ = two_tone()
    (found,) = GrabCut().segment(pixels, [Prompt("<a>", "a", Box(40, 20, 60, 60))])
    found[20:60, 40:60] = 0.0
    assert found.max() == 0.0


@pytest.mark.parametrize("box", [Box(0, 0, 120, 80), Box(0, 0, 1, 1), Box(119, 79, 120, 80)])
def test_extreme_boxes_give_a_mask_not_an_error(box):
    pixels, _ = two_tone()
    (found,) = GrabCut().segment(pixels, [Prompt("<a>", "a", box)])
    assert found.shape == (80, 120)
    assert 0.0 <= found.min() <= found.max() <= 1.0


def test_a_photo_of_one_colour_gives_a_mask_not_an_error():
    pixels = np.full((40, 40, 3), 90, np.uint8)
    (found,) = GrabCut().segment(pixels, [Prompt("<a>", "a", Box(10, 10, 30, 30))])
    assert np.isfinite(found).all()


def test_the_same_prompts_give_the_same_mask():
    photo = draw_scene(3)
    prompts = derive_prompts(photo, slack=0.1, n_points=1)
    one, two = (GrabCut().segment(photo.pixels, prompts[:1]) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_a_large_photo_keeps_its_size_and_place():
    pixels, mask = two_tone()
    large = np.kron(pixels, np.ones((12, 12, 1), np.uint8))
    (found,) = GrabCut().segment(large, [Prompt("<a>", "a", Box(432, 192, 1008, 768))])
    assert found.shape == (960, 1440)
    assert iou(found, np.kron(mask, np.ones((12, 12), np.float32))) > 0.93


def test_right_points_do_a_good_mask_no_harm():
    photo = draw_scene(3, camouflage=0.6)
    (boxed,), (marked,) = (
        GrabCut().segment(photo.pixels, derive_prompts(photo, slack=0.1, n_points=n)[:1])
        for n in (0, 5)
    )
    assert iou(boxed, photo.masks[0]) > 0.9
    assert iou(marked, photo.masks[0]) > iou(boxed, photo.masks[0]) - 0.02


def test_marks_that_take_most_of_a_mask_away_are_told():
    pixels, _ = two_tone()
    outside = tuple(Stroke(((42, y), (78, y)), 6, is_inside=False) for y in (24, 30, 36, 46))
    with pytest.warns(LoraSceneWarning, match=r"take \d+ % of the mask away"):
        GrabCut().segment(pixels, [Prompt("<a>", "a", Box(36, 16, 84, 64), strokes=outside)])
