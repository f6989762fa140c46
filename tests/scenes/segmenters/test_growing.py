from __future__ import annotations

import numpy as np
import pytest

from benchmarks.drawn_scenes import draw_scene
from benchmarks.masks import correct_prompt, iou
from lora_scene.scenes.mask_prompts import Point, Prompt, Stroke
from lora_scene.scenes.segmenters.growing import grow_mask

RED, BLUE, GREEN = (190, 60, 50), (40, 50, 190), (60, 150, 60)


def flags(shape=(60, 90), **areas) -> np.ndarray:
    """Noisy green with rectangles (rows, columns) in colours."""
    pixels = np.full((*shape, 3), GREEN, np.float64)
    for colour, (rows, columns) in areas.items():
        pixels[slice(*rows), slice(*columns)] = {"red": RED, "blue": BLUE}[colour]
    pixels += np.random.default_rng(0).normal(0, 6, pixels.shape)
    return pixels.clip(0, 255).astype(np.uint8)


def area(shape, rows, columns) -> np.ndarray:
    mask = np.zeros(shape[:2], np.float32)
    mask[slice(*rows), slice(*columns)] = 1.0
    return mask


def test_one_point_finds_a_thing_and_right_marks_never_make_it_worse():
    photo = draw_scene(101, camouflage=0.6)
    true = photo.masks[1]
    prompt, found, scores = Prompt("<a>", "a"), np.zeros_like(true), []
    for _ in range(3):
        prompt = correct_prompt(prompt, found, true)
        found = grow_mask(photo.pixels, prompt, [])
        scores.append(iou(found, true))
    assert scores[0] > 0.9, scores
    assert min(np.diff(scores)) > -0.02, scores


def test_a_far_point_inside_brings_the_other_part_and_one_outside_takes_it_away():
    pixels = flags(red=((15, 45), (20, 40)), blue=((15, 45), (40, 60)))
    red, both = (area(pixels.shape, (15, 45), (20, end)) for end in (40, 60))
    points = (Point(30, 30), Point(50, 30))
    found = grow_mask(pixels, Prompt("<a>", "a", points=points), [])
    assert iou(found, both) > 0.9
    for away, others in (((Point(50, 30, is_inside=False),), []), ((), [Point(50, 30)])):
        found = grow_mask(pixels, Prompt("<a>", "a", points=(Point(30, 30), *away)), others)
        assert iou(found, red) > 0.85


@pytest.mark.filterwarnings("ignore:<a>")
def test_a_mark_does_not_undo_what_an_earlier_one_did_where_colours_are_alike():
    """A dark thing with a pale middle stands before a dark one; a faint seam parts them."""
    pixels = np.full((80, 120, 3), GREEN, np.float64)
    for rows, columns, grey in (
        ((20, 60), (5, 60), 38),
        ((15, 70), (60, 100), 38),
        ((25, 60), (70, 90), 210),
        ((20, 60), (59, 61), 45),
    ):
        pixels[slice(*rows), slice(*columns)] = grey
    pixels += np.random.default_rng(0).normal(0, 5, pixels.shape)
    pixels, true = pixels.clip(0, 255).astype(np.uint8), area((80, 120), (15, 70), (60, 100))
    points = [Point(80, 62), Point(25, 40, is_inside=False), Point(64, 55)]
    scores = [
        iou(grow_mask(pixels, Prompt("<a>", "a", points=tuple(points[:n])), []), true)
        for n in (1, 2, 3)
    ]
    assert min(np.diff(scores)) > -0.02, scores
    assert scores[2] > 0.7, scores


def test_a_stroke_alone_finds_what_it_lies_on():
    pixels = flags(red=((20, 40), (25, 65)))
    stroke = Stroke(((32, 30), (58, 30)), 4)
    found = grow_mask(pixels, Prompt("<a>", "a", strokes=(stroke,)), [])
    assert iou(found, area(pixels.shape, (20, 40), (25, 65))) > 0.9


def test_a_large_photo_is_cut_as_its_small_one():
    pixels = flags(red=((20, 40), (25, 65)))
    large = np.kron(pixels, np.ones((8, 8, 1), np.uint8))
    found = grow_mask(large, Prompt("<a>", "a", points=(Point(360, 240),)), [])
    assert found.shape == (480, 720)
    assert iou(found, area(large.shape, (160, 320), (200, 520))) > 0.9


@pytest.mark.parametrize("place", [(0, 0), (89, 59)])
def test_a_point_where_nothing_is_gives_a_mask_not_an_error(place):
    found = grow_mask(flags(), Prompt("<a>", "a", points=(Point(*place),)), [])
    assert 0.0 <= found.min() <= found.max() <= 1.0
