"""The loop of a phase: step after step; what is told, kept and drawn on the way."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from lora_scene.adapters.gallery import has_samples, sample_prompts, save_samples, write_sheet
from lora_scene.backbones.backbone import Backbone
from lora_scene.errors import InterruptedRunError
from lora_scene.learning.checkpoints import Checkpoint, put_back, save_checkpoint
from lora_scene.learning.devices import device_bytes, mixed_precision, peak_bytes
from lora_scene.learning.events import Listener, Notice, PhaseEnded, PhaseStarted, Saved, StepDone
from lora_scene.learning.handle_table import HandleTable
from lora_scene.learning.interruption import Interruption
from lora_scene.learning.lora import remove_lora, trained_weights
from lora_scene.learning.optimizers import averaged, build_optimizers, rates_at, settle
from lora_scene.learning.run_lines import RunLines
from lora_scene.learning.runs import CHECKPOINT, LOSSES
from lora_scene.learning.samples import draw_samples, is_sampled
from lora_scene.learning.skips import Skips
from lora_scene.learning.step import (
    Materials,
    Stepper,
    StepResult,
    precision,
    refuse_not_finite,
)
from lora_scene.recipe import Phase

Watch = Callable[["Trainer", int, int], str]  # of phase and step; returns why the run ends, or ""


class Trainer:
    """Trains handles and weights on a base, phase by phase.

    Args:
        backbone: The base, on its device.
        table: The handles; must be spliced in while a phase runs.
        materials: What is learnt from, and how.
        folder: Where checkpoints and samples go.
        listener: Told what happens.
        interruption: Looked at after each step.
        before: Called before a phase's first step; may end it.
        after: Called after every step; may end the phase early.

    Attributes:
        steps_done: Optimizer steps of each phase that lie behind, skipped ones included.
        skips: Steps that moved nothing, because something was not finite.
        ended: Why the run ended before its last step; empty where it did not.
    """

    def __init__(
        self,
        backbone: Backbone,
        table: HandleTable,
        *,
        materials: Materials,
        folder: Path,
        listener: Listener,
        interruption: Interruption | None = None,
        before: Watch | None = None,
        after: Watch | None = None,
    ) -> None:
        self.backbone = backbone
        self.table = table
        self.recipe = materials.recipe
        self.weights: list[nn.Parameter] = []
        self.steps_done = (0, 0)
        self.skips = Skips()
        self.ended = ""
        self.materials = materials
        self.checkpoint_path = folder / CHECKPOINT
        self._before, self._after = before, after
        self._folder = folder
        self._listener = listener
        self._interruption = interruption or Interruption()
        self._log = RunLines(folder / LOSSES)
        self._accelerator = mixed_precision(backbone.dtype, backbone.device)
        self._optimizers: list[torch.optim.Optimizer] = []

    def run_phase(self, number: int, *, resumed: Checkpoint | None = None) -> None:
        """Run a phase from its beginning, or from a checkpoint inside it.

        Raises:
            NonFiniteLossError: Something is not finite, and nothing was changed by that step; in
                float16 it came to that in many steps, one after the other.
            InterruptedRunError: It was asked to stop, and a checkpoint is saved.
            CheckpointError: `resumed` does not fit what is trained.
        """
        phase = self.recipe.phases[number - 1]
        stepper = self.stepper(number)
        first = resumed.step if resumed else 0
        if resumed is not None:
            self._restore(resumed)
        self._log.cut(number, first)
        self._announce(number, phase, first)
        begun = time.perf_counter()
        with stepper.attached(), self._interruption.waiting():
            self.sample(number, first)
            self.ended = self._before(self, number, first) if self._before else ""
            for step in range(first, phase.steps):
                if self.ended:
                    break
                started = time.perf_counter()
                result = stepper(step)
                self._count(result.fault, number, step + 1)
                seconds = time.perf_counter() - started
                done = self._told(number, step, result, seconds)
                self._listener(done)
                self._log.add(done)
                self.steps_done = self._steps_until(number, step + 1)
                self._keep(number, step + 1)
                if self._after is not None:
                    self.ended = self._after(self, number, step + 1)
            if self.ended and not self.recipe.is_full:
                self.save(number, self.steps_done[number - 1])
        settle(self._optimizers)
        self._listener(
            PhaseEnded(
                phase=number,
                seconds=time.perf_counter() - begun,
                peak_bytes=peak_bytes(self.backbone.device),
                device_bytes=device_bytes(self.backbone.device),
            )
        )

    def _told(self, number: int, step: int, result: StepResult, seconds: float) -> StepDone:
        phase = self.recipe.phases[number - 1]
        return StepDone(
            phase=number,
            step=step + 1,
            losses=result.losses,
            seconds=seconds,
            n_steps=phase.steps,
            fault=result.fault,
            norm=result.norm,
            rates=rates_at(phase, step),
        )

    def stepper(self, number: int) -> Stepper:
        """Put in place what a phase trains, and its optimizers; freeze what it does not train."""
        phase = self.recipe.phases[number - 1]
        self.prepare_weights(number)
        moved = self.weights if phase.trains != "rows" else []
        for parameter in self.weights:
            parameter.requires_grad_(bool(moved))
        self.table.requires_grad_(bool(phase.rows_lr))
        self._optimizers = build_optimizers(
            list(self.table.tables),
            moved,
            self.recipe.optimizer,
            phase=phase,
            notice=lambda text: self._listener(Notice(text)),
        )
        return Stepper(
            self.backbone,
            self.table,
            materials=self.materials,
            number=number,
            optimizers=self._optimizers,
            accelerator=self._accelerator,
        )

    def prepare_weights(self, number: int) -> None:
        """Put in place, once, what the phases up to this one train beside the rows."""
        self.weights = self.weights or trained_weights(self.backbone, self.recipe, number)

    def go_back(self, checkpoint: Checkpoint) -> None:
        """Take a checkpoint's numbers; adapters that it does not know yet are taken away."""
        if len(checkpoint.state["parameters"]) < len(self.parameters()):  # of the phase before
            remove_lora(self.backbone)
            self.weights, self._optimizers = [], []
        self._restore(checkpoint)

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Put a checkpoint's numbers, and those of the optimizers that there are, in place."""
        skipped = put_back(
            checkpoint,
            self.checkpoint_path,
            parameters=self.parameters(),
            counts=self.table.n_gradients,
            optimizers=self._optimizers,
            scaler=self._accelerator.scaler,
        )
        self.skips = Skips(*skipped)
        self.steps_done = self._steps_until(checkpoint.phase, checkpoint.step)

    def parameters(self) -> list[nn.Parameter]:
        """Return all that the phases so far train: rows, then weights."""
        return [*self.table.tables, *self.weights]

    @contextlib.contextmanager
    def as_delivered(self) -> Iterator[None]:
        """Show the model as it would be saved now: averaged weights, no dropout."""
        with (
            averaged(self._optimizers),
            self.backbone.in_mode(is_training=False),
            precision(self.backbone, self.recipe),
        ):
            yield

    def _steps_until(self, number: int, step: int) -> tuple[int, int]:
        """Return the steps of each phase that lie behind `step` steps of phase `number`."""
        return (step, 0) if number == 1 else (self.recipe.phase1.steps, step)

    def _announce(self, number: int, phase: Phase, first: int) -> None:
        run = self.recipe.run
        is_beside = self.materials.prior is not None and phase.trains != "rows"
        self._listener(
            PhaseStarted(
                phase=number,
                first_step=first,
                n_steps=phase.steps,
                n_parameters=sum(p.numel() for p in self.parameters() if p.requires_grad),
                images_per_step=run.batch_size * run.accumulation * (1 + is_beside),
            )
        )

    def _count(self, fault: str, number: int, step: int) -> None:
        """Count a step that was skipped, tell it, or stop at it; see `Skips.add`."""
        where = f"phase {number}, step {step}"
        if text := self.skips.add(fault, where=where, scaler=self._accelerator.scaler):
            self._listener(Notice(text))

    def _keep(self, number: int, step: int) -> None:
        """Write checkpoint and samples when they are due."""
        self._interruption.obey()
        run, phase = self.recipe.run, self.recipe.phases[number - 1]
        every, is_last = run.checkpoint_every, step == phase.steps
        is_due = bool(every) and (is_last or step % every == 0)
        if is_last or is_due:
            refuse_not_finite(self.parameters(), number, step)
        if is_due or self._interruption.number:
            self.save(number, step)
        if self._interruption.number:
            raise InterruptedRunError(
                self._interruption.number,
                f"stopped after step {step} of phase {number}; a checkpoint is saved",
                hint="the same command again goes on there",
            )
        self.sample(number, step)

    def save(self, number: int, step: int) -> None:
        """Write a checkpoint."""
        scaler = self._accelerator.scaler
        state = {
            "parameters": list(self.parameters()),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "scaler": None if scaler is None else scaler.state_dict(),
            "n_gradients": list(self.table.n_gradients),
            "n_skipped": [self.skips.n, self.skips.in_a_row],
            "n_steps": [phase.steps for phase in self.recipe.phases],
        }
        checkpoint = Checkpoint(self.materials.fingerprint, number, step, state)
        save_checkpoint(checkpoint, self.checkpoint_path)
        self._listener(Saved("checkpoint", self.checkpoint_path))

    def sample(
        self, number: int, step: int, *, is_asked: bool = False, is_last: bool = False
    ) -> None:
        """Draw the pictures that are due after so many steps, unless a run before drew them.

        Raises:
            SceneError: A prompt, which the recipe did not promise, would be cut.
        """
        every, is_end = self.recipe.run.sample_every, self.recipe.is_over(number, step)
        is_stop = is_sampled(self.recipe, number, step)
        done = sum(self._steps_until(number, step))
        prompts = sample_prompts(self.recipe, [concept.handle for concept in self.table.concepts])
        if not (is_asked or is_stop):
            return
        if not every:
            self.table.refuse_cut(prompts, "run.sample_prompts")
        if not has_samples(self._folder, done, prompts):
            size = self.materials.variants[0].latents.times(self.backbone.vae_factor)
            seed = self.recipe.run.seed
            with self.as_delivered():
                pictures = draw_samples(self.backbone, self.table, prompts, size=size, seed=seed)
            save_samples(pictures, prompts, self._folder, done)
        sheet = write_sheet(self._folder, delivered=done if is_end or is_last else None)
        self._listener(Saved("samples", sheet or self._folder))
