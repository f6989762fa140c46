"""One training loop for every network of the mini world.

A run is limited by steps or by minutes, averages gradients over ranks (one thread
each: faster on a CPU than one process with many threads), keeps a moving average of the
weights, and resumes from its last checkpoint. Batches are drawn from the step number, so a
resumed run sees what an uninterrupted one would have seen.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import spawn

from benchmarks.mini_world.averaging import Average
from benchmarks.mini_world.checkpoints import (
    flatten_optimizer,
    load_state,
    restore_optimizer,
    save_state,
    under_prefix,
    with_prefix,
)

_LOG_SECONDS = 20

Loss = Callable[[int, float], Tensor]
"""(step, progress in 0..1) -> scalar loss of this rank's batch."""

Stage = Callable[[argparse.Namespace, int, Average | None], None]
"""(options, rank, where the ranks meet) -> one rank's part of a training run."""


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train.

    Attributes:
        folder: where the checkpoint lives.
        lr: highest learning rate.
        minutes: training time, summed over resumed runs; ignored where `steps` is given.
        steps: number of steps, or None to go by the clock.
        warmup_steps: linear warm-up.
        flat_share: share of the run at the highest rate; the rest is a half cosine to zero.
        ema_decay: of the moving average of the weights.
        checkpoint_minutes: between two checkpoints.
        leave_minutes: stop this run (not the plan) after so long; None: run to the end.
        weight_decay: of AdamW.
        clip_norm: of the whole gradient.
    """

    folder: Path
    lr: float
    minutes: float = 10.0
    steps: int | None = None
    warmup_steps: int = 200
    flat_share: float = 0.5
    ema_decay: float = 0.998
    checkpoint_minutes: float = 2.0
    leave_minutes: float | None = None
    weight_decay: float = 1e-3
    clip_norm: float = 1.0


def learning_rate(plan: Plan, step: int, progress: float) -> float:
    """Return the rate of a step: linear warm-up, flat, then a half cosine to zero."""
    warm = min(1.0, (step + 1) / max(1, plan.warmup_steps))
    falling = max(0.0, progress - plan.flat_share) / max(1e-9, 1 - plan.flat_share)
    return plan.lr * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, falling)))


class Trainer:
    """The state of one run: weights, their moving average, optimizer, step, seconds."""

    def __init__(self, module: nn.Module, plan: Plan) -> None:
        self.module = module
        self.plan = plan
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=plan.lr, betas=(0.9, 0.99), weight_decay=plan.weight_decay,
            fused=True,
        )  # fmt: skip
        self.ema = [p.detach().clone() for p in self.parameters]
        self.step = 0
        self.seconds = 0.0

    @property
    def progress(self) -> float:
        """Share of the plan that is done, 0..1."""
        if self.plan.steps is not None:
            return self.step / self.plan.steps
        return self.seconds / (60 * self.plan.minutes)

    def resume(self) -> bool:
        """Load the checkpoint, if there is one; say whether there was."""
        try:
            tensors, facts = load_state(self.plan.folder)
        except FileNotFoundError:
            return False
        with torch.no_grad():
            for number, parameter in enumerate(self.parameters):
                parameter.copy_(tensors[f"weights/{number}"])
                self.ema[number].copy_(tensors[f"ema/{number}"])
        restore_optimizer(self.optimizer, under_prefix("optimizer", tensors))
        self.step, self.seconds = facts["step"], facts["seconds"]
        return True

    def save(self) -> None:
        """Write the checkpoint."""
        tensors = with_prefix("weights", _numbered(self.parameters))
        tensors |= with_prefix("ema", _numbered(self.ema))
        tensors |= with_prefix("optimizer", flatten_optimizer(self.optimizer))
        save_state(self.plan.folder, tensors, {"step": self.step, "seconds": self.seconds})

    def take_step(
        self, loss: Loss, rank: int, signals: tuple[float, float], average: Average | None
    ) -> tuple[float, float, float]:
        """Do one step; return its loss and both signals, each averaged over the ranks.

        Args:
            loss: of this rank's batch.
            rank: this process.
            signals: the progress, 0..1, and whether this rank wants to leave, 0 or 1.
            average: where the ranks meet; None: there is one rank.
        """
        value = loss(self.step, signals[0])
        value.backward()  # type: ignore[no-untyped-call]
        facts = (value.item(), *signals)
        if average is not None:
            facts = self._average(facts, rank, average)
        nn.utils.clip_grad_norm_(self.parameters, self.plan.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.plan, self.step, facts[1])
        self.optimizer.step()
        self.optimizer.zero_grad()
        decay = min(self.plan.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.ema, list[Tensor](self.parameters), 1 - decay)
        self.step += 1
        return facts

    def _average(
        self, facts: tuple[float, float, float], rank: int, average: Average
    ) -> tuple[float, float, float]:
        """Average the gradients, in place, and some facts over the ranks."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        message = torch.cat([g.flatten() for g in gradients] + [torch.tensor(facts)])
        mean = average.mean(rank, self.step, message)
        start = 0
        for gradient in gradients:
            gradient.copy_(mean[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()
        value, progress, leaving = mean[-3:].tolist()
        return value, progress, leaving


def train(
    module: nn.Module,
    loss: Loss,
    plan: Plan,
    *,
    rank: int = 0,
    average: Average | None = None,
    resume: bool = True,
) -> bool:
    """Train `module` in place, ending on its averaged weights; True once the plan is done."""
    trainer = Trainer(module, plan)
    if resume and trainer.resume() and rank == 0:
        print(f"resumed at step {trainer.step}, {trainer.seconds / 60:.1f} min", flush=True)
    started, before = time.monotonic(), trainer.seconds
    saved = logged = started
    shared, seen, leaving = trainer.progress, 0.0, 0.0
    while shared < 1 and not leaving:
        signals = (trainer.progress, float(_is_late(plan, started)))
        value, shared, leaving = trainer.take_step(loss, rank, signals, average)
        now = time.monotonic()
        trainer.seconds = before + now - started
        shared = shared if plan.steps is None else trainer.progress
        seen = value if seen == 0.0 else 0.98 * seen + 0.02 * value
        if rank == 0 and now - logged > _LOG_SECONDS:
            _log(trainer, seen)
            logged = now
        if rank == 0 and now - saved > 60 * plan.checkpoint_minutes:
            trainer.save()
            saved = now
    if rank == 0:
        trainer.save()
    with torch.no_grad():
        for parameter, mean in zip(trainer.parameters, trainer.ema, strict=True):
            parameter.copy_(mean)
    return trainer.progress >= 1


def load_average(module: nn.Module, folder: Path) -> int:
    """Load the averaged weights of a checkpoint into `module`; return its step."""
    tensors, facts = load_state(folder)
    trained = [p for p in module.parameters() if p.requires_grad]
    with torch.no_grad():
        for number, parameter in enumerate(trained):
            parameter.copy_(tensors[f"ema/{number}"])
    return int(facts["step"])


def _is_late(plan: Plan, started: float) -> bool:
    """Say whether this run, not the plan, has used up its time."""
    minutes = (time.monotonic() - started) / 60
    return plan.leave_minutes is not None and minutes > plan.leave_minutes


def _log(trainer: Trainer, loss: float) -> None:
    facts = {
        "step": trainer.step,
        "minutes": round(trainer.seconds / 60, 2),
        "loss": round(loss, 5),
    }
    print(json.dumps(facts), flush=True)


def _numbered(tensors: list[Tensor] | list[nn.Parameter]) -> dict[str, Tensor]:
    return {str(number): tensor.detach() for number, tensor in enumerate(tensors)}


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every training stage shares."""
    parser.add_argument("--cache", type=Path, required=True, help="folder of working data")
    parser.add_argument("--minutes", type=float, default=10.0, help="training time in all")
    parser.add_argument("--leave-minutes", type=float, help="stop this run after so long")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--ranks", type=int, default=1, help="processes on a CPU")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw batches")
    parser.add_argument("--batch", type=int, default=16, help="samples a rank and step")


def launch(stage: Stage, options: argparse.Namespace) -> None:
    """Run `stage(options, rank, average)` in this process, or in one process a rank."""
    if options.ranks == 1:
        stage(options, 0, None)
        return
    average = Average(options.ranks, get_context("spawn"))
    spawn(_enter, args=(stage, options, average), nprocs=options.ranks)  # type: ignore[no-untyped-call]


def _enter(rank: int, stage: Stage, options: argparse.Namespace, average: Average) -> None:
    torch.set_num_threads(1)
    stage(options, rank, average)
