"""When a run has stopped moving: what held draws say no longer gets better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lora_scene.recipe import Recipe

LEAST_GAIN = 0.01  # of the held loss, relatively, and of the IoU: less is no move


def has_no_news(looks: Sequence[Mapping[str, Any]], recipe: Recipe) -> bool:
    """Tell whether a recipe's patience is at an end, by the looks so far: phase 2 alone has one."""
    patience = recipe.run.patience
    return bool(patience) and is_idle([one for one in looks if one["phase"] == 2], patience)


def is_idle(looks: Sequence[Mapping[str, Any]], patience: int) -> bool:
    """Tell whether neither held loss nor attention moved in the last `patience` steps."""
    seen = [line for line in looks if line.get("loss") is not None]  # as where it was no number
    losses = [(line["step"], line["loss"]) for line in seen]
    fits = [(line["step"], _mean(line.get("ious", {}))) for line in seen]
    return has_stalled(losses, patience, is_loss=True) and has_stalled(fits, patience)


def has_stalled(values: list[tuple[int, float]], patience: int, *, is_loss: bool = False) -> bool:
    """Tell whether the best of the last `patience` steps is no better than the best before.

    Args:
        values: (step, value) in order.
        patience: Steps.
        is_loss: Whether less is better, by a share of the value; else more, by a difference.
    """
    last = values[-1][0] if values else 0
    before = [value for step, value in values if step <= last - patience]
    since = [value for step, value in values if step > last - patience]
    if not before or not since:
        return False
    if is_loss:
        return min(since) > min(before) * (1 - LEAST_GAIN)
    return max(since) < max(before) + LEAST_GAIN


def _mean(ious: Mapping[str, float]) -> float:
    return sum(ious.values()) / len(ious) if ious else 0.0
