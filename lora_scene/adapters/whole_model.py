"""The whole model that a run fine-tuned: it lies beside the adapter, which holds the rows alone.

Those rows are worth nothing on the base that it began from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lora_scene.adapters.adapter import Adapter
from lora_scene.backbones.sources import find_base
from lora_scene.errors import CreationError, RecipeError
from lora_scene.recipe import parse_recipe

FULL_MODEL = "pipeline"  # in the run's folder
ROWS_ALONE = (
    "the run fine-tuned a whole model, of which these are the rows alone: they show their things "
    "on that model and on no other; `export --format pipeline` writes both"
)


def whole_model(folder: Path) -> Path | None:
    """Return where a run's whole model lies, or None where there is none."""
    path = folder / FULL_MODEL
    return path if (path / "model_index.json").is_file() else None


def needs_whole_model(adapter: Adapter) -> bool:
    """Tell whether an adapter is what a fully fine-tuned run left beside its model."""
    try:
        recipe = parse_recipe(adapter.info.recipe_toml)
    except RecipeError:  # of several merged ones, or of another version
        return False
    return recipe.is_full and not adapter.modules


def own_model(adapters: Mapping[str, Adapter], folder: Path | None) -> Path | None:
    """Return the whole model on which adapters are to be drawn: the first one's, if it has one.

    Args:
        adapters: By what they are called, in order.
        folder: Where the first one lies, if it was read from one.

    Raises:
        CreationError: One of them needs a whole model that is not that.
    """
    found = whole_model(folder) if folder else None
    for name, adapter in list(adapters.items())[0 if found is None else 1 :]:
        if needs_whole_model(adapter):
            raise CreationError(
                "the whole model that its run trained is not there, and its rows fit no other",
                where=name,
                hint="pass that model's folder as --base",
            )
    return found


def base_of(adapter: Adapter, folder: Path) -> str:
    """Return what an adapter in a folder is drawn on: its run's whole model, else its base.

    Raises:
        CreationError: See `own_model`.
    """
    found = own_model({folder.name: adapter}, folder)
    info = adapter.info
    return str(found or find_base(info.base_model, base_hash=info.base_hash, near=folder))
