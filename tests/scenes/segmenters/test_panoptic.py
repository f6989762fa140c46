from __future__ import annotations

import numpy as np
import pytest
import torch

from lora_scene.errors import SegmenterError
from lora_scene.scenes.mask_prompts import Prompt
from lora_scene.scenes.segmenters import panoptic
from lora_scene.scenes.segmenters.catalog import open_lister
from tests.scenes.segmenters.tiny_networks import (
    answer_instead,
    save_mask2former,
    save_maskformer,
)

PIXELS = np.full((60, 100, 3), 128, np.uint8)
SAVERS = {"maskformer": save_maskformer, "mask2former": save_mask2former}


@pytest.fixture(scope="module", params=list(SAVERS))
def folder(request, tmp_path_factory):
    torch.manual_seed(0)
    return request.param, SAVERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture
def lister(folder, monkeypatch):
    monkeypatch.setattr(panoptic, "detector_shape", lambda shape: (64, 96))
    name, path = folder
    return open_lister(name, model=str(path))


def bear_and_wall(inputs, answer):
    """Query 2 is a bear on the left half; query 0 a wall everywhere, less sure; 1 is nothing."""
    assert inputs["pixel_values"].shape == (1, 3, 64, 96)
    answer.class_queries_logits = torch.full_like(answer.class_queries_logits, -9.0)
    for query, label, logit in ((0, 2, 2.0), (1, 3, 9.0), (2, 0, 9.0), (3, 3, 9.0)):
        answer.class_queries_logits[0, query, label] = logit
    answer.class_queries_logits[0, 0, 3] = 1.5  # the wall's score is sigmoid(0.5) = 0.62
    answer.masks_queries_logits = torch.full_like(answer.masks_queries_logits, -9.0)
    n_columns = answer.masks_queries_logits.shape[-1]
    answer.masks_queries_logits[0, 0] = 9.0
    answer.masks_queries_logits[0, 1] = 9.0
    answer.masks_queries_logits[0, 2, :, : n_columns // 2] = 9.0
    return answer


def test_things_and_stuff_are_listed_by_name_the_surest_first(lister, monkeypatch):
    answer_instead(monkeypatch, lister, bear_and_wall)
    bear, wall = lister.propose(PIXELS)
    assert (bear.name, wall.name) == ("bear", "wall")
    assert bear.score > 0.99
    assert wall.score == pytest.approx(1 / (1 + np.exp(-0.5)), abs=1e-3)
    assert bear.mask.shape == (60, 100)
    assert bear.mask[:, :45].min() > 0.9
    assert bear.mask[:, 55:].max() < 0.1
    assert wall.mask[:, 55:].min() > 0.9
    assert wall.mask[:, :45].max() == 0.0  # a pixel has one owner


def test_regions_are_picked_by_number(lister, monkeypatch):
    answer_instead(monkeypatch, lister, bear_and_wall)
    masks = lister.segment(PIXELS, [Prompt("<w>", "wall", pick=2), Prompt("<b>", "bear", pick=1)])
    assert masks[0, 30, 80] > 0.9
    assert masks[1, 30, 20] > 0.9


@pytest.mark.parametrize("number", [0, 3])
def test_a_number_that_is_not_listed_is_refused(lister, monkeypatch, number):
    answer_instead(monkeypatch, lister, bear_and_wall)
    with pytest.raises(
        SegmenterError, match=rf"<b>: no region of this number(.|\n)*1 to 2(.|\n)*{number}"
    ):
        lister.segment(PIXELS, [Prompt("<b>", "bear", pick=number)])


def test_nothing_sure_is_an_empty_list(lister, monkeypatch):
    def nothing(inputs, answer):
        answer.class_queries_logits = torch.zeros_like(answer.class_queries_logits)
        return answer

    answer_instead(monkeypatch, lister, nothing)
    assert lister.propose(PIXELS) == ()
