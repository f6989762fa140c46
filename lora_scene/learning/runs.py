"""A run's folder: whose it is, whether it is finished, where it can go on.

out/
├── pytorch_lora_weights.safetensors, embeddings/   the adapter
├── recipe.toml                                     every setting of the run
├── training.json                                   written with the adapter: the run is finished
├── losses.jsonl, held.jsonl                        a line a step, a line a look at held draws
├── run.jsonl, run.html                             what was told, with times; all of it as a page
├── samples/, maps/                                 pictures and attention on the way
├── snapshots/                                      adapters kept on the way
├── pipeline/                                       the whole model, where it was fine-tuned
└── checkpoint/                                     where to go on, once finished with more steps
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_scene.adapters.adapter import Adapter
from lora_scene.adapters.folder import RECIPE, read_adapter
from lora_scene.adapters.gallery import FOLDER as SAMPLES
from lora_scene.adapters.whole_model import FULL_MODEL, whole_model
from lora_scene.documents import parse_json, read_text
from lora_scene.errors import CheckpointError, LoraSceneError, TrainingError
from lora_scene.forms import build
from lora_scene.learning.checkpoints import (
    Checkpoint,
    load_checkpoint,
    newest_checkpoint,
    what_is_left,
)
from lora_scene.learning.lineage import BESIDE, HOW
from lora_scene.learning.patience import has_no_news
from lora_scene.learning.run_lines import RunLines
from lora_scene.ownership import is_ours, metadata_of
from lora_scene.recipe import Recipe, dump_recipe, flat_settings
from lora_scene.scenes.scene import Scene

SUMMARY = "training.json"
LOSSES = "losses.jsonl"
HELD = "held.jsonl"
EVENTS = "run.jsonl"
PAGE = "run.html"
MAPS = "maps"
SNAPSHOTS = "snapshots"
CHECKPOINT = Path("checkpoint") / "state.safetensors"
PRIOR, GROUNDS, COLOURS = "prior.safetensors", "grounds.safetensors", "colours.json"
DRAWN = (PRIOR, GROUNDS, COLOURS)  # beside it: what came of the base before the first step
ASKED, PATIENCE = "asked", "patience"  # why a run ended before its last step
RESTARTED = "restarted"  # key of a `training.json` whose run was discarded: another is under way
LAST_GOOD = "last_good"
FOLDERS = (str(CHECKPOINT.parent), LAST_GOOD, SAMPLES, MAPS, SNAPSHOTS, FULL_MODEL)


@dataclass(frozen=True)
class TrainingResult:
    """A finished run.

    Attributes:
        adapter: What was learnt.
        folder: Where it lies.
        seconds: Wall time, loading included; of an earlier run if nothing was left to do.
        peak_bytes: Peak memory, of the device on CUDA, of the process elsewhere.
        n_trained: Numbers that were trained: rows, and adapters or the base's own weights.
        unlearnt: Handles of which some row never had a gradient: they are as they began.
        n_skipped: Steps that moved nothing, because something in them was not finite.
        ended: Why it ended before its last step: `ASKED`, `PATIENCE`, or empty where it did not.
    """

    adapter: Adapter
    folder: Path
    seconds: float
    peak_bytes: int
    n_trained: int
    unlearnt: tuple[str, ...] = ()
    n_skipped: int = 0
    ended: str = ""

    @property
    def learnt(self) -> tuple[str, ...]:
        """Return the handles whose rows were learnt."""
        return tuple(h for h in self.adapter.handles if h not in self.unlearnt)


@dataclass(frozen=True)
class Summary:
    """What `training.json` holds."""

    fingerprint: str
    seconds: float
    peak_bytes: int
    n_trained: int
    handles: tuple[str, ...]
    steps: tuple[int, ...] = ()
    unlearnt: tuple[str, ...] = ()
    n_skipped: int = 0
    ended: str = ""
    wanted: tuple[int, ...] = ()
    scene: str = ""
    colours: Mapping[str, float] = field(default_factory=dict)


def kept_lineage(out: Path) -> str:
    """Return the lineage of the run that a folder holds, as it tells; nothing of none."""
    with suppress(TrainingError):
        if (found := read_summary(out)) is not None:
            return found.fingerprint
    kept = newest_checkpoint(out / CHECKPOINT)
    return str(metadata_of(kept).get("fingerprint", "")) if kept else ""


def finished(out: Path, mine: str, recipe: Recipe) -> TrainingResult | None:
    """Return the result that `out` holds, if it is this run's; None if there is more to do.

    Args:
        out: A run's folder.
        mine: This run's; see `lineages`.
        recipe: Every setting.

    Raises:
        AdapterError: Its adapter is missing or damaged.
        TrainingError: It is another run's, or a longer one's, or damaged.
    """
    found, anew = read_summary(out), "take another --out, or pass --restart to discard it"
    if found is None:
        return None
    if found.fingerprint != mine:
        raise _other_run(TrainingError, out, recipe)
    done, wanted = found.steps[-1] if found.steps else 0, recipe.phase2.steps
    if done > wanted:
        raise TrainingError(
            "the folder holds a longer run", where=out, expected=wanted, got=done, hint=anew
        )
    if done < wanted and not _ends_as_before(found, out, recipe):
        if newest_checkpoint(out / CHECKPOINT) is None:
            raise TrainingError(
                "a finished run without a checkpoint cannot go on", where=out, hint=anew
            )
        return None
    if recipe.is_full and whole_model(out) is None:
        raise TrainingError("the whole model that this run trained is gone", where=out, hint=anew)
    return TrainingResult(
        read_adapter(out), out, found.seconds, found.peak_bytes, found.n_trained,
        found.unlearnt, found.n_skipped, found.ended,
    )  # fmt: skip


def _ends_as_before(found: Summary, out: Path, recipe: Recipe) -> bool:
    """Tell whether what ended a run before its last step would end it there again."""
    if found.wanted[-1:] != (recipe.phase2.steps,):
        return False
    return found.ended == ASKED or (
        found.ended == PATIENCE and has_no_news(RunLines(out / HELD).lines(), recipe)
    )


def read_summary(out: Path) -> Summary | None:
    """Return the record of a finished run; None where there is none, or another is under way.

    Raises:
        TrainingError: It is damaged.
    """
    path = out / SUMMARY
    if not path.is_file():
        return None
    problems: list[LoraSceneError] = []
    table = parse_json(read_text(path, TrainingError), path, TrainingError)
    if isinstance(table, dict) and RESTARTED in table:
        return None
    found = build(Summary, table, problems, error=TrainingError, ignores_unknown=True)
    if not problems and not is_ours(path):
        problems.append(TrainingError("its checksum does not fit: it was changed later"))
    if problems or found is None:
        raise TrainingError(
            "the record of a finished run is damaged",
            where=path,
            got=problems[0],
            hint="take another --out, or pass --restart to discard it",
        )
    return found


def resumable(out: Path, mine: str, recipe: Recipe) -> Checkpoint | None:
    """Return the checkpoint that `out` holds, if it is this run's.

    Raises:
        CheckpointError: It is another run's, or damaged, or no step of this recipe.
    """
    path = newest_checkpoint(out / CHECKPOINT)
    if path is None:
        return None
    checkpoint = load_checkpoint(path)
    if checkpoint.fingerprint != mine:
        raise _other_run(CheckpointError, out, recipe)
    n_steps = recipe.phases[checkpoint.phase - 1].steps
    if checkpoint.step > n_steps:
        raise CheckpointError(
            "the checkpoint lies behind the end of the run",
            where=path,
            expected=f"at most {n_steps} steps of phase {checkpoint.phase}",
            got=checkpoint.step,
            hint=what_is_left(path),
        )
    return checkpoint


def _other_run(kind: type[TrainingError], out: Path, recipe: Recipe) -> TrainingError:
    hint = "take another --out, or pass --restart to discard it"
    kept = read_text(out / RECIPE, kind) if (out / RECIPE).is_file() else ""
    if (seed := re.search(r"\nseed = (\d+)\n", kept)) and int(seed[1]) != recipe.run.seed:
        hint = f"it was begun with --seed {seed[1]}, which may go on with it; else {hint}"
    elif kept and "\nshape = " not in kept:
        hint = f"it was begun as base.shape=square, which may go on with it; else {hint}"
    elif others := _other_settings(kept, recipe):
        hint = f"it was begun with {others}; {hint}"
    what = "the folder holds a run with another recipe, scene or base, or another --from"
    return kind(what, where=out, hint=hint)


def _other_settings(kept: str, recipe: Recipe) -> str:
    """Return what a recipe's text has otherwise, as `--set` takes it; nothing where it has not."""
    try:
        theirs, ours = (flat_settings(tomllib.loads(one)) for one in (kept, dump_recipe(recipe)))
    except tomllib.TOMLDecodeError:
        return ""
    told = ["name", "description", "phase2.steps", *(f"run.{key}" for key in BESIDE)]
    told += [f"base.{key}" for key in HOW]
    other = [k for k in ours if k in theirs and ours[k] != theirs[k] and k not in told]
    return ", ".join(f"{key}={json.dumps(theirs[key])}" for key in other)


def summary(
    result: TrainingResult,
    mine: str,
    recipe: Recipe,
    scene: Scene,
    *,
    colours: Mapping[str, float],
) -> dict[str, Any]:
    """Return the record of a finished run; `colours` as its `Materials` have them."""
    place = Path(scene.source)
    return vars(
        Summary(
            mine,
            result.seconds,
            result.peak_bytes,
            result.n_trained,
            tuple(result.adapter.handles),
            result.adapter.info.steps,
            result.unlearnt,
            result.n_skipped,
            result.ended,
            tuple(phase.steps for phase in recipe.phases),
            str(place.absolute()) if place.exists() else "",
            colours,
        )
    )
