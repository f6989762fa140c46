"""Numbers that are no numbers any more: found before they are kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from lora_scene.errors import NonFiniteLossError

HINT = "lower the learning rates, or take base.dtype=bf16 or fp32"


def refuse_losses(losses: Mapping[str, float], phase: int, step: int) -> None:
    """Stop at a loss that is infinite or not a number.

    Raises:
        NonFiniteLossError: Naming the first such term, the phase, and the step, counted from 1.
    """
    bad = [name for name, value in losses.items() if not math.isfinite(value)]
    if bad:
        raise NonFiniteLossError(
            f"the {bad[0]} loss is not finite", where=f"phase {phase}, step {step}", hint=HINT
        )


def refuse_parameters(parameters: Sequence[nn.Parameter], phase: int, step: int) -> None:
    """Stop before a parameter that is infinite or not a number is kept.

    Raises:
        NonFiniteLossError: Naming the phase, and the step, counted from 1.
    """
    if not all_finite(parameters):
        raise NonFiniteLossError(
            "a trained number is no longer finite", where=f"phase {phase}, step {step}", hint=HINT
        )


def all_finite(parameters: Sequence[nn.Parameter]) -> bool:
    """Tell whether every number of every parameter is finite."""
    return all(bool(torch.isfinite(parameter).all()) for parameter in parameters)
