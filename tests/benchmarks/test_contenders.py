from __future__ import annotations

import contextlib
import dataclasses

import pytest
import torch

from benchmarks import contenders
from benchmarks.contenders import base_dtype, ours
from lora_scene.backbones.architectures import find_architecture
from lora_scene.learning import objective
from tests.learning import made


def test_ours_makes_the_trainer_s_own_step_with_the_base_s_prediction(bases, monkeypatch):
    asked = []
    whole = objective.Objective._around
    monkeypatch.setattr(
        objective.Objective,
        "_around",
        lambda self, *args: asked.append(args) or whole(self, *args),
    )
    settings = made.recipe(bases["sd1"], "base.dtype=fp32", name="sd15")
    tiny = find_architecture(bases["sd1"])
    words = tuple({**text, "vocab_size": 1000} for text in tiny.text_encoders)
    architecture = dataclasses.replace(tiny, text_encoders=words)
    step = ours(architecture, settings, phase=2, n_concepts=2, device="cpu")
    step()
    step()
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("device", "has_bf16", "dtype"),
    [("cuda", True, "bfloat16"), ("cuda:1", False, "float16"), ("cpu", False, "bfloat16")],
)
def test_auto_is_what_the_card_takes(device, has_bf16, dtype, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    assert base_dtype(made.recipe("mini", "base.dtype=auto"), device) == getattr(torch, dtype)
    assert base_dtype(made.recipe("mini", "base.dtype=fp32"), device) == torch.float32


def test_low_bit_layers_are_drawn_in_the_dtype_of_the_card_that_they_go_to(monkeypatch):
    """They are filled on the CPU, a layer at a time."""
    asked = []
    monkeypatch.setattr(contenders, "base_dtype", lambda recipe, device: asked.append(device))
    monkeypatch.setattr(contenders, "meta_backbone", lambda *args, **kwargs: 1 / 0)
    settings = made.recipe("mini", "base.quantization=fp8", name="sd15")
    with pytest.raises(ZeroDivisionError):
        ours(find_architecture("sd15"), settings, phase=1, n_concepts=1, device="cuda:1")
    assert asked == ["cuda:1"]
