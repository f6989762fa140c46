"""One step of a phase: draw, predict, weigh, push back, move.

draws -> Objective -> backward, for each accumulated pass -> clip -> every optimizer, or none
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lora_scene.backbones.backbone import Backbone
from lora_scene.errors import NonFiniteLossError
from lora_scene.learning.attention import AttentionRecorder, read_level
from lora_scene.learning.draws import Sample, draw_batch, dropout_seed, step_generators
from lora_scene.learning.grounds import GroundSet
from lora_scene.learning.handle_table import HandleTable
from lora_scene.learning.latents import EncodedVariant
from lora_scene.learning.objective import LOSSES, LossTerms, Objective
from lora_scene.learning.optimizers import clip_gradients, rate_factor, set_rate_factor, step_all
from lora_scene.learning.prior import PriorSet
from lora_scene.recipe import Recipe

HINT = "lower the learning rates, or take base.dtype=bf16 or fp32"


@dataclass(frozen=True)
class Materials:
    """What a run learns from, prepared, and how.

    Attributes:
        variants: The photos, encoded.
        prior: The base's own pictures, or None.
        recipe: Every setting.
        fingerprint: Of recipe, scene and base; checkpoints carry it.
        held: The photos as they are, encoded, of the draws that are never trained on.
        grounds: That the base drew, or None.
        colours: How far each thing's colours are from those that the base expects, by handle, where
            that was seen; see `Grounds.far`.
    """

    variants: tuple[EncodedVariant, ...]
    prior: PriorSet | None
    recipe: Recipe
    fingerprint: str
    held: tuple[EncodedVariant, ...] = ()
    grounds: GroundSet | None = None
    colours: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StepResult:
    """What came of a step.

    Attributes:
        losses: Each term's value, averaged over the accumulated passes.
        fault: What was not finite, so that nothing was moved; empty for a step that was made.
        norm: Of all gradients together, before they were clipped.
    """

    losses: Mapping[str, float]
    fault: str
    norm: float


class Stepper:
    """Makes the steps of one phase.

    Args:
        backbone: The base, with all in place that the phase trains.
        table: The handles, spliced in.
        materials: What is learnt from, and how.
        number: 1 or 2, of the phase.
        optimizers: Of the rows and the weights.
        accelerator: Mixed precision, with its gradient scaler; see `mixed_precision`.

    Attributes:
        phase: Its settings.
    """

    def __init__(
        self,
        backbone: Backbone,
        table: HandleTable,
        *,
        materials: Materials,
        number: int,
        optimizers: Sequence[torch.optim.Optimizer],
        accelerator: Any,
    ) -> None:
        self.phase = materials.recipe.phases[number - 1]
        self._backbone = backbone
        self._table = table
        self._materials = materials
        self._number = number
        self._optimizers = optimizers
        self._accelerator = accelerator
        self._objective: Objective | None = None

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Attach what listens to the UNet; switch dropout on."""
        backbone, recipe = self._backbone, self._materials.recipe
        with contextlib.ExitStack() as stack:
            recorder = None
            if self.phase.attention_weight or self.phase.pairwise_weight:
                recorder = AttentionRecorder(backbone.unet, level=read_level(backbone, recipe))
                stack.enter_context(recorder.attached())
            stack.enter_context(backbone.in_mode(is_training=True))
            self._objective = Objective(
                backbone,
                self._table,
                recorder,
                recipe=recipe,
                phase=self.phase,
                has_grounds=self._materials.grounds is not None,
            )
            yield

    def __call__(self, step: int) -> StepResult:
        """Make a step, counted from 0; where anything is not finite, move nothing at all."""
        recipe, scaler = self._materials.recipe, self._accelerator.scaler
        set_rate_factor(self._optimizers, rate_factor(self.phase, step))
        terms = self.gradients(step)
        limit = recipe.optimizer.max_grad_norm
        norm = clip_gradients(self._optimizers, scaler=scaler, max_norm=limit)
        *values, length = torch.cat([terms, norm[None].to(terms)]).tolist()  # the step's one wait
        losses = dict(zip(LOSSES, values, strict=True))
        bad = [f"the {name} loss" for name, value in losses.items() if not math.isfinite(value)]
        bad += [] if math.isfinite(length) else ["a gradient"]
        step_all(self._optimizers, scaler=scaler, is_finite=not bad)
        if not bad:
            self._table.count_gradients()
            if recipe.handles.norm == "vocabulary":
                self._table.restore_norms()
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        return StepResult(losses, bad[0] if bad else "", length)

    def gradients(self, step: int) -> Tensor:
        """Run a step's passes, forward and backward; return the losses (5,), averaged over them."""
        parts = self._materials.recipe.run.accumulation
        values = []
        for part in range(parts):
            terms = self._forward(step, part)
            values.append(terms.stacked())
            self._accelerator.backward(terms.total / parts)
        return torch.stack(values).mean(dim=0)

    def _forward(self, step: int, part: int) -> LossTerms:
        assert self._objective is not None, "a stepper works while it is attached"
        recipe, prior = self._materials.recipe, self._materials.prior
        again = recipe.draws_of(self.phase)
        draw = step % again if again else step
        generators = step_generators(recipe.run.seed, self._number, draw, part)
        samples = self._draw(generators)
        torch.manual_seed(dropout_seed(recipe.run.seed, self._number, step, part))
        with precision(self._backbone, recipe):
            batch = None
            if prior is not None and not self._is_prior_idle(prior):
                size = samples[0].variant.latents
                batch = prior.batch(self._backbone, recipe.run.batch_size, size, generators)
            return self._objective(samples, batch, (draw, part) if again else None)

    def _draw(self, generators: tuple[np.random.Generator, torch.Generator]) -> list[Sample]:
        recipe, grounds, concepts = (
            self._materials.recipe,
            self._materials.grounds,
            self._table.concepts,
        )
        n_timesteps = self._backbone.n_timesteps
        samples = draw_batch(
            recipe.run.batch_size,
            self._materials.variants,
            concepts=concepts,
            phase=self.phase,
            handles=recipe.handles,
            n_timesteps=n_timesteps,
            generators=generators,
        )
        if grounds is None:
            return samples
        return grounds.under(samples, concepts, n_timesteps=n_timesteps, rng=generators[0])

    def _is_prior_idle(self, prior: PriorSet) -> bool:
        """Tell whether the prior's pictures move nothing: rows train alone, unread there."""
        read = " ".join(prior.prompts).casefold()
        is_read = any(concept.handle.casefold() in read for concept in self._table.concepts)
        return self.phase.trains == "rows" and not is_read


def precision(backbone: Backbone, recipe: Recipe) -> contextlib.AbstractContextManager[Any]:
    """Compute in mixed precision once the model's own weights train in float32.

    A frozen base computes in its own dtype as it stands; the meta device has no mixed precision.
    """
    kind, weights = backbone.device.type, backbone.unet.parameters()
    is_mixed = recipe.is_full and any(weight.dtype != backbone.dtype for weight in weights)
    if not (is_mixed and torch.amp.is_autocast_available(kind)):
        return contextlib.nullcontext()
    return torch.autocast(kind, backbone.dtype)


def refuse_not_finite(parameters: Sequence[Tensor], number: int, step: int) -> None:
    """Refuse to keep what is no longer a number.

    Raises:
        NonFiniteLossError: A trained number is not finite.
    """
    if not all_finite(parameters):
        where = f"phase {number}, step {step}"
        raise NonFiniteLossError("a trained number is no longer finite", where=where, hint=HINT)


def all_finite(parameters: Sequence[Tensor]) -> bool:
    """Tell whether every number of every parameter is finite; a device is waited for once."""
    found = [torch.isfinite(parameter).all() for parameter in parameters]
    return not found or bool(torch.stack(found).all())
