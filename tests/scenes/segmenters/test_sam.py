from __future__ import annotations

import numpy as np
import pytest
import torch

from lora_scene.scenes.mask_prompts import Box, Point, Prompt, Stroke
from lora_scene.scenes.segmenters.catalog import open_lister, open_segmenter
from tests.scenes.segmenters.tiny_networks import answer_instead, save_sam, save_sam2

HEIGHT, WIDTH = 60, 100
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
SIDE = 64  # of the tiny networks' input
# SAM scales the longer side to 64 and pads; SAM 2 stretches: factors of (x, y)
SCALES = {"sam": (0.64, 38 / 60), "sam2": (0.64, 64 / 60)}


@pytest.fixture(scope="module", params=["sam", "sam2"])
def folder(request, tmp_path_factory):
    torch.manual_seed(0)
    save = {"sam": save_sam, "sam2": save_sam2}[request.param]
    return request.param, save(tmp_path_factory.mktemp(request.param))


def draw_box(inputs, answer):
    """Answer with +9 inside the box that the network was asked for, -9 outside."""
    n_rows = answer.pred_masks.shape[-1]
    centres = (torch.arange(n_rows) + 0.5) * SIDE / n_rows
    left, top, right, bottom = inputs["input_boxes"][0, 0]
    inside = ((centres > top) & (centres < bottom))[:, None] & (centres > left) & (centres < right)
    answer.pred_masks = torch.where(inside, 9.0, -9.0).expand(answer.pred_masks.shape).clone()
    return answer


def test_the_real_network_answers_at_photo_size(folder):
    name, path = folder
    segmenter = open_segmenter(name, model=str(path))
    prompts = [
        Prompt("<a>", "a", Box(3, 4, 50, 40), (Point(20, 20), Point(2, 2, is_inside=False))),
        Prompt("<b>", "b", strokes=(Stroke(((10, 10), (30, 20)), 4),)),
    ]
    masks = segmenter.segment(PIXELS, prompts)
    assert masks.shape == (2, HEIGHT, WIDTH)
    assert masks.dtype == np.float32
    assert np.isfinite(masks).all()


def test_boxes_and_points_reach_the_network_in_its_own_pixels(folder, monkeypatch):
    name, path = folder
    segmenter = open_segmenter(name, model=str(path))
    calls = answer_instead(monkeypatch, segmenter, lambda inputs, answer: answer)
    points = (Point(20, 30), Point(90, 6, is_inside=False))
    segmenter.segment(PIXELS, [Prompt("<a>", "a", Box(10, 12, 50, 42), points)])
    (call,) = calls
    x, y = SCALES[name]
    np.testing.assert_allclose(
        call["input_boxes"][0, 0], [10 * x, 12 * y, 50 * x, 42 * y], rtol=1e-5
    )
    np.testing.assert_allclose(
        call["input_points"][0, 0], [[20 * x, 30 * y], [90 * x, 6 * y]], rtol=1e-5
    )
    assert call["input_labels"].tolist() == [[[1, 0]]]
    assert call["multimask_output"] is False


def test_masks_come_back_where_the_box_was(folder, monkeypatch):
    name, path = folder
    segmenter = open_segmenter(name, model=str(path))
    answer_instead(monkeypatch, segmenter, draw_box)
    (mask,) = segmenter.segment(PIXELS, [Prompt("<a>", "a", Box(20, 12, 70, 48))])
    ys, xs = np.nonzero(mask >= 0.5)
    found = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    # a cell of the answer is at most 4 network pixels, 6.3 of the photo; half may be lost
    difference = np.abs(found - [20, 12, 70, 48]).max()
    assert difference <= 3.5, found


def test_strokes_become_points_along_them(folder, monkeypatch):
    name, path = folder
    segmenter = open_segmenter(name, model=str(path))
    calls = answer_instead(monkeypatch, segmenter, lambda inputs, answer: answer)
    stroke = Stroke(((10, 10), (10, 30), (30, 30)), 4)
    segmenter.segment(PIXELS, [Prompt("<a>", "a", strokes=(stroke,))])
    x, y = SCALES[name]
    expected = [[10, 10], [10, 20], [10, 30], [20, 30], [30, 30]]
    np.testing.assert_allclose(
        calls[0]["input_points"][0, 0], np.multiply(expected, [x, y]), rtol=1e-5
    )


def test_a_single_point_takes_the_surest_of_several_masks(folder, monkeypatch):
    name, path = folder
    segmenter = open_segmenter(name, model=str(path))

    def second_is_best(inputs, answer):
        assert inputs["multimask_output"] is True
        assert answer.pred_masks.shape[2] == 3
        answer.iou_scores = torch.tensor([[[0.1, 0.9, 0.3]]])
        answer.pred_masks = torch.full_like(answer.pred_masks, -9.0)
        answer.pred_masks[:, :, 1] = 9.0
        return answer

    answer_instead(monkeypatch, segmenter, second_is_best)
    (mask,) = segmenter.segment(PIXELS, [Prompt("<a>", "a", points=(Point(5, 5),))])
    assert mask.min() > 0.99


def halves(inputs, answer):
    """Answer each point with the half of the square that it lies in; the left one is surer."""
    is_left = inputs["input_points"][0, :, 0, 0] < SIDE / 2
    n_columns = answer.pred_masks.shape[-1]
    left_half = torch.arange(n_columns) < n_columns / 2
    inside = torch.where(is_left[:, None], left_half, ~left_half)
    answer.pred_masks = torch.where(inside[None, :, None, None], 9.0, -9.0).expand(
        answer.pred_masks.shape
    )
    scores = torch.where(is_left, 0.95, 0.9)
    answer.iou_scores = scores[None, :, None].expand(answer.iou_scores.shape)
    return answer


def test_a_grid_of_points_lists_each_region_once(folder, monkeypatch):
    name, path = folder
    lister = open_lister(name, model=str(path))
    answer_instead(monkeypatch, lister, halves)
    left, right = lister.propose(PIXELS)
    assert (round(left.score, 2), round(right.score, 2)) == (0.95, 0.9)
    assert left.mask[:, :46].min() > 0.5
    assert left.mask[:, 54:].max() < 0.5
    assert right.mask[:, 54:].min() > 0.5


def test_a_listed_region_can_be_picked_beside_a_box(folder, monkeypatch):
    name, path = folder
    segmenter = open_segmenter(name, model=str(path))

    def either(inputs, answer):
        return draw_box(inputs, answer) if "input_boxes" in inputs else halves(inputs, answer)

    answer_instead(monkeypatch, segmenter, either)
    prompts = [Prompt("<a>", "a", Box(20, 12, 70, 48)), Prompt("<b>", "b", pick=2)]
    boxed, picked = segmenter.segment(PIXELS, prompts)
    assert boxed[30, 40] > 0.9
    assert boxed[2, 2] < 0.1
    assert picked[:, 54:].min() > 0.5
    assert picked[:, :46].max() < 0.5
