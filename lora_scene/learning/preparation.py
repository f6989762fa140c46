"""What is made ready before the first step, and all that can be refused by then."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lora_scene.adapters.gallery import sample_prompts
from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.fitness import (
    check_family,
    check_prediction,
    check_trainable,
)
from lora_scene.backbones.loading import DTYPES, load_pipeline, peek_family, resolve_dtype
from lora_scene.backbones.pipeline_folder import stated_sizes
from lora_scene.backbones.sources import is_hub_id, public_name
from lora_scene.backbones.storage import check_storage, store
from lora_scene.backbones.switches import switch_on
from lora_scene.backbones.training_size import check_stated_size
from lora_scene.errors import RecipeError, did_you_mean
from lora_scene.learning.attention import read_level
from lora_scene.learning.beginning import Beginning, put_rows
from lora_scene.learning.devices import free_cached, mixed_precision
from lora_scene.learning.events import Listener, Notice
from lora_scene.learning.handle_table import HandleTable
from lora_scene.learning.held import refuse_cut_held, telling_photos
from lora_scene.learning.job import Job
from lora_scene.learning.latents import (
    EncodedVariant,
    encode_variants,
    refuse_never_shown,
    refuse_unseen,
    show_variants,
)
from lora_scene.learning.lineage import lineages
from lora_scene.learning.lora import unet_targets
from lora_scene.learning.optimizers import optimizer_library
from lora_scene.learning.runs import kept_lineage
from lora_scene.learning.step import Materials
from lora_scene.recipe import Augment, Recipe, doubts
from lora_scene.scenes.canvas import Canvas
from lora_scene.scenes.handles import HANDLE_FORM
from lora_scene.scenes.masks import report_on
from lora_scene.scenes.run_prompts import longest_prompts
from lora_scene.scenes.scene import Scene


def load_base(
    scene: Scene, recipe: Recipe, device: str, tell: Listener, begin: Beginning | None = None
) -> Backbone:
    """Load the base into the host's memory, in the dtype that the device will compute in.

    Raises:
        AdapterError: `begin` is of another family.
        BackboneError: It cannot be had, or does not suit the recipe.
        RecipeError: The device cannot train in the recipe's dtype.
        SceneError: Too little of a concept is left at its size, which is known before its weights.
    """
    base = recipe.base
    family = peek_family(base.model)
    check_family(family, base, where=public_name(base.model))
    if begin is not None:
        begin.refuse_other_family(family)
    if is_hub_id(base.model):
        tell(Notice(f"loading {base.model}; the first time it is downloaded, several gigabytes"))
    kind = resolve_dtype(base.dtype, device)
    mixed_precision(kind, torch.device(device))  # what cannot be is refused before weights are read
    check_storage(base.quantization, device)
    name_of = {dtype: name for name, dtype in DTYPES.items()}
    pipeline = load_pipeline(
        base.model,
        dtype=name_of[kind],  # type: ignore[arg-type]
        config=base.config or None,
        look=partial(_check_sizes, scene=scene, recipe=recipe),
    )
    backbone = Backbone(pipeline, name=public_name(base.model), resolution=base.resolution)
    switch_on(backbone.unet, base, device=device)
    return backbone


def _check_sizes(folder: Path, *, scene: Scene, recipe: Recipe) -> None:
    """Refuse what the configurations of a base tell of sizes, before its weights are there."""
    stated, base = stated_sizes(folder), recipe.base
    if stated is None:
        return
    resolution = check_stated_size(stated, base, where=public_name(base.model))
    if recipe.attention_loss.map_side:
        return  # whether there are such maps, the layers tell
    canvas = Canvas(resolution, stated.multiple, stated.latent_cell, stated.map_cell, base.shape)
    variants = show_variants(
        scene,
        recipe.augment,
        canvas=canvas,
        generator=np.random.default_rng([recipe.run.seed, 0]),  # as `prepare_materials`
        resize=recipe.masked_loss.resize,
    )
    shown = (one for _, one in variants)
    refuse_never_shown(shown, scene.concepts, recipe.masked_loss.resize)


def check_early(backbone: Backbone, recipe: Recipe, tell: Listener) -> None:
    """Find what would stop a later phase before the first one is paid for; tell what is odd.

    Raises:
        BackboneError: The base cannot be trained.
        RecipeError: A target or a side of maps that the base has not, or a missing library.
    """
    phases = [phase for phase in recipe.phases if phase.steps]
    if any(phase.trains == "lora" for phase in phases):
        unet_targets(backbone.unet, recipe.lora)
    if any(phase.trains != "rows" for phase in phases):
        optimizer_library(recipe.optimizer.name)
    if recipe.run.watch or any(p.attention_weight or p.pairwise_weight for p in phases):
        read_level(backbone, recipe)
    for notice in (*check_trainable(backbone, recipe.base), *doubts(recipe)):
        tell(Notice(notice))


def refuse_no_steps(recipe: Recipe) -> None:
    """Refuse a recipe that trains nothing.

    Raises:
        RecipeError: So it is.
    """
    if not any(phase.steps for phase in recipe.phases):
        raise RecipeError("nothing would be trained", where="phase1.steps", got="0 in each phase")


def check_asked(scene: Scene, recipe: Recipe) -> None:
    """Refuse what cannot be meant, and needs no base to be seen: no steps, or strange handles.

    Raises:
        RecipeError: So it is.
    """
    refuse_no_steps(recipe)
    _refuse_things_on_grounds(recipe)
    known = {handle.casefold() for handle in scene.handles}
    for prompt in recipe.run.sample_prompts:
        for handle in HANDLE_FORM.findall(prompt):
            if handle.casefold() not in known:
                raise RecipeError(
                    f"the scene has no {handle}",
                    where="run.sample_prompts",
                    expected=", ".join(scene.handles),
                    got=prompt,
                    hint=did_you_mean(handle, scene.handles),
                )


def _refuse_things_on_grounds(recipe: Recipe) -> None:
    """Refuse grounds that are asked for with a thing on them, or said with one.

    Raises:
        RecipeError: So it is.
    """
    if not recipe.grounds.prob:
        return
    for key, texts in (("prompts", recipe.grounds.prompts), ("phrases", recipe.grounds.phrases)):
        for text in texts:
            if HANDLE_FORM.search(text):
                raise RecipeError(
                    "a ground has no things on it",
                    where=f"grounds.{key}",
                    expected="a place, without a handle",
                    got=text,
                )


def lineage_on(
    backbone: Backbone, scene: Scene, recipe: Recipe, begin: Beginning | None, out: Path
) -> tuple[str, str]:
    """Return the hash of a base that nothing was done to yet, and a run's lineage on it.

    It is the earlier form of it where `out` holds the run under that one; see `lineages`.
    """
    base_hash = backbone.content_hash()
    below = base_hash.partition(".")[0] + backbone.text_hash() + (begin.mark if begin else "")
    now, before = lineages(scene, recipe, below)
    return base_hash, before if kept_lineage(out) == before else now


def canvas_of(backbone: Backbone, recipe: Recipe) -> Canvas:
    """Return the sizes at which a recipe shows photos to a base."""
    return backbone.canvas(recipe.base.shape, level=read_level(backbone, recipe))


def prepare_materials(backbone: Backbone, job: Job) -> Materials:
    """Encode the photos, free the VAE's place on the device, move the rest in.

    Raises:
        BackboneError: Its weights cannot be stored as asked, or predict another target than stated.
        SceneError: A concept that no variant shows enough of, or a prompt that would be cut.
    """
    scene, recipe, device = job.scene, job.recipe, job.device
    seed = recipe.run.seed
    backbone.vae.to(device)
    variants = encode_variants(
        backbone,
        scene,
        recipe.augment,
        canvas=canvas_of(backbone, recipe),
        generator=np.random.default_rng([seed, 0]),
        resize=recipe.masked_loss.resize,
    )
    refuse_unseen(variants, scene.concepts, recipe.masked_loss.resize)
    held = _held_photos(backbone, scene, recipe) if recipe.run.watch else ()
    backbone.vae.to("cpu")
    free_cached(torch.device(device))
    store(backbone.unet, recipe.base.quantization, device=device)
    backbone.place(device)
    check_prediction(backbone, variants[0].moments.mean, torch.Generator().manual_seed(seed))
    return Materials(variants, None, recipe, job.fingerprint, held)


def _held_photos(backbone: Backbone, scene: Scene, recipe: Recipe) -> tuple[EncodedVariant, ...]:
    """Encode some photos as they are, neither mirrored nor rearranged."""
    return encode_variants(
        backbone,
        replace(scene, photos=telling_photos(scene)),
        Augment(flip_prob=0.0),
        canvas=canvas_of(backbone, recipe),
        generator=np.random.default_rng(0),
        resize=recipe.masked_loss.resize,
    )


def prepare_handles(backbone: Backbone, job: Job, materials: Materials) -> HandleTable:
    """Put the handles' rows together, and see that every prompt with them is read whole.

    Raises:
        AdapterError: What the run begins from has another number of rows a handle.
        SceneError: A handle is a token of the base already, or a prompt would be cut.
    """
    settings = job.recipe.handles
    table = HandleTable(
        backbone,
        job.scene.concepts,
        n_vectors=settings.n_vectors,
        init=settings.init,
        generator=torch.Generator().manual_seed(job.recipe.run.seed),
    )
    if job.begun is not None:
        put_rows(job.begun, table, job.tell)
    handles = [concept.handle for concept in table.concepts]
    with table.spliced():
        longest = longest_prompts(materials.variants, table.concepts, job.recipe)
        table.refuse_cut(longest, "handles.templates")
        if job.recipe.run.patience:
            refuse_cut_held(table, materials.held, materials.recipe)
        if job.recipe.run.sample_every:
            table.refuse_cut(sample_prompts(job.recipe, handles), "run.sample_prompts")
    return table


def tell_doubts(scene: Scene, backbone: Backbone, recipe: Recipe, tell: Listener) -> None:
    """Say what `check` would warn of at this size, on the grids of this base."""
    canvas, resize = canvas_of(backbone, recipe), recipe.masked_loss.resize
    for said in report_on(scene, canvas, resize=resize).warnings:
        tell(Notice(said))
