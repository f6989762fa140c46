"""A run's plan, with a step of each phase measured, and nothing written.

Everything is made ready as `train` does, in a folder that goes away, so what `train` would refuse
is refused here; then single steps are made and forgotten.
"""

from __future__ import annotations

import functools
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch

from lora_scene.adapters.gallery import sample_prompts
from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.loading import resolve_device
from lora_scene.errors import SceneError
from lora_scene.learning.beginning import Beginning, merge_beginning
from lora_scene.learning.checkpoints import Checkpoint
from lora_scene.learning.devices import (
    device_bytes,
    fast_float32,
    forked_rng,
    memory_advice,
    peak_bytes,
    refuse_ranks,
    reset_peak,
)
from lora_scene.learning.drawn_before import (
    colours_of,
    grounds_of,
    prior_of,
    prompts_of_prior,
    refuse_cut_on_grounds,
    things_on_grounds,
)
from lora_scene.learning.events import Listener, Notice
from lora_scene.learning.handle_table import HandleTable, refuse_cut
from lora_scene.learning.held import is_cut_held, look
from lora_scene.learning.interruption import Interruption
from lora_scene.learning.job import Job
from lora_scene.learning.leftovers import own_folder
from lora_scene.learning.phases import Trainer
from lora_scene.learning.preparation import (
    check_early,
    lineage_on,
    load_base,
    prepare_handles,
    prepare_materials,
)
from lora_scene.learning.run_plan import RunPlan, Share
from lora_scene.learning.runs import finished, resumable
from lora_scene.learning.samples import draw_samples, is_sampled
from lora_scene.learning.step import Materials
from lora_scene.learning.watching import evenly, looks_of
from lora_scene.recipe import Recipe
from lora_scene.scenes.run_prompts import known_nouns
from lora_scene.scenes.scene import Scene

N_MEASURED = 3  # steps, after one that warms up
ENCODING, PRIOR, COLOURS, GROUNDS = "encoding", "prior", "colours", "grounds"
PICKING = "picking"
T = TypeVar("T")


def plan_run(
    scene: Scene,
    recipe: Recipe,
    *,
    out: Path | str,
    device: str = "auto",
    restart: bool = False,
    begin: Beginning | None = None,
    n_picked: int = 0,
    listener: Listener = lambda event: None,
) -> RunPlan:
    """Measure what a run would need, and find what would stop it.

    Args:
        scene: What would be learnt from.
        recipe: Every setting.
        out: Where the run would go.
        device: As `train` takes it.
        restart: As `train` takes it.
        begin: As `train` takes it.
        n_picked: Pictures that are drawn after the run, to pick from.
        listener: Told what a person should know.

    Raises:
        LoraSceneError: What `train` would raise before its first step.
    """
    refuse_ranks()
    out = own_folder(Path(out), scene, recipe, restart=restart, begin=begin)
    chosen = resolve_device(device)
    place = torch.device(chosen)
    with memory_advice(recipe), fast_float32(place), forked_rng(chosen):
        backbone = load_base(scene, recipe, chosen, listener, begin)
        check_early(backbone, recipe, listener)
        base_hash, mine = lineage_on(backbone, scene, recipe, begin, out)
        done = None if restart else finished(out, mine, recipe)
        resumed = None if done or restart else resumable(out, mine, recipe)
        start = begin and merge_beginning(begin, backbone, base_hash, listener)
        with tempfile.TemporaryDirectory() as folder:
            reset_peak(place)
            job = Job(scene, recipe, Path(folder), chosen, base_hash, mine, listener,
                      Interruption(), start)  # fmt: skip
            trainer, parts = _measure(backbone, job, resumed, n_picked)
        peak, whole = peak_bytes(place), device_bytes(place)
    state = "finished already: nothing is left to do" if done else "a new run"
    if resumed is not None:
        state = f"goes on after step {resumed.step} of phase {resumed.phase}"
    trained = list(trainer.table.tables if recipe.is_full else trainer.parameters())
    for module in start.modules.values() if start and not recipe.is_full else ():
        trained += [module.down, module.up]  # delivered with what is learnt
    n_kept = 1 + len(evenly(recipe.phase2.steps, recipe.run.snapshots))
    n_bytes = 4 * sum(parameter.numel() for parameter in trained) * n_kept
    if done:  # and picked from, where its adapter is a pick already
        parts = [part for part in parts if part.name == PICKING and not done.adapter.info.taken]
    return RunPlan(_head(trainer, job), state, tuple(parts), n_bytes, peak, whole)


def _head(trainer: Trainer, job: Job) -> tuple[str, ...]:
    backbone, variants = trainer.backbone, trainer.materials.variants
    learnt = ", ".join(f"{concept.handle} {concept.noun}" for concept in job.scene.concepts)
    sizes = dict.fromkeys(str(one.latents.times(backbone.vae_factor)) for one in variants)
    n = len(job.scene.photos)
    photos = f"{n} photo{'s' if n > 1 else ''} in {len(variants)} variants, {', '.join(sizes)} px"
    dtype = str(backbone.dtype).removeprefix("torch.")
    base = f"base {backbone.name}, recipe {job.recipe.name}, on {job.device} in {dtype}"
    return f"{learnt}: {photos}", base, *((f"begins from {job.begun.told}",) if job.begun else ())


