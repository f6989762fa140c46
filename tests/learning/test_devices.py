from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch

from lora_scene.errors import RecipeError
from lora_scene.learning.devices import (
    memory_switches,
    mixed_precision,
    peak_bytes,
    reset_peak,
)
from lora_scene.recipe import load_recipe

CPU = torch.device("cpu")
MPS = torch.device("mps")
SIZE = 400 << 20


@pytest.fixture
def macos(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Pretend to be a Mac with a GPU, as far as accelerate looks; give its version a setter."""

    def pretend(version: int) -> None:
        newer = lambda major, minor: version >= major  # noqa: E731
        monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", newer)

    for name in ("is_available", "is_built"):
        monkeypatch.setattr(torch.backends.mps, name, lambda: True)
    return pretend


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [(torch.float32, "no"), (torch.bfloat16, "bf16"), (torch.float16, "fp16")],
)
def test_a_mac_trains_in_every_dtype(
    macos: Callable[[int], None], dtype: torch.dtype, kind: str
) -> None:
    macos(14)
    found = mixed_precision(dtype, MPS)
    assert (found.device.type, found.mixed_precision) == ("mps", kind)
    assert (found.scaler is not None) == (kind == "fp16")
    with found.autocast():
        assert torch.is_autocast_enabled("mps") == (kind != "no")


def test_an_old_mac_without_bf16_is_told_so(macos: Callable[[int], None]) -> None:
    macos(13)
    with pytest.raises(RecipeError, match=r"mps does not train in bf16(.|\n)*fp32 or fp16"):
        mixed_precision(torch.bfloat16, MPS)


@pytest.mark.parametrize(("batch", "accumulation"), [(4, 2), (64, 8), (256, 256)])
def test_every_switch_that_saves_memory_is_a_setting_that_is_taken(
    batch: int, accumulation: int
) -> None:
    given = [f"run.batch_size={batch}", f"run.accumulation={accumulation}"]
    switches = memory_switches(load_recipe("sdxl", given))
    assert f"run.accumulation={min(batch * accumulation, 256)}" in switches[0]
    for switch in switches:
        load_recipe("sdxl", [*given, *switch.replace("--set ", "").split()])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process reset its peak")
def test_a_peak_is_that_of_a_run_and_not_of_those_before_it() -> None:
    block = bytearray(SIZE)
    before = peak_bytes(CPU)
    del block
    reset_peak(CPU)
    assert peak_bytes(CPU) < before - SIZE // 2


@pytest.mark.parametrize(("name", "chosen"), [("cuda", []), ("cuda:1", [1])])
def test_a_card_needs_no_number(
    monkeypatch: pytest.MonkeyPatch, name: str, chosen: list[int]
) -> None:
    numbers: list[int] = []
    read = torch.cuda._utils._get_device_index  # what set_device reads it with: none is an error
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: numbers.append(read(device)))
    mixed_precision(torch.float32, torch.device(name))
    assert numbers == chosen


def test_an_estimate_leaves_alone_the_precision_that_a_training_has() -> None:
    trains = mixed_precision(torch.bfloat16, CPU)
    estimates = mixed_precision(torch.float16, torch.device("meta"))
    assert (trains.mixed_precision, trains.state.device) == ("bf16", CPU)
    assert estimates.scaler is None
    weight = torch.ones(3, device="meta", requires_grad=True)
    estimates.backward(weight.sum())
    assert weight.grad is not None
