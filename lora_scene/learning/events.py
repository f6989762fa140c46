"""What training tells whoever watches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Notice:
    """Something that a person should know, with its consequence."""

    text: str


@dataclass(frozen=True)
class PhaseStarted:
    """A phase begins, or goes on after `first_step` steps.

    Attributes:
        phase: 1 or 2.
        first_step: Steps already done.
        n_steps: Steps in all.
        n_parameters: Numbers that it trains.
        images_per_step: Pictures in each optimizer step, the prior's included.
    """

    phase: int
    first_step: int
    n_steps: int
    n_parameters: int
    images_per_step: int


@dataclass(frozen=True)
class StepDone:
    """An optimizer step is done.

    Attributes:
        phase: 1 or 2.
        step: Steps done in this phase.
        losses: Each term's value, averaged over the accumulated passes.
        seconds: Wall time of the step.
        n_steps: Steps of this phase in all.
        fault: What was not finite, so that the step moved nothing; empty for one that was made.
        norm: Of all gradients together, before they are clipped.
        rates: Learning rates of `rows` and `weights` in this step.
    """

    phase: int
    step: int
    losses: Mapping[str, float]
    seconds: float
    n_steps: int
    fault: str = ""
    norm: float = 0.0
    rates: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Looked:
    """Held draws, which are never trained on, were looked at.

    Attributes:
        phase: 1 or 2.
        step: Steps done in this phase.
        loss: The masked loss, averaged over the masked cells and the draws.
        ious: Each thing's IoU of attention and mask, 0..1, by handle.
        peak_bytes: Peak memory so far: of the device on CUDA, of the process elsewhere.
    """

    phase: int
    step: int
    loss: float
    ious: Mapping[str, float]
    peak_bytes: int


@dataclass(frozen=True)
class Saved:
    """Something was written."""

    what: str
    path: Path


@dataclass(frozen=True)
class PhaseEnded:
    """A phase is done.

    Attributes:
        phase: 1 or 2.
        seconds: Wall time of the steps made in this run.
        peak_bytes: Peak memory so far: of the device on CUDA, of the process elsewhere.
        device_bytes: The device's memory, or 0 where that says nothing.
    """

    phase: int
    seconds: float
    peak_bytes: int
    device_bytes: int


Event = Notice | PhaseStarted | StepDone | Looked | Saved | PhaseEnded
Listener = Callable[[Event], None]
