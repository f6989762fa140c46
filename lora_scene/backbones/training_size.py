"""The size at which a base is trained: what suits it, and what is known before it is loaded."""

from __future__ import annotations

from pathlib import Path

from lora_scene.backbones.architectures import ARCHITECTURES, KNOWN_IDS
from lora_scene.backbones.families import FAMILIES, check_resolution
from lora_scene.backbones.pipeline_folder import StatedSizes, sizes_of, stated_sizes
from lora_scene.backbones.sources import EMBEDDED, public_name, resolve_model
from lora_scene.errors import BackboneError
from lora_scene.recipe import Base, Recipe
from lora_scene.scenes.canvas import WRONG_SIZE, Canvas

STRANGE_SIZE = 1.5  # a base's own size against the one it is trained at, or the other way
FORCE = "base.force=true takes it all the same"


def usual_canvas(recipe: Recipe) -> Canvas:
    """Return what training sees by a recipe, without loading its base.

    Args:
        recipe: Of `mini`, a folder and the usual hub ids the base's own sizes are known; of all
            others, those of the family are taken.

    Raises:
        BackboneError: Training would refuse its size.
    """
    base, side = recipe.base, recipe.attention_loss.map_side
    known = _known_sizes(base.model)
    if known is None:
        family = FAMILIES[base.family or "sd1"]
        resolution, cells = base.resolution or family.resolution, family.cells
        check_resolution(resolution, family.cells[0])
    else:
        resolution = check_stated_size(known, base, where=public_name(base.model))
        cells = (known.multiple, known.latent_cell, known.map_cell)
    multiple, latent_cell, map_cell = cells
    map_cell = max(resolution // side, 1) if side else map_cell
    own = 0 if known is None else known.own
    return Canvas(resolution, multiple, latent_cell, map_cell, base.shape, own)


def usual_doubts(recipe: Recipe) -> tuple[str, ...]:
    """Say what training would of its size, where the base's own is known without loading it."""
    base, known = recipe.base, _known_sizes(recipe.base.model)
    if known is None or not base.resolution:
        return ()
    return strange_size(known.own, base.resolution, public_name(base.model))


def check_stated_size(stated: StatedSizes, base: Base, *, where: object) -> int:
    """Return the size at which a base is trained; refuse one that does not suit it.

    Args:
        stated: What its configurations say.
        base: The recipe's section.
        where: What the base is called.

    Raises:
        BackboneError: It is no multiple of what the base can halve, or, unless `base.force` is
            set, more than twice off.
    """
    resolution = base.resolution or stated.own
    check_resolution(resolution, stated.multiple)
    problem = None if base.force else wrong_size(stated.own, resolution, where)
    if problem is not None:
        raise problem
    return resolution


def wrong_size(own: int, resolution: int, where: object) -> BackboneError | None:
    """Return what speaks against training a base made for `own` at `resolution`, both pixels."""
    if _ratio(own, resolution) <= WRONG_SIZE:
        return None
    return BackboneError(
        f"the base was made for {own} px",
        where=where,
        expected=f"base.resolution={own}, or up to twice or half of it",
        got=resolution,
        hint=f"take a recipe of its family (lora-scene recipes), or {FORCE}",
    )


def strange_size(own: int, resolution: int, where: object) -> tuple[str, ...]:
    """Say that a size, pixels, is far from the base's own, if it is."""
    if not STRANGE_SIZE <= _ratio(own, resolution) <= WRONG_SIZE:
        return ()
    return (
        f"{where} was made for {own} px, and this recipe trains it at {resolution}: "
        f"take a recipe of its family, or base.resolution={own}",
    )


def _known_sizes(model: str) -> StatedSizes | None:
    """Return a base's sizes, if they are known on this machine before it is loaded."""
    if model in KNOWN_IDS:
        architecture = ARCHITECTURES[KNOWN_IDS[model]]
        return sizes_of(architecture.unet, architecture.vae)
    folder = Path(resolve_model(model) if model == EMBEDDED else model).expanduser()
    return stated_sizes(folder) if folder.is_dir() else None


def _ratio(a: int, b: int) -> float:
    return max(a, b) / min(a, b)
