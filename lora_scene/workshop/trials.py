"""Run a protocol: every method on every scene, resumable, splittable over processes."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from lora_scene.adapters.whole_model import FULL_MODEL
from lora_scene.backbones.loading import resolve_device
from lora_scene.creating.studio import Studio, open_studio
from lora_scene.errors import JudgingError, OutOfMemoryError
from lora_scene.faults import is_out_of_memory
from lora_scene.file_groups import remove_ours
from lora_scene.judging.encoders import ClipEncoder
from lora_scene.judging.evaluation import (
    Evaluation,
    draw_and_weigh,
    evaluate,
    refuse_equal_nouns,
    weigh,
)
from lora_scene.judging.judge import Judge, load_judge, open_finder
from lora_scene.judging.plans import cells_of, drift_prompts
from lora_scene.learning.events import Listener
from lora_scene.learning.outcome import installed_versions
from lora_scene.ownership import own_files
from lora_scene.scenes.framing import frame_scene
from lora_scene.scenes.scene import Scene, load_scene
from lora_scene.targets import refuse_foreign
from lora_scene.workshop.fingerprints import Prepared, prepared, terms_of
from lora_scene.workshop.guidance import draw_guided
from lora_scene.workshop.methods import (
    Trained,
    forwards_of,
    open_method,
    recipes_of,
    train_method,
)
from lora_scene.workshop.protocol import Attempt, Protocol, chosen_runs
from lora_scene.workshop.results import (
    ROWS,
    finished_row,
    folder_of,
    keep_results,
    keep_row,
    keep_scene,
    scene_folder,
    write_rows,
)
from lora_scene.workshop.statistics import Row


@dataclass(frozen=True)
class Bench:
    """What all runs of a process share.

    Attributes:
        protocol: What is run.
        out: RESULTS.
        judge: What pictures are weighed with.
        device: Where it computes.
        listener: Told what training does.
        tell: Told which run begins, one sentence each.
    """

    protocol: Protocol
    out: Path
    judge: Judge
    device: str
    listener: Listener | None = None
    tell: Callable[[str], None] = field(default=lambda sentence: None)


def run_benchmark(
    bench: Bench,
    *,
    part: tuple[int, int] = (1, 1),
    max_runs: int | None = None,
    known: Mapping[tuple[str, str], Row] | None = None,
) -> list[Row]:
    """Do the runs that are not done; return the rows of all that are.

    Args:
        bench: What is run, where, with what.
        part: (i, n): every n-th run from the i-th on, 1-based, so that n processes share the work.
        max_runs: Stop after so many new runs.
        known: Rows of the same runs, done elsewhere (`results.known_rows`).

    Raises:
        JudgingError: RESULTS holds runs of another protocol.
        FileError: Its `results.jsonl` cannot be written.
    """
    refuse_foreign(bench.out / ROWS, bench.out)
    wanted = prepared(bench.protocol, chosen_runs(bench.protocol, part))
    if known is not None:
        _take_known(bench, wanted, known)
    n_new = 0
    for position, (run, scene, made_of) in enumerate(wanted, start=1):
        if finished_row(bench.out, run, fingerprint=made_of) is not None:
            continue
        if n_new != max_runs:
            bench.tell(f"{position}/{len(wanted)}  {run.key}")
            _try_run(bench, run, scene=scene, made_of=made_of)
            n_new += 1
    return write_rows(bench.out)


def _take_known(
    bench: Bench, wanted: Sequence[Prepared], known: Mapping[tuple[str, str], Row]
) -> None:
    """Keep the known rows of runs that are not done here, and tell how many there are."""
    named, n_taken, n_stale = {key for key, _ in known}, 0, 0
    for run, _, made_of in wanted:
        if finished_row(bench.out, run, fingerprint=made_of) is not None:
            continue
        if (run.key, made_of) in known:
            keep_row({**known[run.key, made_of], "pictures": []}, folder_of(bench.out, run))
            n_taken += 1
        else:
            n_stale += run.key in named
    told = f"{n_taken} of {len(known)} known rows are taken up"
    if n_stale:
        told += f"; those of {n_stale} runs are of another recipe, scene, drawing or version"
    bench.tell(told)


def _try_run(bench: Bench, run: Attempt, *, scene: Scene, made_of: str) -> None:
    """Do a run; one for which memory is too small is left undone, and the others go on."""
    try:
        do_run(bench, run, scene=scene, made_of=made_of)
    except (RuntimeError, MemoryError, OutOfMemoryError) as error:
        if not isinstance(error, OutOfMemoryError) and not is_out_of_memory(error):
            raise
        hint = getattr(error, "hint", None)
        bench.tell(
            f"{run.key} ran out of memory and is left undone" + (f"; {hint}" if hint else "")
        )
    write_rows(bench.out)


def do_run(bench: Bench, run: Attempt, *, scene: Scene, made_of: str) -> Row:
    """Train, draw, measure, and leave the row; training goes on where it was cut off.

    Raises:
        JudgingError: Two things have one noun, and the judge finds things by nouns.
    """
    refuse_equal_nouns(scene, bench.judge)  # `weigh` would, after the training
    folder = folder_of(bench.out, run)
    recipes = recipes_of(bench.protocol, run, scene=scene)
    trained = train_method(recipes, folder, device=bench.device, listener=bench.listener)
    studio = open_method(bench.protocol, trained, device=bench.device)
    row = measure_run(bench, run, studio, trained=trained, scene=scene, made_of=made_of)
    keep_row(row, folder)  # first: without its model a run that is cut off here could not go on
    for result in trained.folders:
        remove_ours(result, own_files(result / FULL_MODEL))
    return row


def measure_run(
    bench: Bench, run: Attempt, studio: Studio, *, trained: Trained, scene: Scene, made_of: str
) -> Row:
    """Draw with what a run learnt, and return its row; the pictures are kept, the row is not."""
    begun = time.perf_counter()
    main = _evaluate(bench, run, scene, studio)
    curve = {
        weight: draw_and_weigh(
            studio, scene, judge=bench.judge, plan=bench.protocol.curve_plan(weight)
        )
        for weight in _curve_weights(bench.protocol, run, studio)
    }
    row = {
        **_identity_of(bench, run, scene, made_of),
        **_costs_of(trained),
        "judging_seconds": time.perf_counter() - begun,
        **keep_results(main, curve, folder=folder_of(bench.out, run), judge=bench.judge),
    }
    keep_scene(frame_scene(scene, studio.backbone.canvas()), scene_folder(bench.out, row))
    return row


def planned_work(protocol: Protocol, part: tuple[int, int] = (1, 1)) -> dict[str, int]:
    """Return how much a protocol asks for: runs, image-forwards of training, pictures drawn.

    Drift's pictures count twice: with the adapter and without.

    Args:
        protocol: What is run.
        part: See `chosen_runs`.
    """
    runs = chosen_runs(protocol, part)
    scenes = {run.scene: load_scene(run.scene) for run in runs}
    forwards, n_pictures = 0, 0
    for run in runs:
        scene = scenes[run.scene]
        recipes = recipes_of(protocol, run, scene=scene)
        forwards += sum(forwards_of(*one) for one in recipes)
        n_pictures += len(cells_of(protocol.plan, scene))
        if recipes:
            n_pictures += 2 * len(drift_prompts(protocol.plan, scene))
        if any(phase.trains == "lora" and phase.steps for r, _ in recipes for phase in r.phases):
            n_weights = len(protocol.curve.weights) * (run.seed in protocol.curve.train_seeds)
            n_pictures += n_weights * len(cells_of(protocol.curve_plan(1.0), scene))
    return {"runs": len(runs), "image_forwards": forwards, "pictures": n_pictures}


def open_bench(
    protocol: Protocol, out: Path, *, device: str = "auto", judge: Judge | None = None
) -> Bench:
    """Load the judge.

    Args:
        protocol: What is run.
        out: RESULTS.
        device: `auto`, `cuda`, `mps` or `cpu`.
        judge: None takes the protocol's.
    """
    chosen = resolve_device(device)
    judge = judge or load_judge(
        protocol.judge,
        device=chosen,
        clip=protocol.clip or None,
        dino=protocol.dino or None,
        finder=open_finder(protocol.finder, device=chosen),
    )
    return Bench(protocol, out, judge, chosen)


def _evaluate(bench: Bench, run: Attempt, scene: Scene, studio: Studio) -> Evaluation:
    protocol, plan = bench.protocol, bench.protocol.plan
    if run.method.kind != "guided":
        is_full = studio.backbone.name.endswith(FULL_MODEL)
        base = open_studio([], base=protocol.base, device=bench.device) if is_full else None
        return evaluate(studio, scene, judge=bench.judge, plan=plan, base=base)
    framed = frame_scene(scene, studio.backbone.canvas())
    cells = cells_of(plan, scene)
    captions = bench.judge.captions
    if not isinstance(captions, ClipEncoder):
        raise JudgingError("guided sampling needs a CLIP", where=run.key, got=captions.name)
    drawn = draw_guided(
        studio,
        cells,
        framed,
        encoder=captions,
        sampling=plan.sampling,
        scale=run.method.guide_scale,
        batch_size=run.method.batch or plan.batch_size,
    )
    return weigh(cells, drawn, scene=framed, judge=bench.judge)


def _curve_weights(protocol: Protocol, run: Attempt, studio: Studio) -> tuple[float, ...]:
    """Return the other weights that are drawn; only LoRA has any."""
    has_lora = any(loaded.n_modules for loaded in studio.adapters)
    is_drawn = has_lora and run.seed in protocol.curve.train_seeds
    return protocol.curve.weights if is_drawn else ()


def _identity_of(bench: Bench, run: Attempt, scene: Scene, made_of: str) -> dict[str, Any]:
    on_gpu = bench.device.startswith("cuda")
    return {
        "key": run.key,
        "protocol": bench.protocol.name,
        "method": run.method.name,
        "kind": run.method.kind,
        "course_of": run.method.course_of,
        "group": run.group,
        "scene": run.scene.name,
        "n_concepts": len(scene.things),
        "handles": list(scene.handles),
        "nouns": list(scene.nouns),
        "seed": run.seed,
        "fingerprint": made_of,
        "terms": terms_of(bench.protocol, run, scene=scene),
        "judge": bench.judge.name,
        "device": torch.cuda.get_device_name(bench.device)
        if on_gpu
        else platform.processor() or bench.device,
        "versions": installed_versions(),
    }


def _costs_of(trained: Trained) -> dict[str, Any]:
    costs = {**asdict(trained), "n_bytes": trained.n_bytes}
    del costs["folders"]
    return costs
