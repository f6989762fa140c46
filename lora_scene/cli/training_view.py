"""Shows a training run: bars with losses, speed and time left; JSON lines for scripts."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Iterator, Mapping

import click
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lora_scene.cli.progress import Lines
from lora_scene.cli.terminal import console, note
from lora_scene.learning.devices import NEARLY_FULL
from lora_scene.learning.events import (
    Event,
    Notice,
    PhaseEnded,
    PhaseStarted,
    Saved,
    StepDone,
)

PHASES = {1: "phase 1", 2: "phase 2"}
SHOWN_LOSSES = ("diffusion", "attention", "prior")
MOMENTUM = 0.95  # of the shown averages: single steps jump with the timestep


class TrainingView:
    """Renders events on stderr: as bars on a terminal, as a line now and then elsewhere.

    Args:
        is_quiet: Whether only notes are shown.
    """

    def __init__(self, *, is_quiet: bool = False) -> None:
        self._is_quiet = is_quiet
        self._console = console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.fields[losses]}"),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=is_quiet or not self._console.is_terminal,
        )
        self._lines = Lines()
        self._n_steps = 0
        self._task: TaskID | None = None
        self._images_per_step = 1
        self._averages: dict[str, float] = {}

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bars while the run lasts."""
        with self._progress:
            yield

    def __call__(self, event: Event) -> None:
        """Show one event."""
        match event:
            case Notice(text):
                self._note(text)
            case _ if self._is_quiet:
                pass
            case PhaseStarted():
                self._start(event)
            case StepDone():
                self._step(event)
            case PhaseEnded():
                self._end(event)
            case Saved(what, path) if what != "checkpoint":
                self._say(f"saved {what}: {path}")
            case _:
                pass

    def _start(self, event: PhaseStarted) -> None:
        self._images_per_step = event.images_per_step
        self._averages = {}
        self._lines = Lines(first=event.first_step)
        self._n_steps = event.n_steps
        if event.first_step:
            self._say(f"resuming phase {event.phase} after step {event.first_step}")
        self._say(f"phase {event.phase} trains {event.n_parameters:,} parameters")
        self._task = self._progress.add_task(
            PHASES[event.phase],
            total=event.n_steps,
            completed=event.first_step,
            losses="",
            speed="",
        )

    def _step(self, event: StepDone) -> None:
        assert self._task is not None
        for name, value in {**event.losses, "seconds": event.seconds}.items():
            old = self._averages.get(name, value)
            self._averages[name] = MOMENTUM * old + (1 - MOMENTUM) * value
        losses = [
            f"{name[:4]} {self._averages[name]:.2f}"
            for name in SHOWN_LOSSES
            if self._averages[name]
        ]
        speed = f"{self._images_per_step / self._averages['seconds']:.1f} img/s"
        told = "  ".join(losses)
        self._progress.update(self._task, completed=event.step, losses=told, speed=speed)
        if not self._console.is_terminal:
            head = f"{_now()}{PHASES[event.phase]}: step {event.step}/{self._n_steps}"
            told = f"{head}  {told}  {speed}"
            self._lines.tell(lambda left: f"{told}  {left}", event.step, self._n_steps)

    def _end(self, event: PhaseEnded) -> None:
        where = "device" if event.device_bytes else "process"
        peak = f"{event.peak_bytes / 1e9:.2f} GB"
        self._say(
            f"phase {event.phase} took {event.seconds:.0f} s; peak memory of the {where} {peak}"
        )
        if event.device_bytes and event.peak_bytes > NEARLY_FULL * event.device_bytes:
            self._note(
                "the device is nearly full; drivers then swap to the host's memory and slow down "
                "manyfold. See --set base.gradient_checkpointing=true"
            )

    def _say(self, text: str) -> None:
        self._console.print(text if self._console.is_terminal else f"{_now()}{text}")

    def _note(self, text: str) -> None:
        note(text, on=self._console)


def _now() -> str:
    """Return the time, for the lines of a log."""
    return datetime.datetime.now().strftime("%H:%M:%S  ")


def echo_json(event: Event) -> None:
    """Write an event as one JSON line on stdout."""
    fields = {
        name: dict(value) if isinstance(value, Mapping) else value
        for name, value in vars(event).items()
    }
    click.echo(json.dumps({"event": type(event).__name__, **fields}, default=str))
