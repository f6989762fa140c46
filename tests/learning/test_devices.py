from __future__ import annotations

import sys

import pytest
import torch

from lora_scene.learning.devices import peak_bytes, reset_peak

CPU = torch.device("cpu")
SIZE = 400 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process reset its peak")
def test_a_peak_is_that_of_a_run_and_not_of_those_before_it() -> None:
    block = bytearray(SIZE)
    before = peak_bytes(CPU)
    del block
    reset_peak(CPU)
    assert peak_bytes(CPU) < before - SIZE // 2
