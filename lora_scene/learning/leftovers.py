"""What earlier runs left in a folder: refused where it is somebody's, else discarded."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from lora_scene.adapters.earlier_files import own_adapter_files
from lora_scene.adapters.folder import RECIPE
from lora_scene.adapters.formats import diffusers, embeddings
from lora_scene.adapters.gallery import FOLDER as SAMPLES
from lora_scene.adapters.gallery import refuse_foreign_samples
from lora_scene.adapters.whole_model import FULL_MODEL
from lora_scene.errors import SceneError, TrainingError
from lora_scene.file_groups import remove_ours
from lora_scene.files import check_target, write_json
from lora_scene.learning.asking import WISHES, ask_path
from lora_scene.learning.beginning import Beginning
from lora_scene.learning.checkpoints import PREVIOUS, load_checkpoint, newest_checkpoint
from lora_scene.learning.preparation import check_asked
from lora_scene.learning.run_lines import RunLines
from lora_scene.learning.runs import (
    CHECKPOINT,
    DRAWN,
    EVENTS,
    FOLDERS,
    HELD,
    LOSSES,
    MAPS,
    PAGE,
    RESTARTED,
    SNAPSHOTS,
    SUMMARY,
    read_summary,
)
from lora_scene.ownership import KEY, is_ours, own_files
from lora_scene.recipe import Base, Recipe
from lora_scene.scenes.handles import check_handles, handle_stem
from lora_scene.scenes.scene import Scene
from lora_scene.targets import refuse_links


def own_folder(
    out: Path, scene: Scene, recipe: Recipe, *, restart: bool, begin: Beginning | None = None
) -> Path:
    """Find what keeps a run from writing into a folder before anything is loaded.

    Raises:
        FileError: A file is not ours to replace, or the folder cannot be written.
        RecipeError: Nothing would be trained, or a sample prompt names a strange handle.
        SceneError: A handle or noun that no file can hold.
        TrainingError: It holds no run but something else, a damaged checkpoint, `begin`, the base.
    """
    if restart and begin and begin.path.resolve().is_relative_to(out.resolve()):
        raise TrainingError("--restart would delete what --from begins from", where=begin.path)
    _refuse_base_within(out, recipe.base)
    wrong: list[SceneError] = check_handles(scene.handles, "scene", nouns=scene.nouns)
    if wrong:
        raise SceneError.collect(wrong, "the scene's names cannot be used")
    check_asked(scene, recipe)
    rows = [f"{embeddings.FOLDER}/{handle_stem(h)}.safetensors" for h in scene.handles]
    records = [] if restart and has_damaged_record(out) else [SUMMARY]
    wishes = [ask_path(out, wish).name for wish in WISHES]
    checked = check_target(out, [RECIPE, *records, diffusers.FILE, *rows, *wishes, PAGE])
    for name in FOLDERS:
        refuse_links(out / name, out)
    refuse_others(checked, restart=restart)
    for name in (LOSSES, HELD, *((EVENTS,) if recipe.run.watch else ())):
        RunLines(checked / name).refuse_foreign()
    if recipe.run.sample_every:
        refuse_foreign_samples(checked)
    return checked


def _refuse_base_within(out: Path, base: Base) -> None:
    """Refuse a base in a folder that runs clear and write."""
    for name, place in itertools.product(FOLDERS, (base.model, base.config)):
        if place and Path(place).resolve().is_relative_to((out / name).resolve()):
            raise TrainingError(
                "the run would write over the base that it trains on",
                where=place,
                hint="take another --out",
            )


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

    Its adapter and model too, until new ones take their place; a record tells that a run is under
    way. So does what the base drew, which tells itself what it is of.
    """
    if own_adapter_files(out):
        write_json(out / SUMMARY, {RESTARTED: True}, force=has_damaged_record(out))
    elif is_ours(out / SUMMARY) or has_damaged_record(out):
        (out / SUMMARY).unlink()
    forget_tries(out)
    for name in set(FOLDERS) - {FULL_MODEL}:
        remove_ours(out / name, [p for p in own_files(out / name) if p.name not in DRAWN])


def forget_tries(out: Path) -> None:
    """Delete what tries told and drew that left nothing to go on from, maybe of another scene."""
    for name in (LOSSES, HELD, EVENTS):
        RunLines(out / name).forget()
    for name in (SAMPLES, MAPS):
        remove_ours(out / name, own_files(out / name))
    remove_ours(out, [page] if is_ours(page := out / PAGE) else [])


def keep_for_longer(out: Path, recipe: Recipe) -> None:
    """Keep the last checkpoint, so that the run can be made longer; whole models are too large."""
    folder = out / CHECKPOINT.parent
    names = [p for p in own_files(folder) if recipe.is_full or p.name == PREVIOUS]
    remove_ours(folder, names)
