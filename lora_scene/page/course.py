"""What a training's folder tells of it, while it runs and afterwards."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lora_scene.adapters.gallery import prompt_in, stops_of
from lora_scene.learning.run_lines import RunLines
from lora_scene.learning.run_record import maps_of
from lora_scene.learning.runs import LOSSES, SUMMARY
from lora_scene.page.desk import Work
from lora_scene.page.trainings import LOG, Order, order_of
from lora_scene.scenes.manifest import read_manifest

State = Literal["none", "waiting", "running", "paused", "finished", "failed"]
LATEST = 40  # steps whose mean time tells what is left
# Exit codes: 128 + SIGINT, SIGTERM or Windows' SIGBREAK; the signal itself; how Windows ends one.
INTERRUPTED = (130, 143, 149, -2, -15, 15, 0xC000013A)

_STYLES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes:
        state: What it does.
        phase: 1 or 2; 0 before the first step.
        step: Steps done in this phase.
        done: Share of all steps that are done, 0..1.
        seconds_left: Of all phases; None before it can be told.
        losses: A line a step, as the run keeps them.
        notes: What the run said that a person should know.
        error: What stopped it, in the command line's words.
    """

    state: State
    phase: int = 0
    step: int = 0
    done: float = 0.0
    seconds_left: float | None = None
    losses: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    error: str = ""


def progress_of(work: Work) -> Progress:
    """Read how far a work's training is."""
    order = order_of(work)
    if order is None:
        return Progress("finished" if (work.adapter / SUMMARY).is_file() else "none")
    if order.waits:
        return Progress("waiting")
    losses = tuple(RunLines(work.adapter / LOSSES).lines())
    notes, error = _said(work.folder / LOG)
    state = _state(work, order, error)
    if not losses:
        return Progress(state, notes=notes, error=error)
    phase, step = int(losses[-1]["phase"]), int(losses[-1]["step"])
    before, total = sum(order.steps[: phase - 1]), max(sum(order.steps), 1)
    recent = [float(line["seconds"]) for line in losses[-LATEST:] if line["phase"] == phase]
    left = (total - before - step) * sum(recent) / len(recent)
    done = 1.0 if state == "finished" else min((before + step) / total, 1.0)
    return Progress(state, phase, step, done, left, losses, notes, error)


def latest_maps(work: Work) -> list[tuple[Path, str]]:
    """Return where each handle looks, as of the last look: a picture over the photo, the handle."""
    stops = maps_of(work.adapter)
    last = stops[max(stops)] if stops else {}
    concepts = read_manifest(work.scene).concepts if last else ()
    return [(path, concepts[k].handle) for k, path in last.items() if k < len(concepts)]


def first_and_last_samples(work: Work) -> dict[str, list[tuple[Path, str]]]:
    """Return the pictures before the first step and the latest ones, with their prompts."""
    stops = stops_of(work.adapter)
    shown = sorted({min(stops), max(stops)}) if stops else []
    told = {step: f"After {step} steps" if step else "Before the first step" for step in shown}
    return {
        told[step]: [(path, prompt_in(path)) for _, path in sorted(stops[step].items())]
        for step in shown
    }


def _state(work: Work, order: Order, error: str) -> State:
    if order.runs:
        return "running"
    if order.code == 0 or (order.code is None and (work.adapter / SUMMARY).is_file()):
        return "finished"
    if order.code in INTERRUPTED or (order.code is None and not error):
        return "paused"
    return "failed"


def _said(path: Path) -> tuple[tuple[str, ...], str]:
    """Return the notes and the last error of a log."""
    try:
        text = _STYLES.sub("", path.read_text("utf-8", errors="replace"))
    except OSError:
        return (), ""
    notes = [
        line.partition(": ")[2]
        for line in text.splitlines()
        if line.startswith(("note: ", "warning: "))
    ]
    _, mark, error = text.rpartition("error: ")
    return tuple(dict.fromkeys(notes)), error.strip() if mark else ""
