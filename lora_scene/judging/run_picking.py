"""Pick between a run's snapshots: its scene found again, a judge at hand, the sheet written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_scene.adapters.adapter import Adapter
from lora_scene.adapters.folder import read_adapter
from lora_scene.backbones.loading import resolve_device
from lora_scene.creating.requests import Sampling
from lora_scene.creating.studio import Studio, open_studio
from lora_scene.errors import FileError, JudgingError
from lora_scene.files import check_target, write_json
from lora_scene.folder_lock import locked
from lora_scene.judging.base_features import base_judge
from lora_scene.judging.encoders import CLIP, DINO
from lora_scene.judging.evaluation import Progress
from lora_scene.judging.judge import Judge, load_judge
from lora_scene.judging.kept_pictures import UNFINISHED, KeptPictures
from lora_scene.judging.pick_sheet import draw_pick
from lora_scene.judging.picking import WEIGHTS, Pick, n_drawn, pick, usual_plan
from lora_scene.judging.taking import refuse_strangers
from lora_scene.learning.run_record import read_run, snapshots_of
from lora_scene.learning.watching import evenly
from lora_scene.picture_writing import write_picture
from lora_scene.recipe import Recipe
from lora_scene.scenes.scene import Scene, load_scene

SHEET, FIGURES = "pick.png", "pick.json"


def pick_run(
    out: Path,
    *,
    scene: Path | Scene | None = None,
    weights: Sequence[float] = WEIGHTS,
    n_seeds: int = 2,
    n_steps: int = 20,
    judge: Judge | None = None,
    base: str | None = None,
    device: str = "auto",
    tell: Callable[[str], None] = lambda text: None,
    progress: Progress | None = None,
    **storage: Any,
) -> Pick:
    """Pick between a run's snapshots, and write the sheet and the figures into its folder.

    What an interrupted call drew is taken up by the next one, see `KeptPictures`.

    Args:
        out: The run's folder.
        scene: What it learnt, or where it lies; None takes where the training found it.
        weights: That are tried.
        n_seeds: Pictures a prompt and subset.
        n_steps: Of the solver.
        judge: Weighs pictures; None takes the best that is on this machine.
        base: What to draw with; None takes what the run was trained on.
        device: Where it computes.
        tell: Told what a person should know.
        progress: Called after every pair.
        storage: Of the base: `dtype`, `quantization`, `config`, as `open_studio` takes them.

    Raises:
        AdapterError: The snapshots are not of one run.
        JudgingError: No snapshots; or the scene is not there, or another one.
        TrainingError: The folder holds no run.
    """
    run, kept = read_run(out), _snapshots(out)
    check_target(out, [SHEET, FIGURES])
    refuse_strangers(kept)
    last = read_adapter(kept[max(kept)])
    told = run.summary.scene if run.summary else ""
    learnt = _find_scene(scene or told or run.began.scene, last)
    if any(not 0 < weight <= 4 for weight in weights):
        raise JudgingError("weights are above 0, up to 4", got=", ".join(map(str, weights)))
    with locked(out):
        studio = open_studio([], base=base or _base_of(last, out), device=device, **storage)
        sampling = Sampling(n_steps, studio.backbone.usual_guidance)
        judge = judge or judge_at_hand(studio, last, sampling, device=device, tell=tell)
        drawn = KeptPictures(out / UNFINISHED)
        plan = replace(usual_plan(judge.name, sampling, n_seeds=n_seeds), kept=drawn)
        found = pick(
            studio, kept, learnt, judge=judge, plan=plan, weights=weights, progress=progress
        )
        try:
            write_picture(out / SHEET, draw_pick(found), root=out)
            write_json(out / FIGURES, found.as_dict(), root=out)
        except FileError:  # what took minutes is told, whatever becomes of the disk
            tell(found.told)
            raise
        drawn.forget()
    return found


def n_pictures(scene: Scene, recipe: Recipe) -> int:
    """Return how many pictures `pick_run` draws, as it is by default, of a run to its end."""
    n_snapshots = len(evenly(recipe.phase2.steps, recipe.run.snapshots))
    plan = usual_plan("", Sampling())  # as many for every judge
    return n_snapshots * n_drawn(plan, scene, n_weights=len(WEIGHTS))


def judge_at_hand(
    studio: Studio,
    adapter: Adapter,
    sampling: Sampling,
    *,
    device: str,
    tell: Callable[[str], None],
) -> Judge:
    """Return the best judge that needs no download.

    The embedded one for `mini`, CLIP and DINO where they lie in the cache, else the base's own
    features, which is told.
    """
    place = resolve_device(device)
    if adapter.info.base_model == "mini":
        return load_judge("mini", device=place)
    if all(_is_cached(name) for name in (CLIP, DINO)):
        return load_judge("clip+dino", device=place)
    tell(
        "no CLIP and DINO on this machine, and nothing is downloaded: pictures are compared by "
        "the base's own features, which are coarser; --judge clip+dino downloads them"
    )
    return base_judge(studio, sampling)


def _is_cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json"), str)


def _base_of(adapter: Adapter, out: Path) -> str:
    from lora_scene.backbones.sources import find_base

    info = adapter.info
    return find_base(info.base_model, base_hash=info.base_hash, near=out)


def _snapshots(out: Path) -> dict[int, Path]:
    """Return the snapshots of a run; there must be one."""
    kept = snapshots_of(out)
    if not kept:
        raise JudgingError(
            "no snapshots to choose from",
            where=out,
            hint="train with --set run.snapshots=8, or `lora-scene ask OUT save` while it runs",
        )
    return kept


def _find_scene(given: Scene | Path | str, adapter: Adapter) -> Scene:
    """Take a scene as it is; load one from its place, and see that it is the one that was learnt.

    Raises:
        JudgingError: It is not.
    """
    if isinstance(given, Scene):
        return given
    place = Path(given)
    if str(place) in ("", ".") or not place.exists():
        raise JudgingError(
            "the scene is not where the training found it",
            where=place,
            hint="pass --scene with its folder",
        )
    scene = load_scene(place)
    hashes = [photo.digest for photo in scene.photos]
    if list(adapter.info.image_hashes) != hashes or scene.handles != adapter.handles:
        raise JudgingError(
            "another scene than the one that was learnt",
            where=place,
            expected=f"{', '.join(adapter.handles)}, with the photos of the training",
            got=", ".join(scene.handles),
            hint="pass --scene with its folder",
        )
    return scene
