"""Gradients in 16 bits are compared step by step with float32's, over all that a phase trains."""

from __future__ import annotations

import pytest
import torch

from benchmarks.gradients import cosines, gradients

HANDLES, WIDTH = 3, 128  # of the demo scene; of the embedded base's text encoder
FACTORS = 149_792 - HANDLES * WIDTH  # docs/quality.md counts them with three handles' rows


@pytest.fixture(scope="module")
def exact() -> dict[str, list[torch.Tensor]]:
    return gradients("fp32", "cpu", 1)


def test_every_number_that_a_phase_trains_is_there(exact: dict[str, list[torch.Tensor]]) -> None:
    assert [part.numel() for part in exact["rows"]] == [HANDLES * WIDTH]
    assert [part.numel() for part in exact["factors"]] == [FACTORS]


def test_float32_turns_nothing_and_16_bits_a_little(exact: dict[str, list[torch.Tensor]]) -> None:
    again = gradients("fp32", "cpu", 1)
    for name, (gradient,) in exact.items():
        torch.testing.assert_close(again[name][0], gradient, rtol=0, atol=0)
    ((dtype, found),) = cosines("cpu", 1).items()
    assert (dtype, found["steps"]) == ("bf16", 1)
    # 8 bits of mantissa: an error of 2**-9 in each of some hundred operations in turn
    for name in ("rows", "factors"):
        assert 0.95 < found[f"{name}_least"] <= found[name] < 1
