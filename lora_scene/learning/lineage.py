"""What tells runs apart: all that decides a run's result, as one hash.

A run goes on in its folder where its own lineage lies there.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from lora_scene.backbones.sources import public_name
from lora_scene.recipe import Recipe, dump_recipe
from lora_scene.scenes.scene import Scene

BESIDE: Mapping[str, Any] = {  # of what is trained, and what `run_fingerprint` takes it for
    "checkpoint_every": 0,
    "sample_every": 0,
    "sample_prompts": (),
    "snapshots": 0,
    "watch": 0,
    "patience": 0,
}
HOW: Mapping[str, Any] = {  # a base computes the same, and what `lineages` takes it for
    "force": False,
    "family": "",
    "compile": False,
    "gradient_checkpointing": False,
}


def run_fingerprint(scene: Scene, recipe: Recipe, base_hash: str) -> str:
    """Return the sha256 of all that decides a run's result.

    What a recipe is called, how often it is saved and how it is watched does not.
    """
    run = replace(recipe.run, **BESIDE)
    settings = dump_recipe(replace(recipe, run=run, name="", description=""))
    for later in ('shape = "square"\n', "snapshots = 0\n", "watch = 0\n", "patience = 0\n"):
        settings = settings.replace(later, "")  # runs from before there was a choice
    if not recipe.grounds.prob:
        settings = re.sub(r"(?m)^\[grounds\]\n(?:.+\n)+\n?", "", settings)
    elif not recipe.grounds.far:  # no noun is drawn
        settings = re.sub(r"(?m)^far = 0\.0\nn_per_noun = \d+\n", "", settings)
    digest = hashlib.sha256(settings.encode())
    digest.update(base_hash.encode())
    for part in scene_bytes(scene):
        digest.update(part)
    return digest.hexdigest()


def lineages(scene: Scene, recipe: Recipe, base_hash: str) -> tuple[str, str]:
    """Return the fingerprint that runs share which differ in the last phase's length alone.

    Or in where the base lies and how it computes. The second is that of runs which were begun
    before these did not count.
    """
    alike = replace(recipe, phase2=replace(recipe.phase2, steps=1))
    places = (recipe.base.model, recipe.base.config)
    model, config = (place and public_name(place) for place in places)
    base = replace(recipe.base, model=model, config=config, **HOW)
    return (
        run_fingerprint(scene, replace(alike, base=base), base_hash),
        run_fingerprint(scene, alike, base_hash),
    )


def scene_bytes(scene: Scene) -> Iterator[bytes]:
    """Yield all of a scene that decides what is learnt from it."""
    for concept in scene.concepts:
        yield repr(concept).encode()
    for photo in scene.photos:
        yield photo.pixels.tobytes()
        yield photo.masks.tobytes()
