"""Optimizers by name, from well-kept libraries.

The handles' rows, a few kilobytes, always have AdamW in 32 bits and no weight decay; the named
optimizer serves the adapters or weights.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lora_scene.errors import RecipeError
from lora_scene.extras import optional
from lora_scene.learning.flat_weights import flat_optimizer
from lora_scene.recipe import Optimizer, Phase

LIBRARIES = {"prodigy": "prodigyopt", "schedulefree": "schedulefree"}

Notice = Callable[[str], None]


def build_optimizers(
    rows: Sequence[nn.Parameter],
    weights: Sequence[nn.Parameter],
    settings: Optimizer,
    *,
    phase: Phase,
    notice: Notice,
) -> list[torch.optim.Optimizer]:
    """Build the optimizer of the rows and, if weights are trained, theirs.

    Args:
        rows: The handles' tables.
        weights: Adapters or weights; may be empty.
        settings: Name and constants.
        phase: Its learning rates.
        notice: Called with a sentence when another optimizer has to be taken.

    Raises:
        RecipeError: The library of the named one is not installed.
    """
    optimizers: list[torch.optim.Optimizer] = []
    if phase.rows_lr:
        optimizers.append(torch.optim.AdamW(rows, lr=phase.rows_lr, weight_decay=0.0))
    if weights:
        optimizers.append(_weights_optimizer(weights, settings, phase.weights_lr, notice))
    return optimizers


def rate_factor(phase: Phase, step: int) -> float:
    """Return the learning rate at a step, from 0, over the first: 1 down to `end_fraction`."""
    if phase.schedule == "constant" or phase.steps < 2:
        return 1.0
    done = step / (phase.steps - 1)
    left = 0.5 * (1 + math.cos(math.pi * done)) if phase.schedule == "cosine" else 1 - done
    return phase.end_fraction + (1 - phase.end_fraction) * left


def rates_at(phase: Phase, step: int) -> dict[str, float]:
    """Return the rates of a step, by what they move: rows, weights; those that move nothing not."""
    factor = rate_factor(phase, step)
    rates = {"rows": phase.rows_lr * factor, "weights": phase.weights_lr * factor}
    return {name: rate for name, rate in rates.items() if rate}


def set_rate_factor(optimizers: Sequence[torch.optim.Optimizer], factor: float) -> None:
    """Scale every group's first learning rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            first = group.setdefault("first_lr", group["lr"])
            group["lr"] = first * factor


def clip_gradients(
    optimizers: Sequence[torch.optim.Optimizer], *, scaler: Any, max_norm: float
) -> Tensor:
    """Unscale the gradients of what the optimizers train, and clip them together.

    Args:
        optimizers: One or several; parameters that none of them has do not count.
        scaler: The float16 gradient scaler, or None.
        max_norm: Of all gradients together; 0 clips nothing.

    Returns:
        Their norm before, a scalar; not finite if any number of them is not.
    """
    if scaler is not None:
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    trained = [parameter for group in groups for parameter in group["params"]]
    return torch.nn.utils.clip_grad_norm_(trained, max_norm or math.inf)


def step_all(optimizers: Sequence[torch.optim.Optimizer], *, scaler: Any, is_finite: bool) -> None:
    """Let every optimizer step, or none of them where anything is not finite.

    The scaler would let each step whose own gradients are finite; but these were clipped together,
    so that one's overflow is in all. It is updated once, after all.
    """
    for optimizer in optimizers if is_finite else ():
        optimizer.step()
    if scaler is not None:
        scaler.update()


@contextlib.contextmanager
def averaged(optimizers: Sequence[Any]) -> Iterator[None]:
    """Put a schedule-free optimizer's averaged weights in place, and back; others have none."""
    free = [optimizer for optimizer in optimizers if hasattr(optimizer, "eval")]
    groups = [group for optimizer in free for group in optimizer.param_groups]
    weights = [weight for group in groups for weight in group["params"]]
    kept = [weight.detach().clone() for weight in weights]  # the way back is not exact
    for optimizer in free:
        optimizer.eval()
    try:
        yield
    finally:
        for optimizer in free:
            optimizer.train()
        for weight, value in zip(weights, kept, strict=True):
            weight.data.copy_(value)


def settle(optimizers: Sequence[Any]) -> None:
    """Leave a schedule-free optimizer's averaged weights in place: its phase is over."""
    for optimizer in optimizers:
        if hasattr(optimizer, "eval"):
            optimizer.eval()


def _weights_optimizer(
    weights: Sequence[nn.Parameter], settings: Optimizer, lr: float, notice: Notice
) -> torch.optim.Optimizer:
    common: dict[str, Any] = {"lr": lr, "weight_decay": settings.weight_decay}
    if settings.name in ("adamw8bit", "pagedadamw8bit", "lion8bit"):
        made = _eight_bit(weights, settings, common, notice)
        if made is not None:
            return made
    if settings.name == "adafactor":
        from transformers import Adafactor

        adafactor: torch.optim.Optimizer = Adafactor(
            weights, relative_step=False, scale_parameter=False, **common
        )
        return adafactor
    if settings.name == "prodigy":
        prodigy: type[torch.optim.Optimizer] = optimizer_library(settings.name).Prodigy
        with contextlib.redirect_stdout(None):  # it prints its kind of weight decay
            return flat_optimizer(prodigy, weights, **common)
    if settings.name == "schedulefree":
        library = optimizer_library(settings.name)
        free: Callable[..., torch.optim.Optimizer] = library.AdamWScheduleFree
        optimizer = free(weights, **common)
        optimizer.train()  # type: ignore[attr-defined]
        return optimizer
    is_fused = weights[0].device.type in ("cpu", "cuda")
    return torch.optim.AdamW(weights, fused=is_fused, **common)


def _eight_bit(
    weights: Sequence[nn.Parameter], settings: Optimizer, common: dict[str, Any], notice: Notice
) -> torch.optim.Optimizer | None:
    """Return bitsandbytes' optimizer on flat weights, or None, said aloud, where there is none."""
    device = weights[0].device.type
    try:
        import bitsandbytes as bnb
    except (ImportError, OSError, RuntimeError) as error:
        notice(f"bitsandbytes does not load ({error}); AdamW with 32-bit state takes its place")
        return None
    if device not in ("cuda", "cpu", "xpu"):
        notice(f"bitsandbytes does not run on {device}; AdamW with 32-bit state takes its place")
        return None
    constants = {**common, "min_8bit_size": 0}  # a flat tensor of few numbers too
    kind = bnb.optim.AdamW8bit
    if settings.name == "lion8bit":
        kind = bnb.optim.Lion8bit
    elif settings.name == "pagedadamw8bit" and device == "cuda":
        kind = bnb.optim.PagedAdamW8bit
    elif settings.name == "pagedadamw8bit":
        notice(f"paged memory needs CUDA; unpaged AdamW8bit takes its place on {device}")
    return flat_optimizer(kind, weights, **constants)


def optimizer_library(name: str) -> Any:
    """Return the library of an optimizer that is in none of those always installed, else None.

    Raises:
        RecipeError: It is not installed.
    """
    if name not in LIBRARIES:
        return None
    instead = "optimizer.name=adamw8bit"
    where = f"optimizer.name={name}"
    return optional(LIBRARIES[name], error=RecipeError, where=where, instead=instead)
