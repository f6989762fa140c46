"""The loop of a phase: draw, predict, weigh, step; checkpoints and samples on the way."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lora_scene.backbones.backbone import Backbone
from lora_scene.learning.attention import AttentionRecorder
from lora_scene.learning.checkpoints import Checkpoint, save_checkpoint
from lora_scene.learning.devices import device_bytes, mixed_precision, peak_bytes
from lora_scene.learning.draws import draw_sample, dropout_seed, step_generators
from lora_scene.learning.events import Listener, Notice, PhaseEnded, PhaseStarted, Saved, StepDone
from lora_scene.learning.finite import refuse_losses, refuse_parameters
from lora_scene.learning.handles import HandleTable
from lora_scene.learning.latents import EncodedVariant
from lora_scene.learning.lora import RankMask, add_lora, full_parameters, remove_lora
from lora_scene.learning.objective import LossTerms, Objective
from lora_scene.learning.optimizers import (
    averaged,
    build_optimizers,
    rate_factor,
    set_rate_factor,
    step_all,
)
from lora_scene.learning.prior import PriorSet
from lora_scene.learning.runs import CHECKPOINT
from lora_scene.learning.samples import draw_samples, sample_prompts, save_samples
from lora_scene.recipe import Phase, Recipe


@dataclass(frozen=True)
class Materials:
    """What a run learns from, prepared.

    Attributes:
        variants: The photos, encoded.
        prior: The base's own pictures, or None.
        fingerprint: Of recipe, scene and base; checkpoints carry it.
    """

    variants: tuple[EncodedVariant, ...]
    prior: PriorSet | None
    fingerprint: str


class Trainer:
    """Trains handles and weights on a base, phase by phase.

    Args:
        backbone: The base, on its device.
        table: The handles; must be spliced in while a phase runs.
        materials: What is learnt from.
        recipe: Every setting.
        folder: Where checkpoints and samples go.
        listener: Told what happens.

    Attributes:
        steps_done: Optimizer steps of each phase that the parameters have seen.
    """

    def __init__(
        self,
        backbone: Backbone,
        table: HandleTable,
        *,
        materials: Materials,
        recipe: Recipe,
        folder: Path,
        listener: Listener,
    ) -> None:
        self.backbone = backbone
        self.table = table
        self.recipe = recipe
        self.weights: list[nn.Parameter] = []
        self.steps_done = (0, 0)
        self.checkpoint_path = folder / CHECKPOINT
        self._materials = materials
        self._folder = folder
        self._listener = listener
        self._accelerator = mixed_precision(backbone)
        self._optimizers: list[torch.optim.Optimizer] = []

    def run_phase(self, number: int, *, resumed: Checkpoint | None = None) -> None:
        """Run a phase from its beginning, or from a checkpoint inside it.

        Raises:
            NonFiniteLossError: A loss term is not finite, and nothing was changed by that step;
                or a trained number is not, and no checkpoint was written since.
        """
        phase = self.recipe.phases[number - 1]
        self.prepare_weights(number)
        self._optimizers = build_optimizers(
            list(self.table.tables),
            self.weights if phase.trains != "rows" else [],
            self.recipe.optimizer,
            phase=phase,
            notice=lambda text: self._listener(Notice(text)),
        )
        first = 0
        if resumed is not None:
            first = resumed.step
            self._restore(resumed, with_optimizers=True)
        self._announce(number, phase, first)
        begun = time.perf_counter()
        with self._objective(phase) as objective:
            for step in range(first, phase.steps):
                self._sample(number, step, is_due=step == 0 and number == 1)
                self._step(number, step, objective)
                self.steps_done = self._steps_until(number, step + 1)
                self._keep(number, step + 1)
        self._listener(
            PhaseEnded(
                phase=number,
                seconds=time.perf_counter() - begun,
                peak_bytes=peak_bytes(self.backbone.device),
                device_bytes=device_bytes(self.backbone.device),
            )
        )

    def prepare_weights(self, number: int) -> None:
        """Put in place, once, what the phases up to this one train beside the rows."""
        if self.weights:
            return
        kinds = {phase.trains for phase in self.recipe.phases[:number] if phase.steps}
        if "lora" in kinds:
            torch.manual_seed(self.recipe.run.seed)
            self.weights = add_lora(self.backbone, self.recipe.lora)
        elif "full" in kinds:
            self.weights = full_parameters(self.backbone, self.recipe.full)

    def go_back(self, checkpoint: Checkpoint) -> None:
        """Take a checkpoint's numbers; adapters that it does not know yet are taken away."""
        is_phase_before = len(checkpoint.state["parameters"]) < len(self.parameters())
        if is_phase_before:
            remove_lora(self.backbone)
            self.weights, self._optimizers = [], []
        self._restore(checkpoint, with_optimizers=not is_phase_before)

    @torch.no_grad()
    def _restore(self, checkpoint: Checkpoint, *, with_optimizers: bool) -> None:
        """Put a checkpoint's parameters, and if asked its optimizers, back in place."""
        state = checkpoint.state
        self.steps_done = self._steps_until(checkpoint.phase, checkpoint.step)
        for parameter, kept in zip(self.parameters(), state["parameters"], strict=True):
            parameter.copy_(kept)
        if with_optimizers:
            for optimizer, kept in zip(self._optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(kept)
            if self._accelerator.scaler is not None and state["scaler"] is not None:
                self._accelerator.scaler.load_state_dict(state["scaler"])

    def parameters(self) -> list[nn.Parameter]:
        """Return all that the phases so far train: rows, then weights."""
        return [*self.table.tables, *self.weights]

    @contextlib.contextmanager
    def as_delivered(self) -> Iterator[None]:
        """Show the model as it would be saved now: averaged weights, no dropout."""
        with (
            averaged(self._optimizers),
            self.backbone.in_mode(is_training=False),
            self._precision(),
        ):
            yield

    def _precision(self) -> contextlib.AbstractContextManager[None]:
        """Compute in mixed precision once the whole model trains in float32.

        A frozen base computes in its own dtype as it stands.
        """
        is_full = any(phase.trains == "full" and phase.steps for phase in self.recipe.phases)
        if not (is_full and self.weights):
            return contextlib.nullcontext()
        mixed: contextlib.AbstractContextManager[None] = self._accelerator.autocast()
        return mixed

    def _steps_until(self, number: int, step: int) -> tuple[int, int]:
        """Return the steps of each phase that lie behind `step` steps of phase `number`."""
        return (step, 0) if number == 1 else (self.recipe.phase1.steps, step)

    def _announce(self, number: int, phase: Phase, first: int) -> None:
        run, prior = self.recipe.run, self._materials.prior
        trained = [*self.table.tables, *(self.weights if phase.trains != "rows" else [])]
        self._listener(
            PhaseStarted(
                phase=number,
                first_step=first,
                n_steps=phase.steps,
                n_parameters=sum(parameter.numel() for parameter in trained),
                images_per_step=run.batch_size * run.accumulation * (2 if prior else 1),
            )
        )

    @contextlib.contextmanager
    def _objective(self, phase: Phase) -> Iterator[Objective]:
        """Attach what listens to the UNet, for as long as the phase runs."""
        with contextlib.ExitStack() as stack:
            recorder = None
            if phase.attention_weight or phase.pairwise_weight:
                recorder = AttentionRecorder(
                    self.backbone.unet,
                    latent_side=self.backbone.latent_side,
                    side=self.recipe.attention_loss.map_side,
                )
                stack.enter_context(recorder.attached())
            rank_mask = RankMask(self.backbone, self.recipe.lora)
            stack.enter_context(rank_mask.attached())
            stack.enter_context(self.backbone.in_mode(is_training=True))
            yield Objective(
                self.backbone,
                self.table,
                recorder,
                rank_mask=rank_mask,
                recipe=self.recipe,
                phase=phase,
            )

    def _step(self, number: int, step: int, objective: Objective) -> None:
        """Make one optimizer step."""
        begun = time.perf_counter()
        run, phase = self.recipe.run, self.recipe.phases[number - 1]
        set_rate_factor(self._optimizers, rate_factor(phase, step))
        totals: dict[str, float] = {}
        for part in range(run.accumulation):
            terms = self._forward(number, step, part, objective)
            losses = terms.as_floats()
            refuse_losses(losses, number, step + 1)
            for name, value in losses.items():
                totals[name] = totals.get(name, 0.0) + value / run.accumulation
            self._accelerator.backward(terms.total / run.accumulation)
        step_all(
            self._optimizers,
            scaler=self._accelerator.scaler,
            max_norm=self.recipe.optimizer.max_grad_norm,
        )
        for parameter in self.parameters():
            parameter.grad = None
        if self.recipe.handles.norm == "vocabulary":
            self.table.restore_norms()
        self._listener(StepDone(number, step + 1, totals, time.perf_counter() - begun))

    def _forward(self, number: int, step: int, part: int, objective: Objective) -> LossTerms:
        run, phase = self.recipe.run, self.recipe.phases[number - 1]
        again = phase.draws if self.recipe.masked_loss.asks_base else 0
        draw = step % again if again else step
        generators = step_generators(run.seed, number, draw, part)
        samples = [
            draw_sample(
                self._materials.variants,
                self.table.concepts,
                phase=phase,
                handles=self.recipe.handles,
                n_timesteps=self.backbone.n_timesteps,
                generators=generators,
            )
            for _ in range(run.batch_size)
        ]
        torch.manual_seed(dropout_seed(run.seed, number, step, part))
        with self._precision():
            prior = self._materials.prior
            batch = prior.batch(self.backbone, run.batch_size, *generators) if prior else None
            return objective(samples, batch, (draw, part) if again else None)

    def _keep(self, number: int, step: int) -> None:
        """Write checkpoint and samples when they are due."""
        run, phase = self.recipe.run, self.recipe.phases[number - 1]
        every, is_last = run.checkpoint_every, step == phase.steps
        is_due = bool(every) and (is_last or step % every == 0)
        if is_last or is_due:
            refuse_parameters(self.parameters(), number, step)
        if is_due:
            self.save(number, step)
        self._sample(number, step, is_due=bool(run.sample_every) and step % run.sample_every == 0)

    def save(self, number: int, step: int) -> None:
        """Write a checkpoint."""
        scaler = self._accelerator.scaler
        state = {
            "parameters": list(self.parameters()),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "scaler": None if scaler is None else scaler.state_dict(),
        }
        checkpoint = Checkpoint(self._materials.fingerprint, number, step, state)
        save_checkpoint(checkpoint, self.checkpoint_path)
        self._listener(Saved("checkpoint", self.checkpoint_path))

    def _sample(self, number: int, step: int, *, is_due: bool) -> None:
        if not (is_due and self.recipe.run.sample_every):
            return
        done = step + (self.recipe.phase1.steps if number == 2 else 0)
        handles = [concept.handle for concept in self.table.concepts]
        prompts = sample_prompts(self.recipe, handles)
        with self.as_delivered():
            pictures = draw_samples(self.backbone, self.table, prompts, seed=self.recipe.run.seed)
        paths = save_samples(pictures, self._folder, done)
        self._listener(Saved("samples", paths[0].parent))
