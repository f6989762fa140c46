from __future__ import annotations

import copy
import shutil

import pytest
import torch
from diffusers.models.attention import FeedForward
from torch import nn

from lora_scene.backbones.compiling import compile_blocks
from lora_scene.errors import BackboneError
from tests import tiny


@pytest.mark.filterwarnings("ignore")  # of torch's compiler about itself
def test_a_compiled_layer_has_the_plain_one_s_gradients_and_names():
    plain = nn.ModuleList([FeedForward(16)])
    compiled = copy.deepcopy(plain)
    assert compile_blocks(compiled, device="cpu") == 1
    given = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    for layer in (plain, compiled):
        layer[0](given).square().sum().backward()
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for ours, theirs in zip(compiled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_every_residual_block_and_feed_forward_layer_is_compiled():
    unet = tiny.pipeline("sd1").unet
    blocks = [m for m in unet.modules() if type(m).__name__ in ("ResnetBlock2D", "FeedForward")]
    assert compile_blocks(unet, device="cpu") == len(blocks)
    compiled = [m for m in unet.modules() if m._compiled_call_impl is not None]
    assert compiled == blocks


def test_without_a_compiler_it_says_so(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(BackboneError, match="C\\+\\+ compiler"):
        compile_blocks(nn.ModuleList(), device="cpu")
