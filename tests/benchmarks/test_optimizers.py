"""What optimizers keep is counted as their kinds keep it, whatever the machine's speed."""

from __future__ import annotations

import pytest

from benchmarks.optimizers import factor_shapes, measure

SHAPES = [(16, 320), (16, 8), (10, 30)]  # 5120, 128 and 300 numbers: 20, 1 and 2 blocks of 256
BLOCKS = 20 + 1 + 2
TABLES = 2 * 256 * 4  # bitsandbytes' signed and unsigned, which all tensors share
STEP = 4  # torch counts a tensor's steps in 32 bits


@pytest.fixture(scope="module")
def found() -> dict[str, int]:
    return {line["optimizer"]: line["state_bytes"] for line in measure(SHAPES, "cpu", 2)}


def test_states_are_two_numbers_each_in_their_bits(found: dict[str, int]) -> None:
    n = sum(rows * columns for rows, columns in SHAPES)
    assert found["AdamW, 32 bits, fused"] == 8 * n + STEP * len(SHAPES)
    flat = found["bitsandbytes, flat (ours)"] - TABLES
    assert flat == 2 * BLOCKS * (256 + 4)  # a scale a block
    apart = found["bitsandbytes, a tensor at a time"] - TABLES
    assert apart == 2 * 20 * (256 + 4) + 8 * (128 + 300)  # small ones in 32 bits


def test_the_factors_are_those_of_the_recipe() -> None:
    """Stable Diffusion 1.5 has 16 blocks, each with two attentions of four projections."""
    shapes = factor_shapes("sd15")
    assert len(shapes) == 2 * 4 * 2 * 16
    assert {min(shape) for shape in shapes} == {16}
