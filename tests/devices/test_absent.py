"""The device itself: it refuses what a card refuses, and counts what a card is asked for."""

from __future__ import annotations

import pytest
import torch

from tests.devices import mps
from tests.devices.absent import NAME


def test_numbers_are_the_host_s(device):
    a, b = torch.randn(3, 4), torch.randn(4, 2)
    found = a.to(NAME) @ b.to(NAME)
    assert found.device.type == NAME
    assert torch.equal(found.cpu(), a @ b)
    assert (device.kernels, device.uploads, device.waits) == (1, 2, 1)
    assert device.uploaded == 4 * (12 + 8)


def test_gradients_stay_on_the_device(device):
    weight = torch.nn.Parameter(torch.ones(3, device=NAME))
    (weight * weight).sum().backward()
    assert weight.grad.device.type == NAME
    assert weight.grad.tolist() == [2.0, 2.0, 2.0]


def test_two_devices_in_one_operation_are_refused(device):
    with pytest.raises(RuntimeError, match="all tensors on one device"):
        torch.ones(3, device=NAME) + torch.ones(3)


def test_a_number_of_the_host_is_taken_as_a_constant(device):
    assert (torch.ones(2, device=NAME) * torch.tensor(3.0)).tolist() == [3.0, 3.0]


def test_a_generator_of_the_host_is_refused(device):
    with pytest.raises(RuntimeError, match="no generator on absent"):
        torch.randn(3, generator=torch.Generator(), device=NAME)


def test_float64_and_what_mps_lacks_are_found(device):
    with pytest.raises(TypeError, match=r"no torch\.float64"):
        torch.ones(3, device=NAME).double()
    torch.geqrf(torch.eye(2, device=NAME))
    assert mps.lacking(device.operations) == ["aten.geqrf.default"]
    device.operations.clear()


def test_numpy_gets_nothing(device):
    with pytest.raises(TypeError, match=r"use Tensor\.cpu"):
        torch.ones(3, device=NAME).numpy()


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).all()),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.cpu(),
        lambda x: float(x[0]),
        lambda x: torch.equal(x, x + 1),
        lambda x: torch.bincount(x.long()),
        lambda x: torch.unique(x, dim=0),
        lambda x: x.index_put_((x > 0,), x + 1),
    ],
)
def test_asking_for_a_number_is_a_wait(device, ask):
    tensor = torch.ones(3, device=NAME)
    assert device.waits == 0
    ask(tensor)
    assert device.waits == 1


def test_one_number_put_where_a_mask_says_is_none(device):
    tensor = torch.ones(3, device=NAME)
    tensor[tensor > 0] = 2.0
    assert device.waits == 0
    assert tensor.tolist() == [2.0] * 3
