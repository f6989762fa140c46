"""Recipes: every setting of a run, as frozen dataclasses that are read from TOML.

    Recipe
    ├── base            which model, at which size, how it is stored
    ├── handles         how rows start, how many stand for a handle, how prompts name them
    ├── lora / full     what phase 2 trains in the model
    ├── masked_loss     where the diffusion loss counts
    ├── attention_loss  how the handles' maps are held to the masks
    ├── prior           pictures of the base that keep it what it is
    ├── grounds         where things are shown, as the base draws it
    ├── augment         flips, crops, recompositions
    ├── phase1, phase2  steps, rates, sampling and attention weights of each phase
    ├── optimizer       its name and constants
    └── run             batch, seed, checkpoints, samples

A file may say `extends = "paper"` and then only what differs. All problems are reported at once.
"""

from lora_scene.recipe.consistency import doubts, idle_settings
from lora_scene.recipe.reading import (
    dump_recipe,
    flat_settings,
    load_recipe,
    parse_recipe,
    quoted,
    recipe_names,
    recipe_text,
    refuse_orphan,
)
from lora_scene.recipe.settings import (
    AttentionLoss,
    Base,
    Full,
    Handles,
    Lora,
    MaskedLoss,
    Optimizer,
    Phase,
    Run,
)
from lora_scene.recipe.shown import Augment, Grounds, Prior
from lora_scene.recipe.tree import Recipe

__all__ = [
    "AttentionLoss",
    "Augment",
    "Base",
    "Full",
    "Grounds",
    "Handles",
    "Lora",
    "MaskedLoss",
    "Optimizer",
    "Phase",
    "Prior",
    "Recipe",
    "Run",
    "doubts",
    "dump_recipe",
    "flat_settings",
    "idle_settings",
    "load_recipe",
    "parse_recipe",
    "quoted",
    "recipe_names",
    "recipe_text",
    "refuse_orphan",
]
