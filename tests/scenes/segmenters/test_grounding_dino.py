from __future__ import annotations

import numpy as np
import pytest
import torch

from lora_scene.scenes.mask_prompts import Box, Prompt
from lora_scene.scenes.segmenters import grounding_dino
from lora_scene.scenes.segmenters.grounding_dino import GroundingDino
from tests.scenes.segmenters.tiny_networks import answer_instead, save_grounding_dino

PIXELS = np.full((60, 100, 3), 128, np.uint8)
PROMPTS = [Prompt("<a>", "a", words="Red Bear"), Prompt("<b>", "b", words="bowl.")]


class Follower:
    """Fills the boxes that it is given."""

    name = "filler"
    accepts = frozenset({"box"})

    def __init__(self):
        self.prompts = []

    def segment(self, pixels, prompts):
        self.prompts += prompts
        masks = np.zeros((len(prompts), *pixels.shape[:2]), np.float32)
        for mask, prompt in zip(masks, prompts, strict=True):
            box = prompt.box
            mask[round(box.top) : round(box.bottom), round(box.left) : round(box.right)] = 1.0
        return masks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    return save_grounding_dino(tmp_path_factory.mktemp("dino"))


@pytest.fixture
def segmenter(folder, monkeypatch):
    monkeypatch.setattr(grounding_dino, "detector_shape", lambda shape: (64, 96))
    return GroundingDino(str(folder), follower=Follower())


def test_each_phrase_reaches_the_network_as_a_caption(segmenter, monkeypatch):
    calls = answer_instead(monkeypatch, segmenter, lambda inputs, answer: answer)
    assert segmenter.segment(PIXELS, PROMPTS).shape == (2, 60, 100)
    decode = segmenter._tokenizer.decode
    said = [decode(call["input_ids"][0], skip_special_tokens=True) for call in calls]
    assert said == ["red bear.", "bowl."]
    assert calls[0]["pixel_values"].shape == (1, 3, 64, 96)


def test_the_surest_box_goes_to_the_follower_in_photo_pixels(segmenter, monkeypatch):
    def third_is_best(inputs, answer):
        answer.logits = torch.full_like(answer.logits, -9.0)
        answer.logits[0, 1, 2], answer.logits[0, 2, 1] = 0.1, 1.0
        answer.pred_boxes = torch.full_like(answer.pred_boxes, 0.1)
        answer.pred_boxes[0, 2] = torch.tensor([0.5, 0.5, 0.4, 0.2])
        return answer

    answer_instead(monkeypatch, segmenter, third_is_best)
    masks = segmenter.segment(PIXELS, PROMPTS[:1])
    box = segmenter._follower.prompts[0].box
    found = np.array([box.left, box.top, box.right, box.bottom])
    np.testing.assert_allclose(found, [30, 24, 70, 36], atol=1e-4)
    assert masks.sum() == 40 * 12


def test_a_box_beyond_the_edge_is_cut(segmenter, monkeypatch):
    def at_the_edge(inputs, answer):
        answer.logits = torch.full_like(answer.logits, 2.0)
        answer.pred_boxes = torch.tensor([0.0, 1.0, 0.5, 0.5]).expand(answer.pred_boxes.shape)
        return answer

    answer_instead(monkeypatch, segmenter, at_the_edge)
    segmenter.segment(PIXELS, PROMPTS[:1])
    assert segmenter._follower.prompts[0].box == Box(0.0, 45.0, 25.0, 60.0)


def test_what_is_not_seen_is_an_empty_mask_and_asks_nobody(segmenter, monkeypatch):
    def unsure(inputs, answer):
        answer.logits = torch.full_like(answer.logits, -2.0)  # 0.12
        return answer

    answer_instead(monkeypatch, segmenter, unsure)
    assert segmenter.segment(PIXELS, PROMPTS).max() == 0.0
    assert segmenter._follower.prompts == []
