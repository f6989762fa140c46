"""Two-phase training: first the rows, then rows and adapters (Break-A-Scene, section 3.1).

scene, recipe -> base loaded -> variants encoded, VAE moved away -> [prior drawn]
  -> handles spliced in -> phase 1 -> phase 2 -> adapter saved
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lora_scene.adapters.adapter import Adapter
from lora_scene.adapters.adapter_folder import save_adapter
from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.families import map_side
from lora_scene.backbones.fitness import check_target, check_trainable
from lora_scene.backbones.loading import (
    load_pipeline,
    resolve_device,
    resolve_dtype,
)
from lora_scene.backbones.sources import is_hub_id, note_base, public_name
from lora_scene.backbones.storage import store
from lora_scene.backbones.switches import switch_on
from lora_scene.errors import NonFiniteLossError
from lora_scene.learning.attention import AttentionRecorder
from lora_scene.learning.checkpoints import Checkpoint, load_checkpoint
from lora_scene.learning.devices import (
    fast_float32,
    free_cached,
    memory_advice,
    peak_bytes,
    reset_peak,
)
from lora_scene.learning.events import Event, Listener, Notice, Saved
from lora_scene.learning.handles import HandleTable
from lora_scene.learning.latents import encode_variants
from lora_scene.learning.lora import unet_targets
from lora_scene.learning.optimizers import optimizer_library
from lora_scene.learning.outcome import assemble_adapter
from lora_scene.learning.phases import Trainer, all_finite
from lora_scene.learning.prior import draw_prior, trains_text
from lora_scene.learning.runs import (
    CHECKPOINT,
    FULL_MODEL,
    LAST_GOOD,
    TrainingResult,
    clear,
    fingerprint,
    finished,
    resumable,
    write_summary,
    write_text,
)
from lora_scene.learning.step import Materials
from lora_scene.recipe import Recipe, dump_recipe
from lora_scene.scenes.framing import plan_frame
from lora_scene.scenes.scene import Scene

RECIPE = "recipe.toml"


@dataclass(frozen=True)
class _Job:
    """What is to be learnt, from what, where to.

    Attributes:
        scene: What is learnt from.
        recipe: Every setting.
        out: Folder of the result.
        device: A device that exists.
        base_hash: `Backbone.content_hash` before training.
        fingerprint: The run's.
        tell: Told what happens.
    """

    scene: Scene
    recipe: Recipe
    out: Path
    device: str
    base_hash: str
    fingerprint: str
    tell: Listener


def train(
    scene: Scene,
    recipe: Recipe,
    *,
    out: Path | str,
    device: str = "auto",
    listener: Listener | None = None,
    restart: bool = False,
) -> TrainingResult:
    """Learn a scene's handles and adapters; go on where an interrupted run of the same stopped.

    On the CPU the result is bit for bit the same, however often the run was interrupted; some CPUs
    need `MKL_CBWR=AUTO,STRICT` in the environment for it, which the command line sets.

    Args:
        scene: What is learnt from.
        recipe: Every setting.
        out: Folder of the result; checkpoints and samples go there too.
        device: `auto`, `cuda`, `cuda:1`, `mps` or `cpu`.
        listener: Told what happens.
        restart: Discard what `out` holds of an earlier run.

    Raises:
        TrainingError: `out` holds another run; a loss is not finite; memory ran out.
        BackboneError: The base cannot be loaded.
        RecipeError: A setting does not fit the base.
    """
    begun = time.perf_counter()
    out = Path(out)
    tell = listener or _ignore
    chosen = resolve_device(device)
    with memory_advice(recipe), fast_float32(torch.device(chosen)), _forked_rng(chosen):
        backbone = _load(recipe, chosen, tell)
        _refuse_early(backbone, recipe)
        for notice in check_trainable(backbone, recipe.base):
            tell(Notice(notice))
        if restart:
            clear(out)
        base_hash = backbone.content_hash()
        note_base(recipe.base.model, base_hash)
        print_ = fingerprint(scene, recipe, base_hash)
        earlier = finished(out, print_)
        if earlier is not None:
            tell(Notice(f"{out} is finished already; --restart trains anew"))
            return earlier
        reset_peak(torch.device(chosen))
        adapter, n_trained = _learn(
            backbone, _Job(scene, recipe, out, chosen, base_hash, print_, tell)
        )
        seconds, peak = time.perf_counter() - begun, peak_bytes(torch.device(chosen))
        result = TrainingResult(adapter, out, seconds, peak, n_trained)
    write_summary(result, print_)
    shutil.rmtree(out / CHECKPOINT.parent, ignore_errors=True)
    tell(Saved("adapter", out))
    return result


def _load(recipe: Recipe, device: str, tell: Listener) -> Backbone:
    """Load the base into the host's memory, in the dtype that the device will compute in."""
    base = recipe.base
    if is_hub_id(base.model):
        tell(Notice(f"loading {base.model}; the first time it is downloaded, several gigabytes"))
    kind = resolve_dtype(base.dtype, device)
    names = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
    pipeline = load_pipeline(
        base.model,
        dtype=names[kind],  # type: ignore[arg-type]
        config=base.config or None,
    )
    backbone = Backbone(pipeline, name=public_name(base.model), resolution=base.resolution)
    switch_on(backbone.unet, base, device=device)
    return backbone


