from __future__ import annotations

import numpy as np
import pytest
import torch

from lora_scene.scenes.mask_prompts import Prompt
from lora_scene.scenes.segmenters.catalog import open_segmenter
from tests.scenes.segmenters.tiny_networks import answer_instead, save_clipseg

PIXELS = np.full((60, 100, 3), 128, np.uint8)
PROMPTS = [Prompt("<a>", "a", words="red bear"), Prompt("<b>", "b", words="bowl")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    return save_clipseg(tmp_path_factory.mktemp("clipseg"))


def test_words_and_pixels_reach_the_network(folder, monkeypatch):
    segmenter = open_segmenter("clipseg", model=str(folder))
    calls = answer_instead(monkeypatch, segmenter, lambda inputs, answer: answer)
    masks = segmenter.segment(PIXELS, PROMPTS)
    assert masks.shape == (2, 60, 100)
    (call,) = calls
    said = [segmenter._tokenizer.decode(ids, skip_special_tokens=True) for ids in call["input_ids"]]
    assert [text.strip() for text in said] == ["red bear", "bowl"]
    assert call["pixel_values"].shape == (2, 3, 352, 352)


def test_heat_becomes_masks_at_photo_size_and_the_hotter_concept_wins(folder, monkeypatch):
    segmenter = open_segmenter("clipseg", model=str(folder))

    def heat(inputs, answer):
        answer.logits = torch.full_like(answer.logits, -5.0)
        answer.logits[0, :, :176] = 3.0
        answer.logits[1, 176:, 88:264] = 5.0  # overlaps the first's left half
        return answer

    answer_instead(monkeypatch, segmenter, heat)
    first, second = segmenter.segment(PIXELS, PROMPTS)
    assert second[34:, 29:71].min() > 0.9
    assert second[:26].max() < 0.1
    assert first[:26, :46].min() > 0.9
    assert first[36:, 30:46].max() < 0.1
    assert first[:, 54:].max() < 0.1


def test_what_is_not_seen_is_an_empty_mask(folder, monkeypatch):
    segmenter = open_segmenter("clipseg", model=str(folder))

    def cold(inputs, answer):
        answer.logits = torch.full_like(answer.logits, -3.0)
        return answer

    answer_instead(monkeypatch, segmenter, cold)
    assert segmenter.segment(PIXELS, PROMPTS).max() == 0.0


def test_one_phrase_alone_works(folder):
    assert open_segmenter("clipseg", model=str(folder)).segment(PIXELS, PROMPTS[:1]).shape[0] == 1
