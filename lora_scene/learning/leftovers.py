"""What earlier runs left in a folder: refused where it is somebody's, else discarded."""

from __future__ import annotations

import json
from pathlib import Path

from lora_scene.adapters.folder import own_adapter_files
from lora_scene.adapters.gallery import FOLDER as SAMPLES
from lora_scene.errors import TrainingError
from lora_scene.file_groups import remove_ours
from lora_scene.files import write_json
from lora_scene.learning.checkpoints import load_checkpoint, newest_checkpoint
from lora_scene.learning.run_lines import RunLines
from lora_scene.learning.runs import (
    CHECKPOINT,
    EVENTS,
    FOLDERS,
    HELD,
    LOSSES,
    MAPS,
    PAGE,
    RECIPE,
    RESTARTED,
    SNAPSHOTS,
    SUMMARY,
    read_summary,
)
from lora_scene.ownership import KEY, is_ours, own_files


def refuse_others(out: Path, *, restart: bool) -> None:
    """Leave a folder alone that holds something, and no run of this program.

    Raises:
        CheckpointError: Its checkpoint is damaged.
        TrainingError: It holds an adapter that no training made, snapshots among which a new run's
            would lie, or there is no run to discard.
    """
    if (kept := newest_checkpoint(out / CHECKPOINT)) and not is_ours(kept):
        load_checkpoint(kept)  # --restart would stumble over it when all else is deleted
    if not (restart or kept or read_summary(out)) and own_files(out / SNAPSHOTS):
        raise TrainingError(
            "the folder holds snapshots of a run that left nothing to go on from",
            where=out / SNAPSHOTS,
            hint="take another --out, or pass --restart to discard them",
        )
    if any(is_ours(out / name) for name in (SUMMARY, CHECKPOINT)):
        return
    if own_adapter_files(out):
        raise TrainingError(
            "the folder holds an adapter, and no record of its training",
            where=out,
            hint="take another --out",
        )
    is_run = is_ours(out / RECIPE)
    if restart and not is_run and out.is_dir() and any(p.name[0] != "." for p in out.iterdir()):
        raise TrainingError(
            "--restart discards a run, and the folder holds none", where=out, hint="another --out"
        )


def has_damaged_record(out: Path) -> bool:
    """Tell whether a run's record is ours no longer, damaged or edited, where the rest of it is."""
    path = out / SUMMARY
    if path.is_symlink() or not path.is_file() or is_ours(path):
        return False
    try:
        is_foreign = KEY not in json.loads(path.read_bytes())
    except (ValueError, TypeError, RecursionError):
        is_foreign = False  # half a record, or none
    return not is_foreign and any(is_ours(out / name) for name in (RECIPE, CHECKPOINT))


def clear(out: Path) -> None:
    """Delete what an earlier run wrote, so that nothing of it is taken up; all else stays.

    Its adapter too, until the new one takes its place; a record tells that a run is under way.
    """
    if own_adapter_files(out):
        write_json(out / SUMMARY, {RESTARTED: True}, force=has_damaged_record(out))
    elif is_ours(out / SUMMARY) or has_damaged_record(out):
        (out / SUMMARY).unlink()
    forget_tries(out)
    for name in FOLDERS:
        remove_ours(out / name, list(own_files(out / name)))


def forget_tries(out: Path) -> None:
    """Delete what tries told and drew that left nothing to go on from, maybe of another scene."""
    for name in (LOSSES, HELD, EVENTS):
        RunLines(out / name).forget()
    for name in (SAMPLES, MAPS):
        remove_ours(out / name, own_files(out / name))
    remove_ours(out, [page] if is_ours(page := out / PAGE) else [])