def _measure(
    backbone: Backbone, job: Job, resumed: Checkpoint | None, n_picked: int
) -> tuple[Trainer, list[Share]]:
    """Make ready, and measure; of what the base draws before, one picture's time counts for all."""
    seconds, materials = _timed(prepare_materials, backbone, job)
    n = len(materials.variants)
    parts = [Share(ENCODING, 1, seconds, f"of the photos, in {n} variants")]
    table = prepare_handles(backbone, job, materials)
    materials, drawn = _drawn_before(backbone, job, table, materials)
    parts += drawn if resumed is None else []  # those lie in the checkpoint
    trainer = Trainer(backbone, table, materials=materials, folder=job.out, listener=job.tell)
    behind = (resumed.phase, resumed.step) if resumed else (0, 0)
    with table.spliced():
        steps = [*_steps(trainer, behind)]
        parts += [*steps, *(_beside(trainer, behind) if steps else ())]
        return trainer, [*parts, *(_picking(trainer, n_picked) if n_picked else ())]


def _drawn_before(
    backbone: Backbone, job: Job, table: HandleTable, materials: Materials
) -> tuple[Materials, list[Share]]:
    """Let the base draw one picture of each kind, as `draw_before` all of them.

    Returns:
        The materials with what is sure to be shown, and what all would cost.
    """
    recipe, variants, parts = job.recipe, materials.variants, []
    grounds, told = recipe.grounds, "pictures of the untouched base"
    few = replace(
        recipe,
        prior=replace(recipe.prior, n_images=1),
        grounds=replace(grounds, n_images=1, n_per_noun=1),
    )
    one_each = replace(job, recipe=few, tell=lambda event: None)

    def add(name: str, n: int, seconds: float, n_done: int, told: str = told) -> None:
        parts.append(Share(name, max(n, n_done), seconds / n_done, told))

    refuse_cut(backbone, prompts_of_prior(job, variants), "prior.prompts")
    seconds, seen = _timed(colours_of, backbone, one_each)
    if seen:
        n = len(known_nouns(job.scene))
        add(COLOURS, grounds.n_per_noun * n, seconds, n, f"{told}, of the nouns")
    things = things_on_grounds(job, dict.fromkeys(seen, math.inf))  # as if all were far
    try:
        refuse_cut_on_grounds(backbone, job, table, variants, things)
    except SceneError as error:
        if not seen:
            raise
        text = f"where a thing has colours that the base does not expect: {error}"
        job.tell(Notice(text))
        things = frozenset()
    seconds, prior = _timed(prior_of, backbone, one_each, variants)
    if prior is not None:
        add(PRIOR, recipe.prior.n_images, seconds, len(prior.latents))
    seconds, ground = _timed(grounds_of, backbone, one_each, variants, things)
    if ground is not None:
        told += ", where a thing has colours that it does not expect" if seen else ""
        add(GROUNDS, grounds.n_images, seconds, len(ground.latents), told)
    sure = None if seen else ground  # steps that ask the base cost more
    return replace(materials, prior=prior, grounds=sure), parts


def _steps(trainer: Trainer, behind: tuple[int, int]) -> Iterator[Share]:
    """Make a few steps of each phase that is left."""
    recipe, run = trainer.recipe, trainer.recipe.run
    for number, phase in enumerate(recipe.phases, 1):
        left = phase.steps if number != behind[0] else phase.steps - behind[1]
        if number < behind[0] or left <= 0:
            continue
        stepper = trainer.stepper(number)
        again = recipe.draws_of(phase)
        with stepper.attached():
            seconds = median([_timed(stepper, i)[0] for i in range(1 + N_MEASURED)][1:])
            if 0 < again < left:  # what the base said in the first draws is remembered
                later = median([_timed(stepper, again + i)[0] for i in range(1, 1 + N_MEASURED)])
                seconds = (again * seconds + (left - again) * later) / left
        n = sum(p.numel() for p in trainer.parameters() if p.requires_grad)
        pictures = left * run.batch_size * run.accumulation
        yield Share(f"phase {number} steps", left, seconds, f"{n:,} numbers, {pictures} pictures")


def _beside(trainer: Trainer, behind: tuple[int, int]) -> Iterator[Share]:
    """Look once, and draw one sample picture, where the recipe wants any.

    Args:
        trainer: The run's.
        behind: Phase and step of the checkpoint that the run goes on from; the phase 0 for none.
            What is due there comes after the checkpoint, and is left.
    """
    recipe, run, backbone = trainer.recipe, trainer.recipe.run, trainer.backbone
    materials, table = trainer.materials, trainer.table
    stops = {
        number: range(behind[1] if number == behind[0] else 0, phase.steps + 1)
        for number, phase in enumerate(recipe.phases, 1)
        if phase.steps and number >= behind[0]
    }
    with trainer.as_delivered():
        held = materials.held
        if run.watch and held and not is_cut_held(table, held, recipe):
            seconds, _ = _timed(look, backbone, table, materials.held, recipe)
            n = sum(len(looks_of(recipe, one) & set(steps)) for one, steps in stops.items())
            yield Share("looks", n, seconds)
        if run.sample_every:
            seconds, n_prompts = _draw_one(trainer)
            n = sum(is_sampled(recipe, one, i) for one, steps in stops.items() for i in steps)
            yield Share("samples", n * n_prompts, seconds)


def _picking(trainer: Trainer, n: int) -> Iterator[Share]:
    with trainer.as_delivered():
        yield Share(PICKING, n, _draw_one(trainer)[0], "pictures at most so long; eight at once")


def _draw_one(trainer: Trainer) -> tuple[float, int]:
    """Draw one sample picture; return its seconds, and how many prompts there are."""
    recipe, backbone, table = trainer.recipe, trainer.backbone, trainer.table
    prompts = sample_prompts(recipe, [concept.handle for concept in table.concepts])
    size = trainer.materials.variants[0].latents.times(backbone.vae_factor)
    draw = functools.partial(draw_samples, size=size, seed=recipe.run.seed)
    return _timed(draw, backbone, table, prompts[:1])[0], len(prompts)


def _timed(act: Callable[..., T], *asked: object) -> tuple[float, T]:
    begun = time.perf_counter()
    result = act(*asked)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun, result
