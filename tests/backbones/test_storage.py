from __future__ import annotations

import copy
import logging
import weakref

import pytest
import torch
from torch import nn

from lora_scene.backbones.loading import load_pipeline
from lora_scene.backbones.storage import (
    StoredConv2d,
    StoredLinear,
    check_storage,
    packed_bytes,
    store,
)
from lora_scene.errors import BackboneError
from tests import tiny


def gradient(unet: nn.Module, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a prediction and the gradient that reaches the text."""
    noise = torch.Generator().manual_seed(seed)
    text = torch.randn(1, 24, 32, generator=noise).requires_grad_()
    z_t = torch.randn(1, 4, 16, 16, generator=noise)
    prediction = unet(z_t, torch.tensor([400]), text).sample
    prediction.square().mean().backward()
    assert text.grad is not None
    return prediction.detach(), text.grad


@pytest.fixture
def unet() -> nn.Module:
    return tiny.pipeline("sd2").unet.requires_grad_(False).train()


def test_float8_layers_compute_just_what_their_restored_weights_would(unet):
    plain = copy.deepcopy(unet)
    store(unet, "fp8", device="cpu")
    stored = {n: m for n, m in unet.named_modules() if isinstance(m, StoredLinear | StoredConv2d)}
    assert any(isinstance(layer, StoredConv2d) for layer in stored.values())
    for name, layer in stored.items():
        plain.get_submodule(name).weight.data = layer.weight
    for ours, theirs in zip(gradient(unet), gradient(plain), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("quantization", "limit"), [("int8", 0.012), ("fp8", 0.035)])
def test_float16_loses_no_row_of_small_weights(quantization, limit):
    """Peaks of rows from 0.1 down to 0.0001; the limits are what 8 bits lose of any row."""
    model = nn.ModuleDict({"mid_block": nn.Linear(64, 4, bias=False).half()})
    noise = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    sizes = torch.tensor([[1e-1], [1e-2], [1e-3], [1e-4]])
    weight = model["mid_block"].weight.data.copy_(sizes * noise / noise.abs().amax(1, True)).float()
    store(model, quantization, device="cpu")
    for row, exact in enumerate(weight):
        x = torch.zeros(1, 64, dtype=torch.float16, requires_grad=True)
        (model["mid_block"](x)[0, row] * 1024).backward()  # as scaled as gradients are in float16
        assert x.grad is not None
        error = float((x.grad.float() / 1024 - exact).norm() / exact.norm())
        assert error < limit, (row, error)


@pytest.mark.parametrize("quantization", ["nf4", "int8", "fp8"])
def test_checkpointing_changes_nothing_on_a_low_bit_base(unet, quantization):
    store(unet, quantization, device="cpu")
    before = gradient(unet)
    unet.enable_gradient_checkpointing()
    for ours, theirs in zip(gradient(unet), before, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_int8_layers_compute_what_bitsandbytes_own_do(caplog):
    from bitsandbytes import nn as bnb

    torch.manual_seed(0)
    layer, x = nn.Linear(64, 32), torch.randn(2, 5, 64)
    theirs = bnb.Linear8bitLt(64, 32, has_fp16_weights=False)
    theirs.load_state_dict(layer.state_dict())
    model = nn.ModuleDict({"mid_block": layer})
    store(model, "int8", device="cpu")
    results = []
    for made in (model["mid_block"], theirs.to("cpu")):
        given = x.clone().requires_grad_()
        out = made(given)
        out.square().sum().backward()
        results.append((out.detach(), given.grad))
    torch.testing.assert_close(results[0], results[1])
    for _ in range(2):  # as it does on a GPU, in every product
        logging.getLogger("bitsandbytes.autograd._functions").warning("will be cast from %s", 32)
    assert len(caplog.messages) <= 1


@pytest.mark.parametrize("quantization", ["nf4", "int8", "fp8"])
def test_a_low_bit_layer_keeps_no_input_that_checkpointing_could_not_free(quantization):
    model = nn.ModuleDict({"mid_block": nn.Linear(64, 64)})
    store(model, quantization, device="cpu")
    x = torch.randn(4, 64, requires_grad=True) * 2
    seen = weakref.ref(x)
    out = model["mid_block"](x)
    del x
    assert seen() is None
    out.sum().backward()


@pytest.mark.parametrize("n_out", [64, 40])
def test_a_drawing_before_a_step_leaves_nf4_its_gradient_and_values(monkeypatch, n_out):
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    model = nn.ModuleDict({"mid_block": nn.Linear(64, n_out)})
    store(model, "nf4", device="cpu")
    layer, x = model["mid_block"].eval(), torch.randn(3, 64)
    given = x.clone().requires_grad_()
    trained = layer(given)
    with torch.no_grad():
        drawn = layer(x)
    (expected,) = torch.autograd.grad(trained.sum(), given)
    torch.testing.assert_close(drawn, trained.detach())
    torch.testing.assert_close(torch.autograd.grad(layer(given).sum(), given)[0], expected)


@pytest.mark.parametrize(("quantization", "limit"), [("int8", 0.02), ("fp8", 0.2), ("nf4", 0.4)])
def test_low_bit_bases_stay_close_to_the_plain_one(unet, quantization, limit):
    """The limits are loose: on tiny random weights an error is not averaged out."""
    plain, _ = gradient(unet)
    store(unet, quantization, device="cpu")
    low, _ = gradient(unet)
    error = float((low - plain).norm() / plain.norm())
    assert 0 < error < limit, error


def test_what_lies_outside_the_blocks_keeps_its_bits(unet):
    store(unet, "fp8", device="cpu")
    assert type(unet.conv_in) is nn.Conv2d
    assert type(unet.time_embedding.linear_1) is nn.Linear


def test_a_stored_weight_takes_a_quarter_and_survives_a_change_of_dtype(unet):
    layer = nn.Linear(64, 32)
    stored = StoredLinear(layer)
    before = stored.weight
    stored.to(torch.bfloat16)
    assert stored.stored.dtype == torch.uint8
    assert stored.stored.numel() * 4 == layer.weight.numel() * layer.weight.element_size()
    torch.testing.assert_close(stored.weight, before, rtol=0.01, atol=0)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_the_bytes_of_a_packed_layer_are_those_that_bitsandbytes_takes(quantization):
    model = nn.ModuleDict({"mid_block": nn.Linear(512, 1024, bias=False)})
    expected = packed_bytes(model["mid_block"], quantization)
    store(model, quantization, device="cpu")
    layer = model["mid_block"]
    tensors = [layer.weight]
    if quantization == "nf4":
        state = layer.weight.quant_state
        tensors += [state.absmax, state.state2.absmax]
    else:
        tensors.append(layer.weight.SCB)
    found = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert found == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("quantization", ["nf4", "int8", "fp8"])
def test_a_device_that_cannot_hold_a_kind_is_told_before_the_base_is_read(quantization):
    check_storage(quantization, "cpu")
    with pytest.raises(BackboneError, match=rf"cannot compute with {quantization} weights"):
        load_pipeline("mini", device="meta", quantization=quantization)
