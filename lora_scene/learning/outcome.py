"""From trained parameters to an `Adapter` with its provenance."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace

from lora_scene.adapters.adapter import Adapter, LearnedConcept, TrainingInfo
from lora_scene.adapters.merging import concatenate
from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.sources import public_name
from lora_scene.learning.beginning import Beginning
from lora_scene.learning.handle_table import HandleTable
from lora_scene.learning.lora import learned_modules
from lora_scene.recipe import Recipe, dump_recipe
from lora_scene.scenes.scene import Scene

PACKAGES = (
    "lora-scene",
    "torch",
    "diffusers",
    "peft",
    "transformers",
    "accelerate",
    "safetensors",
    "bitsandbytes",
)


def assemble_adapter(
    backbone: Backbone,
    table: HandleTable,
    *,
    recipe: Recipe,
    scene: Scene,
    base_hash: str,
    steps: tuple[int, int],
    begun: Beginning | None = None,
) -> Adapter:
    """Copy what was learnt to the CPU.

    Args:
        backbone: The base, adapters in place.
        table: The handles.
        recipe: Every setting.
        scene: What was learnt from.
        base_hash: `Backbone.content_hash` before training.
        steps: Optimizer steps done in each phase.
        begun: What is merged into the base, and is to be delivered with what was learnt.
    """
    concepts = tuple(
        LearnedConcept(one.handle, one.noun, one.is_background, rows=table.rows_of(k))
        for k, one in enumerate(table.concepts)
    )
    canvas = backbone.canvas(recipe.base.shape)
    sizes = tuple(canvas.size_for(photo.size) for photo in scene.photos)
    info = TrainingInfo(
        base_model=backbone.name,
        base_hash=base_hash,
        prediction_type=backbone.prediction_type,
        resolution=backbone.resolution,
        recipe_name=recipe.name,
        recipe_toml=dump_recipe(public(recipe)),
        seed=recipe.run.seed,
        steps=steps,
        versions=installed_versions(),
        image_hashes=tuple(photo.digest for photo in scene.photos),
        sizes=sizes if any(size.width != size.height for size in sizes) else (),
        begun=begun.told if begun else "",
    )
    modules = learned_modules(backbone)
    if begun and begun.modules and not recipe.is_full:  # a whole model holds it itself
        modules = concatenate([begun.modules, modules], [1.0, 1.0])
    return Adapter(backbone.family.key, concepts, modules, info)


def public(recipe: Recipe) -> Recipe:
    """Return the recipe without the places of things on this machine."""
    base = recipe.base
    config = base.config and public_name(base.config)
    return replace(recipe, base=replace(base, model=public_name(base.model), config=config))


def installed_versions() -> dict[str, str]:
    """Return the versions of the packages that a result depends on, as far as installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
