"""What the page's fields ask of a training, as settings, and the memory that it takes."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import pandas as pd

from lora_scene.page import look
from lora_scene.recipe import Recipe, load_recipe
from lora_scene.size import Size

STEPS = ("phase1.steps", "phase1.draws", "phase2.steps", "phase2.draws")  # of the two sliders
ASKED = (*STEPS, "base.model", "run.seed", "run.sample_every")  # above the table


@functools.cache
def memory_told(
    recipe: str, base: str, settings: tuple[str, ...], n_concepts: int, photos: tuple[Size, ...]
) -> str:
    """Say what memory a training takes.

    Args:
        recipe: A recipe's name.
        base: The base model; empty for the recipe's.
        settings: What of the recipe is changed.
        n_concepts: Handles in one prompt.
        photos: The photos' sizes.

    Raises:
        LoraSceneError: The base is unknown, or the settings are none.
    """
    from lora_scene.backbones.architectures import find_architecture
    from lora_scene.learning.estimates import estimate_memory

    asked = load_recipe(recipe, settings)
    architecture = find_architecture(base or asked.base.model)
    found = estimate_memory(architecture, asked, n_concepts=n_concepts, photos=photos)
    card = f"fits a card of {found.card} GiB" if found.card else "fits no usual card"
    return look.facts([f"{found.peak_bytes / 1e9:.1f} GB at most on a GPU: {card}"])


def every_of(recipe: Recipe) -> int:
    """Return how often samples are drawn: as the recipe says, else at the start, half way, last."""
    return recipe.run.sample_every or max(recipe.phase1.steps, recipe.phase2.steps) // 2


def _flat(recipe: Recipe) -> dict[str, str]:
    """Return every setting by its dotted name, as TOML writes it."""
    import tomli_w

    found = {}
    for section, values in dataclasses.asdict(recipe).items():
        if isinstance(values, dict):
            for key, value in values.items():
                text = tomli_w.dumps({"value": value}).partition("=")[2].strip()
                found[f"{section}.{key}"] = " ".join(text.split())
    return found


def table_of(recipe: Recipe) -> list[list[str]]:
    """Return a row a setting, but for those with fields of their own."""
    return [[key, value] for key, value in _flat(recipe).items() if key not in ASKED]


def overrides(recipe: str, table: Any) -> list[str]:
    """Return what of a table differs from its recipe."""
    known = _flat(load_recipe(recipe))
    rows = table.values.tolist() if isinstance(table, pd.DataFrame) else table
    return [f"{key}={value}" for key, value in rows if known.get(key, value) != str(value)]


def counted(recipe: str, steps1: int, steps2: int, every: int) -> list[str]:
    """Return what the sliders say; draws that come again grow with their steps."""
    found = [f"run.sample_every={int(every)}"]
    phases = load_recipe(recipe).phases
    for n, phase, steps in zip((1, 2), phases, (int(steps1), int(steps2)), strict=True):
        found.append(f"phase{n}.steps={steps}")
        if phase.draws and steps > phase.steps > 0:
            found.append(f"phase{n}.draws={round(phase.draws * steps / phase.steps)}")
    return found
