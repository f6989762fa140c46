"""The pictures that training drew of an adapter, with the prompts they were drawn from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_scene.adapters.adapter import Adapter
from lora_scene.errors import RecipeError
from lora_scene.recipe import Recipe, parse_recipe
from lora_scene.scenes.union import prompt_for

FOLDER = "samples"
_NAME = re.compile(r"(\d+)-(\d+)\.png")


@dataclass(frozen=True)
class Sample:
    """One picture.

    Attributes:
        path: Where it is.
        prompt: What it was drawn from.
    """

    path: Path
    prompt: str


def last_samples(folder: Path, adapter: Adapter) -> tuple[Sample, ...]:
    """Return the pictures of the last stop, `samples/<step>-<number>.png`, in order.

    Args:
        folder: The adapter's folder.
        adapter: The adapter, whose recipe knows the prompts.
    """
    found = [
        (int(match[1]), int(match[2]), path)
        for path in (folder / FOLDER).glob("*.png")
        if (match := _NAME.fullmatch(path.name)) is not None
    ]
    last = max((step for step, _, _ in found), default=0)
    prompts = _prompts_of(adapter)
    everything = " and ".join(adapter.handles)
    return tuple(
        Sample(path, prompts[number] if number < len(prompts) else everything)
        for step, number, path in sorted(found)
        if step == last
    )


def sample_prompts(recipe: Recipe, handles: Sequence[str]) -> tuple[str, ...]:
    """Return the recipe's sample prompts, or each handle alone and all together."""
    if recipe.run.sample_prompts:
        return recipe.run.sample_prompts
    template = recipe.handles.templates[0]
    alone = tuple(prompt_for([handle], None, template) for handle in handles)
    return (*alone, prompt_for(handles, None, template)) if len(handles) > 1 else alone


def _prompts_of(adapter: Adapter) -> tuple[str, ...]:
    try:
        recipe = parse_recipe(adapter.info.recipe_toml)
    except RecipeError:  # an adapter of another version may hold a recipe that is none here
        return ()
    return sample_prompts(recipe, list(adapter.handles))
