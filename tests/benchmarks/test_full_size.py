"""The rehearsal's tokenizer, and its bases at a fifth of their width."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from benchmarks import full_size
from benchmarks.contenders import small
from benchmarks.full_size import N_TOKENS, build_full_size, clip_tokenizer
from lora_scene.backbones.architectures import ARCHITECTURES
from tests import tiny

needs_merges = pytest.mark.skipif(
    importlib.util.find_spec("open_clip") is None, reason="open_clip_torch has CLIP's merges"
)


@needs_merges
def test_the_tokenizer_is_clips():
    tokenizer = clip_tokenizer()
    assert len(tokenizer) == N_TOKENS
    published = [49406, 320, 1125, 539, 320, 2368, 49407]  # "a photo of a cat", in CLIP's own ids
    assert tokenizer("a photo of a cat").input_ids == published


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_a_base_is_made_in_its_dtype_and_never_in_a_wider_one(name, monkeypatch):
    monkeypatch.setattr(full_size, "ARCHITECTURES", {name: small(ARCHITECTURES[name])})
    monkeypatch.setattr(full_size, "clip_tokenizer", lambda pad="": tiny.tokenizer())
    made, register = set(), torch.nn.Module.register_parameter

    def watched(self, name, parameter):
        made.add(None if parameter is None else parameter.dtype)
        register(self, name, parameter)

    monkeypatch.setattr(torch.nn.Module, "register_parameter", watched)
    pipeline = build_full_size(name, dtype=torch.float16)
    assert made - {None} == {torch.float16}
    assert {p.dtype for p in pipeline.unet.parameters()} == {torch.float16}
    assert all(bool(p.isfinite().all()) for p in pipeline.unet.parameters())
    assert torch.get_default_dtype() == torch.float32
