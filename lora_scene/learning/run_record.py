"""What a run left in its folder, read back: of a finished run, or of one that goes on."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_scene.adapters.folder import RECIPE
from lora_scene.adapters.gallery import stops_of
from lora_scene.documents import read_text
from lora_scene.errors import LoraSceneError, TrainingError
from lora_scene.forms import build
from lora_scene.learning.asking import is_training
from lora_scene.learning.attention_pictures import MASKS
from lora_scene.learning.run_lines import RunLines
from lora_scene.learning.runs import (
    CHECKPOINT,
    EVENTS,
    HELD,
    LOSSES,
    MAPS,
    SNAPSHOTS,
    SUMMARY,
    Summary,
    read_summary,
)
from lora_scene.ownership import is_ours
from lora_scene.recipe import Recipe, parse_recipe

_SNAPSHOT = re.compile(r"phase([12])-(\d+)")

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Began:
    """What a run is, as it told when it started; empty where it did not."""

    time: str = ""
    scene: str = ""
    handles: tuple[str, ...] = ()
    nouns: tuple[str, ...] = ()
    base: str = ""
    begun: str = ""
    resolution: int = 0
    dtype: str = ""
    device: str = ""
    steps: tuple[int, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunRecord:
    """A run.

    Attributes:
        folder: Where it lies.
        recipe: Every setting; None where the folder holds none, or of another version.
        recipe_toml: The same as text.
        began: What it is, as the latest start told.
        steps: A line a step.
        looks: A line a look at held draws.
        events: What was told, with times.
        summary: `training.json` of a finished run; None before, and where it is made longer.
        samples: Steps over both phases to number to picture.
        maps: Steps over both phases to concept to picture.
        masks: The photos with their masks, or None.
        is_running: Whether a process trains into the folder.
    """

    folder: Path
    recipe: Recipe | None
    recipe_toml: str
    began: Began
    steps: Sequence[Line]
    looks: Sequence[Line]
    events: Sequence[Line]
    summary: Summary | None
    samples: Mapping[int, Mapping[int, Path]]
    maps: Mapping[int, Mapping[int, Path]]
    masks: Path | None
    is_running: bool

    @property
    def name(self) -> str:
        """Return what to call it."""
        return self.folder.absolute().name

    @property
    def handles(self) -> tuple[str, ...]:
        """Return its handles, as far as it has told them."""
        return self.began.handles or (self.summary.handles if self.summary else ())

    @property
    def n_wanted(self) -> int:
        """Return how many steps it was to have; 0 where nothing tells."""
        phases = self.recipe.phases if self.recipe else ()
        return sum(self.began.steps) or sum(phase.steps for phase in phases)

    @property
    def n_first(self) -> int:
        """Return how many steps phase 1 had."""
        return max((line["step"] for line in self.steps if line["phase"] == 1), default=0)

    @property
    def notices(self) -> list[str]:
        """Return what a person should know, each once."""
        told = [line.get("text") for line in self.events if line["event"] == "Notice"]
        return list(dict.fromkeys(map(str, told)))

    def place(self, line: Line) -> int:
        """Return a line's steps over both phases."""
        return int(line["step"]) + (self.n_first if line["phase"] == 2 else 0)


def read_run(folder: Path | str) -> RunRecord:
    """Read what a run left.

    Raises:
        TrainingError: The folder holds no run, or a record of it is damaged.
    """
    folder = Path(folder)
    known = (LOSSES, SUMMARY, EVENTS, CHECKPOINT)
    if not any((folder / name).is_file() for name in known):
        raise TrainingError(
            "no run in this folder",
            where=folder,
            expected=f"what `lora-scene train` writes, such as {LOSSES}",
            hint="give the --out of a training",
        )
    text, recipe = _read_recipe(folder / RECIPE)
    events = RunLines(folder / EVENTS).events()
    began, steps = _began(events, folder / EVENTS), RunLines(folder / LOSSES).lines()
    return RunRecord(
        folder=folder,
        recipe=recipe,
        recipe_toml=text,
        began=began,
        steps=steps,
        looks=RunLines(folder / HELD).lines(),
        events=events,
        summary=_of_the_last(read_summary(folder), began, steps),
        samples=_ours(stops_of(folder)),
        maps=maps_of(folder),
        masks=path if is_ours(path := folder / MASKS) else None,
        is_running=is_training(folder),
    )


def maps_of(folder: Path) -> dict[int, dict[int, Path]]:
    """Return where handles looked, pictures: steps over both phases to concept to path."""
    return _ours(stops_of(folder, MAPS, ".jpg"))


def snapshots_of(folder: Path) -> dict[int, Path]:
    """Return the adapters kept along phase 2: steps of that phase to folder, in order."""
    found = {}
    for path in (folder / SNAPSHOTS).glob("phase2-*"):
        match = _SNAPSHOT.fullmatch(path.name)
        if match is not None and path.is_dir():
            found[int(match[2])] = path
    return dict(sorted(found.items()))


def seconds_between(first: str, last: str) -> float:
    """Return the seconds between two times as a run's log writes them."""
    ends = [datetime.datetime.fromisoformat(text) for text in (first, last)]
    return (ends[1] - ends[0]).total_seconds()


def _read_recipe(path: Path) -> tuple[str, Recipe | None]:
    if not path.is_file():
        return "", None
    try:
        text = read_text(path, TrainingError)
        return text, parse_recipe(text)
    except LoraSceneError:  # of another version: shown as it is
        return path.read_text("utf-8", "replace"), None


def _began(events: Sequence[Line], path: Path) -> Began:
    problems: list[LoraSceneError] = []
    starts = [line for line in events if line["event"] == "Began"] or [{}]
    place = f"{path}: "
    found = build(
        Began, starts[-1], problems, error=TrainingError, where=place, ignores_unknown=True
    )
    if problems or found is None:
        raise TrainingError.collect(problems, f"{path} is damaged")
    return found


def _of_the_last(found: Summary | None, began: Began, steps: Sequence[Line]) -> Summary | None:
    """Return a finished run's record; None where the run has been taken up again since.

    Its latest start told of another length, or steps were made beyond those of the record.
    """
    if found is None or (found.wanted and began.steps and found.wanted != began.steps):
        return None
    last = steps[-1] if steps else {"phase": 1, "step": 0}
    made = found.steps[last["phase"] - 1 :][:1]
    return None if made and last["step"] > made[0] else found


def _ours(stops: Mapping[int, Mapping[int, Path]]) -> dict[int, dict[int, Path]]:
    """Return the pictures that are as they were drawn."""
    kept = {step: {n: p for n, p in own.items() if is_ours(p)} for step, own in stops.items()}
    return {step: own for step, own in sorted(kept.items()) if own}
