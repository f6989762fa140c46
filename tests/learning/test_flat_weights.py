from __future__ import annotations

import functools

import bitsandbytes as bnb
import pytest
import torch
from prodigyopt import Prodigy
from torch import nn

from lora_scene.learning import flat_weights
from lora_scene.learning.flat_weights import BLOCK, blocks, flat_optimizer, flatten

SHAPES = ((3, 5), (16, 40), (40, 16), (257,), (2, 3, 3, 3), (7, 300))


def weights(seed: int = 0) -> list[nn.Parameter]:
    noise = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=noise)) for shape in SHAPES]


def descend(optimizer, parameters, steps, *, first=0):
    """Step down a loss whose gradients differ in size from weight to weight by thousands."""
    for step in range(first, first + steps):
        noise = torch.Generator().manual_seed(step)
        loss = sum(
            (10.0**-k * parameter * torch.randn(parameter.shape, generator=noise)).sum()
            for k, parameter in enumerate(parameters)
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("kind", [bnb.optim.AdamW8bit, bnb.optim.Lion8bit])
@pytest.mark.parametrize("largest", [2**24, 1000])
def test_flat_steps_are_those_tensor_by_tensor_bit_for_bit(kind, largest, monkeypatch):
    monkeypatch.setattr(flat_weights, "LARGEST", largest)
    apart, flat = weights(), weights()
    settings = {"lr": 1e-2, "weight_decay": 0.1, "min_8bit_size": 0}
    descend(kind(apart, **settings), apart, 5)
    descend(flat_optimizer(kind, flat, **settings), flat, 5)
    for ours, theirs, first in zip(flat, apart, weights(), strict=True):
        assert torch.equal(ours, theirs)
        assert not torch.equal(ours, first)


def test_prodigy_over_flat_tensors_is_prodigy():
    """But for the order in which it sums; its rate comes from two sums over all weights."""
    apart, flat = weights(), weights()
    settings = {"lr": 1.0, "weight_decay": 0.01}
    both = (Prodigy(apart, **settings), apart), (flat_optimizer(Prodigy, flat, **settings), flat)
    rates = []
    for optimizer, parameters in both:
        for _ in range(40):
            sum(10.0**-k * p.square().sum() for k, p in enumerate(parameters)).backward()
            optimizer.step()
            optimizer.zero_grad()
        rates.append(optimizer.param_groups[0]["d"])
    assert rates[1] == pytest.approx(rates[0], rel=1e-4)
    assert rates[0] > 100 * optimizer.param_groups[0]["d0"], "it has found a rate"
    for ours, theirs in zip(flat, apart, strict=True):
        torch.testing.assert_close(ours.data, theirs.data, rtol=1e-3, atol=1e-4)


def test_weights_are_views_of_few_tensors_and_keep_their_values():
    kept, parameters = weights(), weights()
    (flat,) = flatten(parameters)
    assert flat.numel() == BLOCK * sum(-(-parameter.numel() // 256) for parameter in kept)
    for ours, value in zip(parameters, kept, strict=True):
        assert torch.equal(ours, value)
        assert ours.untyped_storage().data_ptr() == flat.untyped_storage().data_ptr()
        assert ours.storage_offset() % BLOCK == 0
    flat.data.fill_(2.0)
    assert all(bool((parameter == 2.0).all()) for parameter in parameters)


def test_a_weight_larger_than_a_flat_tensor_has_one_alone(monkeypatch):
    monkeypatch.setattr(flat_weights, "LARGEST", 600)
    sizes = [flat.numel() for flat in flatten(weights())]
    assert sizes == [256 * n for n in (1, 3, 3, 2 + 1, 9)]


@pytest.mark.parametrize(("n", "expected"), [(1, 1), (256, 1), (257, 2), (512, 2)])
def test_a_weight_fills_whole_blocks(n, expected):
    assert blocks(n) == expected


def test_even_the_smallest_weight_has_8_bit_state():
    parameters = weights()
    optimizer = flat_optimizer(bnb.optim.AdamW8bit, parameters, lr=1e-3, min_8bit_size=0)
    descend(optimizer, parameters, 1)
    (state,) = optimizer.state.values()
    assert state["state1"].dtype == state["state2"].dtype == torch.uint8


@pytest.mark.parametrize("kind", [bnb.optim.AdamW8bit, bnb.optim.Lion8bit])
def test_a_step_waits_once_and_not_once_a_weight(kind, monkeypatch):
    """bitsandbytes waits for the device in `sync_gpu`, after each tensor that it steps."""
    waits = []
    monkeypatch.setattr(bnb.optim.optimizer, "sync_gpu", waits.append)
    for build, expected in ((kind, len(SHAPES)), (functools.partial(flat_optimizer, kind), 1)):
        waits.clear()
        parameters = weights()
        descend(build(parameters, lr=1e-3, min_8bit_size=0), parameters, 1)
        assert len(waits) == expected


def test_state_goes_on_bit_for_bit():
    whole, halved = weights(), weights()
    settings = {"lr": 1e-2, "min_8bit_size": 0}
    descend(flat_optimizer(bnb.optim.AdamW8bit, whole, **settings), whole, 4)
    first = flat_optimizer(bnb.optim.AdamW8bit, halved, **settings)
    descend(first, halved, 2)
    state = first.state_dict()
    resumed = [nn.Parameter(parameter.detach().clone()) for parameter in halved]
    second = flat_optimizer(bnb.optim.AdamW8bit, resumed, **settings)
    second.load_state_dict(state)
    descend(second, resumed, 2, first=2)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(resumed, whole, strict=True))


def test_a_gradient_that_was_set_aside_is_not_silently_lost():
    parameters = weights()
    optimizer = flat_optimizer(bnb.optim.AdamW8bit, parameters, lr=1e-3, min_8bit_size=0)
    parameters[2].grad = None
    with pytest.raises(RuntimeError, match="cleared by zero_grad alone"):
        optimizer.step()
