from __future__ import annotations

import numpy as np
import pytest
import torch

from lora_scene.scenes.mask_prompts import Prompt
from lora_scene.scenes.segmenters.catalog import open_segmenter
from tests.scenes.segmenters.tiny_networks import answer_instead, save_sam3

PIXELS = np.full((60, 100, 3), 128, np.uint8)
PROMPTS = [Prompt("<a>", "a", words="red bear"), Prompt("<b>", "b", words="bowl")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    return save_sam3(tmp_path_factory.mktemp("sam3"))


def second_query(presence: float):
    def change(inputs, answer):
        answer.pred_logits = torch.full_like(answer.pred_logits, -9.0)
        answer.pred_logits[0, 1] = 3.0
        answer.presence_logits = torch.full_like(answer.presence_logits, presence)
        answer.pred_masks = torch.full_like(answer.pred_masks, -9.0)
        n_rows = answer.pred_masks.shape[-2]
        answer.pred_masks[0, 1, : n_rows // 2] = 9.0
        return answer

    return change


def test_words_reach_the_network_and_the_photo_is_encoded_once(folder, monkeypatch):
    segmenter = open_segmenter("sam3", model=str(folder))
    encoded = []
    encode = segmenter._network.get_vision_features
    monkeypatch.setattr(
        segmenter._network,
        "get_vision_features",
        lambda pixel_values: (encoded.append(pixel_values.shape), encode(pixel_values))[1],
    )
    calls = answer_instead(monkeypatch, segmenter, lambda inputs, answer: answer)
    assert segmenter.segment(PIXELS, PROMPTS).shape == (2, 60, 100)
    assert encoded == [(1, 3, 56, 56)]
    decode = segmenter._tokenizer.decode
    said = [decode(call["input_ids"][0], skip_special_tokens=True).strip() for call in calls]
    assert said == ["red bear", "bowl"]


def test_the_surest_instance_comes_back_at_photo_size(folder, monkeypatch):
    segmenter = open_segmenter("sam3", model=str(folder))
    answer_instead(monkeypatch, segmenter, second_query(presence=4.0))
    (mask,) = segmenter.segment(PIXELS, PROMPTS[:1])
    assert mask[:26].min() > 0.9
    assert mask[34:].max() < 0.1


def test_an_absent_concept_is_an_empty_mask(folder, monkeypatch):
    segmenter = open_segmenter("sam3", model=str(folder))
    answer_instead(monkeypatch, segmenter, second_query(presence=-4.0))
    assert segmenter.segment(PIXELS, PROMPTS).max() == 0.0
