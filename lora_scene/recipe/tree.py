"""A recipe: its sections together."""

from __future__ import annotations

from dataclasses import dataclass

from lora_scene.recipe.settings import (
    AttentionLoss,
    Base,
    Full,
    Handles,
    Lora,
    MaskedLoss,
    Optimizer,
    Phase,
    Run,
)
from lora_scene.recipe.shown import Augment, Grounds, Prior


@dataclass(frozen=True)
class Recipe:
    """Every setting of a run."""

    name: str = "paper"
    description: str = ""
    base: Base = Base()
    handles: Handles = Handles()
    lora: Lora = Lora()
    full: Full = Full()
    masked_loss: MaskedLoss = MaskedLoss()
    attention_loss: AttentionLoss = AttentionLoss()
    prior: Prior = Prior()
    grounds: Grounds = Grounds()
    augment: Augment = Augment()
    phase1: Phase = Phase()
    phase2: Phase = Phase(trains="lora", rows_lr=1e-4, weights_lr=1e-4)
    optimizer: Optimizer = Optimizer()
    run: Run = Run()

    @property
    def phases(self) -> tuple[Phase, Phase]:
        """Return both phases, in order."""
        return (self.phase1, self.phase2)

    def is_over(self, number: int, step: int) -> bool:
        """Tell whether nothing is left to train after so many steps of phase `number`, 1 or 2."""
        later = self.phases[number:]
        return step == self.phases[number - 1].steps and not any(p.steps for p in later)

    def draws_of(self, phase: Phase) -> int:
        """Return the steps after which a phase's draws come again; 0 where each draws anew."""
        return phase.draws if self.masked_loss.asks_base else 0

    def ground_share(self, phase: Phase) -> float:
        """Return the least fraction of a phase's samples on grounds, by its timesteps' density.

        It is 0 where that hangs on what is far.
        """
        if self.grounds.far:
            return 0.0
        below = self.grounds.noise_from
        least = {"uniform": below, "noisy": below**2, "clean": 1 - (1 - below) ** 2}
        return self.grounds.prob * (1 - least[phase.timesteps])

    @property
    def has_prior(self) -> bool:
        """Tell whether pictures of the prior move anything.

        They do not where rows alone are trained, and none of its prompts has a handle.
        """
        has_weights = any(phase.trains != "rows" for phase in self.phases if phase.steps)
        has_handle = any("<" in prompt for prompt in self.prior.prompts)
        return self.prior.weight > 0 and (has_weights or has_handle)

    @property
    def is_full(self) -> bool:
        """Tell whether a phase moves the base's own weights."""
        return any(phase.trains == "full" and phase.steps for phase in self.phases)
