"""What the untouched base draws before the first step: the prior, nouns, and grounds."""

from __future__ import annotations

from collections.abc import Sequence

from lora_scene.backbones.backbone import Backbone
from lora_scene.learning.attention import read_level
from lora_scene.learning.colours import Drawing, colour_distances
from lora_scene.learning.events import Notice
from lora_scene.learning.grounds import GroundSet, draw_grounds
from lora_scene.learning.job import Job
from lora_scene.learning.latents import EncodedVariant
from lora_scene.learning.prior import PriorSet, draw_prior, trains_text
from lora_scene.learning.runs import CHECKPOINT
from lora_scene.recipe import Recipe
from lora_scene.scenes.scene import Scene
from lora_scene.size import Size


def prior_of(backbone: Backbone, job: Job, variants: Sequence[EncodedVariant]) -> PriorSet:
    """Draw the prior's pictures in the sizes of the variants, or find them in the checkpoint."""
    scene, recipe = job.scene, job.recipe
    shares = _shares(variants)
    n = max(recipe.prior.n_images, len(shares))
    job.tell(Notice(f"the prior: {n} pictures of the untouched base"))
    return draw_prior(
        backbone,
        [concept.noun for concept in scene.concepts if not concept.is_background],
        recipe.prior,
        shares=shares,
        seed=recipe.run.seed,
        cache=job.out / CHECKPOINT.with_name("prior.safetensors"),
        is_text_fixed=not (trains_text(recipe) or _names_a_handle(recipe, scene)),
        base=_drawn_by(backbone, job),
    )


def grounds_of(
    backbone: Backbone, job: Job, variants: Sequence[EncodedVariant]
) -> GroundSet | None:
    """Draw the grounds in the sizes of the variants, or find them in the checkpoint.

    Returns:
        None where every thing has colours that the base expects.
    """
    settings, shares = job.recipe.grounds, _shares(variants)
    things = far_things(backbone, job)
    if not things:
        return None
    n = max(settings.n_images, len(shares))
    job.tell(Notice(f"the grounds: {n} pictures of the untouched base"))
    return draw_grounds(
        backbone,
        settings,
        things,
        shares=shares,
        seed=job.recipe.run.seed,
        cache=job.out / CHECKPOINT.with_name("grounds.safetensors"),
        base=_drawn_by(backbone, job),
    )


def far_things(backbone: Backbone, job: Job) -> frozenset[int]:
    """Return the indices of things with colours that the base does not expect; tell of all."""
    scene, recipe = job.scene, job.recipe
    if not recipe.grounds.far:
        return frozenset(scene.things)
    drawing = Drawing(
        recipe.grounds,
        recipe.handles.templates[0],
        read_level(backbone, recipe),
        recipe.run.seed,
        job.out / CHECKPOINT.with_name("nouns.safetensors"),
        _drawn_by(backbone, job),
    )
    away = colour_distances(backbone, scene, drawing)
    told = ", ".join(f"{scene.concepts[k].handle} {value:.0f}" for k, value in away.items())
    rule = f"from {recipe.grounds.far:g} on, a thing is shown on grounds"
    job.tell(Notice(f"colours, from the nearest that the base gives the noun: {told}; {rule}"))
    return frozenset(k for k, value in away.items() if value >= recipe.grounds.far)


def _shares(variants: Sequence[EncodedVariant]) -> dict[Size, float]:
    """Return how often each size, in cells of the latents, is drawn."""
    shares: dict[Size, float] = {}
    for one in variants:
        shares[one.latents] = shares.get(one.latents, 0.0) + one.probability
    return shares


def _drawn_by(backbone: Backbone, job: Job) -> tuple[object, ...]:
    """Return what tells the numbers of the base from others of the same name."""
    begun = job.begun.mark if job.begun else ""
    return job.base_hash, begun, backbone.dtype, job.recipe.base.quantization


def _names_a_handle(recipe: Recipe, scene: Scene) -> bool:
    """Tell whether a prompt of the prior reads rows, which move while they are trained."""
    prompts = " ".join(recipe.prior.prompts).casefold()
    return any(handle.casefold() in prompts for handle in scene.handles)