def _refuse_early(backbone: Backbone, recipe: Recipe) -> None:
    """Find what would stop a later phase before the first one is paid for.

    Raises:
        RecipeError: A target or a side of maps that the base has not, or a missing library.
    """
    phases = [phase for phase in recipe.phases if phase.steps]
    if any(phase.trains == "lora" for phase in phases):
        unet_targets(backbone.unet, recipe.lora)
    if any(phase.trains != "rows" for phase in phases):
        optimizer_library(recipe.optimizer.name)
    if any(phase.attention_weight or phase.pairwise_weight for phase in phases):
        side = recipe.attention_loss.map_side
        AttentionRecorder(backbone.unet, latent_side=backbone.latent_side, side=side)


def _learn(backbone: Backbone, job: _Job) -> tuple[Adapter, int]:
    """Run both phases from the beginning or a checkpoint, and save what was learnt.

    Returns:
        The adapter, and how many numbers were trained.
    """
    resumed = resumable(job.out, job.fingerprint)
    _tell_framing(job.scene, backbone.resolution, job.tell)
    materials = _materials(backbone, job)
    trainer = Trainer(
        backbone,
        _handles(backbone, job),
        materials=materials,
        folder=job.out,
        listener=job.tell,
    )
    write_text(job.out / RECIPE, dump_recipe(job.recipe))
    with trainer.table.spliced():
        _run(trainer, job, resumed)
        adapter = _collect(trainer, job)
    save_adapter(adapter, job.out)
    if any(phase.trains == "full" and phase.steps for phase in job.recipe.phases):
        with trainer.as_delivered():
            backbone.pipeline.save_pretrained(job.out / FULL_MODEL)
    return adapter, sum(parameter.numel() for parameter in trainer.parameters())


def _materials(backbone: Backbone, job: _Job) -> Materials:
    """Encode the photos, free the VAE's place on the device, move the rest in, draw the prior."""
    scene, recipe, device = job.scene, job.recipe, job.device
    seed = recipe.run.seed
    side = recipe.attention_loss.map_side or map_side(backbone.unet.config, backbone.latent_side)
    backbone.vae.to(device)
    variants = encode_variants(
        backbone,
        scene,
        recipe.augment,
        map_side=side,
        generator=np.random.default_rng([seed, 0]),
    )
    backbone.vae.to("cpu")
    free_cached(torch.device(device))
    store(backbone.unet, recipe.base.quantization, device=device)
    backbone.place(device)
    check_target(backbone, variants[0].moments.mean, torch.Generator().manual_seed(seed))
    prior = None
    if recipe.prior.weight:
        job.tell(Notice(f"the prior: {recipe.prior.n_images} pictures of the untouched base"))
        prior = draw_prior(
            backbone,
            [concept.noun for concept in scene.concepts if not concept.is_background],
            recipe.prior,
            seed=seed,
            cache=job.out / CHECKPOINT.with_name("prior.safetensors"),
            is_text_fixed=not trains_text(recipe),
        )
    return Materials(variants, prior, recipe, job.fingerprint)


def _tell_framing(scene: Scene, size: int, tell: Listener) -> None:
    """Say what is lost where a photo is cut to the training square."""
    for photo in scene.photos:
        names = {k: scene.handles[k] for k in photo.present if k in scene.things}
        for loss in plan_frame(photo, focus=scene.things).warnings(size, names):
            tell(Notice(f"{photo.source}: {loss}"))


def _handles(backbone: Backbone, job: _Job) -> HandleTable:
    settings = job.recipe.handles
    return HandleTable(
        backbone,
        job.scene.concepts,
        n_vectors=settings.n_vectors,
        init=settings.init,
        generator=torch.Generator().manual_seed(job.recipe.run.seed),
    )


def _run(trainer: Trainer, job: _Job, resumed: Checkpoint | None) -> None:
    """Run both phases, or what is left of them."""
    for number in (1, 2):
        is_behind = resumed is not None and resumed.phase > number
        if is_behind or not job.recipe.phases[number - 1].steps:
            continue
        is_inside = resumed is not None and resumed.phase == number
        try:
            trainer.run_phase(number, resumed=resumed if is_inside else None)
        except NonFiniteLossError as error:
            raise _with_last_good(error, trainer, job) from error


def _with_last_good(error: NonFiniteLossError, trainer: Trainer, job: _Job) -> NonFiniteLossError:
    """Keep the last adapter whose numbers are finite; say where it is."""
    path = trainer.checkpoint_path
    if not all_finite(trainer.parameters()):
        if not path.is_file():
            return error
        trainer.go_back(load_checkpoint(path))
    if all_finite(trainer.parameters()):
        kept = save_adapter(_collect(trainer, job), job.out / LAST_GOOD)
        error.hint = f"{error.hint}; the last good adapter lies in {kept}"
        return NonFiniteLossError(error.what, where=error.where, hint=error.hint)
    return error


def _collect(trainer: Trainer, job: _Job) -> Adapter:
    with trainer.as_delivered():
        return assemble_adapter(
            trainer.backbone,
            trainer.table,
            recipe=job.recipe,
            scene=job.scene,
            base_hash=job.base_hash,
            steps=trainer.steps_done,
        )


def _forked_rng(device: str) -> Any:
    """Leave the caller's global generators as they were."""
    kind = torch.device(device)
    devices = [kind.index or 0] if kind.type == "cuda" else []
    return torch.random.fork_rng(devices=devices)


def _ignore(event: Event) -> None:
    """Listen to nothing."""
