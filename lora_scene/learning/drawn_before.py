"""What the untouched base draws before the first step: the prior, nouns, and grounds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.prompt_room import NO_GROUNDS
from lora_scene.files import write_json
from lora_scene.learning.attention import read_level
from lora_scene.learning.colours import colour_distances
from lora_scene.learning.events import Notice
from lora_scene.learning.grounds import GroundSet, draw_grounds
from lora_scene.learning.handle_table import HandleTable, refuse_cut
from lora_scene.learning.job import Job
from lora_scene.learning.latents import EncodedVariant
from lora_scene.learning.prior import PriorSet, draw_prior, trains_text
from lora_scene.learning.runs import CHECKPOINT, COLOURS, GROUNDS, PRIOR
from lora_scene.learning.step import Materials
from lora_scene.ownership import is_ours
from lora_scene.recipe import Grounds, Recipe
from lora_scene.scenes.run_prompts import known_nouns, longest_on_grounds, prior_prompts
from lora_scene.scenes.scene import Scene
from lora_scene.size import Size


def draw_before(
    backbone: Backbone, job: Job, table: HandleTable, materials: Materials
) -> Materials:
    """Let the base draw all that a run needs of it; what would be cut is refused before.

    Only whether things are far, on which grounds hang, is seen in pictures.

    Args:
        backbone: The base, before anything is trained.
        job: The run.
        table: The handles, not spliced in.
        materials: The photos.

    Raises:
        SceneError: A prompt would be cut.
    """
    variants = materials.variants
    refuse_cut(backbone, prompts_of_prior(job, variants), "prior.prompts")
    colours = colours_of(backbone, job)
    things = things_on_grounds(job, colours)
    refuse_cut_on_grounds(backbone, job, table, variants, things)
    prior = prior_of(backbone, job, variants)
    grounds = grounds_of(backbone, job, variants, things)
    return replace(materials, prior=prior, grounds=grounds, colours=colours)


def prior_of(backbone: Backbone, job: Job, variants: Sequence[EncodedVariant]) -> PriorSet | None:
    """Draw the prior's pictures in the sizes of the variants, or find them in the checkpoint.

    Returns:
        None where they would move nothing.
    """
    scene, recipe = job.scene, job.recipe
    if not recipe.has_prior:
        return None
    shares = _shares(variants)
    n = max(recipe.prior.n_images, len(shares))
    job.tell(Notice(f"the prior: {n} pictures of the untouched base"))
    return draw_prior(
        backbone,
        _nouns_of(scene),
        recipe.prior,
        shares=shares,
        seed=recipe.run.seed,
        cache=job.out / CHECKPOINT.with_name(PRIOR),
        is_text_fixed=not (trains_text(recipe) or _names_a_handle(recipe, scene)),
        base=_drawn_by(backbone, job),
    )


def prompts_of_prior(job: Job, variants: Sequence[EncodedVariant]) -> list[str]:
    """Return what `prior_of` draws from."""
    settings = job.recipe.prior
    n = max(settings.n_images, len(_shares(variants))) if job.recipe.has_prior else 0
    return prior_prompts(settings, _nouns_of(job.scene))[:n]


def colours_of(backbone: Backbone, job: Job) -> dict[str, float]:
    """See how far things' colours are from those that the base expects, by handle; tell it.

    A run that goes on reads what it saw: a number near the limit may be another on another device.

    Returns:
        Nothing where nothing hangs on it.
    """
    scene, recipe, settings = job.scene, job.recipe, job.recipe.grounds
    nouns = known_nouns(scene)
    if not (settings.is_on and settings.far):
        return {}
    if not nouns:
        job.tell(
            Notice("no thing has a noun, whose colours could be others: nothing is on grounds")
        )
        return {}
    kept = job.out / CHECKPOINT.with_name(COLOURS)
    away = read_colours(kept, job.fingerprint)
    if away is None:
        n = settings.n_per_noun * len(nouns)
        job.tell(Notice(f"the nouns: {n} pictures of the untouched base, to see their colours"))
        template, level = recipe.handles.templates[0], read_level(backbone, recipe)
        away = colour_distances(backbone, scene, settings, template=template, level=level)
        write_json(kept, {"fingerprint": job.fingerprint, "distances": away})
    far = [handle for handle, value in away.items() if value >= settings.far]
    seen = ", ".join(f"{handle} {value:.1f}" for handle, value in away.items())
    follows = f"on grounds: {', '.join(far)}" if far else "no grounds are needed"
    said = f"how far colours are from the nearest that the base gives the noun: {seen}"
    job.tell(Notice(f"{said}; at grounds.far={settings.far:g}, {follows}"))
    return away


def read_colours(path: Path, fingerprint: str) -> dict[str, float] | None:
    """Return what this run saw before it was interrupted; None where that is not to be had."""
    if not is_ours(path):
        return None
    kept = json.loads(path.read_text("utf-8"))
    return kept["distances"] if kept.get("fingerprint") == fingerprint else None


def things_on_grounds(job: Job, colours: Mapping[str, float]) -> frozenset[int]:
    """Return the indices of the things that are to stand on grounds, if any sample is shown so.

    Args:
        job: The run.
        colours: As `colours_of` returns them.
    """
    settings, scene = job.recipe.grounds, job.scene
    if not settings.is_on:
        return frozenset()
    away = {k: colours.get(scene.concepts[k].handle, 0.0) for k in scene.things}
    return frozenset(k for k, value in away.items() if value >= settings.far)


def refuse_cut_on_grounds(
    backbone: Backbone,
    job: Job,
    table: HandleTable,
    variants: Sequence[EncodedVariant],
    things: frozenset[int],
) -> None:
    """Refuse grounds whose prompts would be cut, and prompts that would be once they say of them.

    Args:
        backbone: The base.
        job: The run.
        table: The handles, not spliced in.
        variants: The photos, encoded.
        things: As `things_on_grounds` returns them.

    Raises:
        SceneError: So one would be.
    """
    if not things:
        return
    settings = job.recipe.grounds
    n = max(settings.n_images, len(_shares(variants)))
    refuse_cut(backbone, settings.prompts[:n], "grounds.prompts")
    named = longest_on_grounds(variants, table.concepts, job.recipe, things)
    with table.spliced():
        table.refuse_cut(named, "grounds.phrases", NO_GROUNDS)


def grounds_of(
    backbone: Backbone,
    job: Job,
    variants: Sequence[EncodedVariant],
    things: frozenset[int],
) -> GroundSet | None:
    """Draw the grounds in the sizes of the variants, or find them in the checkpoint.

    Args:
        backbone: The base.
        job: The run.
        variants: The photos, encoded.
        things: As `things_on_grounds` returns them.

    Returns:
        None where nothing is to stand on one.
    """
    settings, scene, shares = job.recipe.grounds, job.scene, _shares(variants)
    if not things:
        return None
    for text in _with_things_on(scene, settings):
        job.tell(Notice(text))
    n = max(settings.n_images, len(shares))
    job.tell(Notice(f"the grounds: {n} pictures of the untouched base"))
    return draw_grounds(
        backbone,
        settings,
        things,
        shares=shares,
        seed=job.recipe.run.seed,
        cache=job.out / CHECKPOINT.with_name(GROUNDS),
        base=_drawn_by(backbone, job),
    )


def _with_things_on(scene: Scene, settings: Grounds) -> Iterator[str]:
    """Yield a sentence for each text of a ground that names what is to be learnt."""
    nouns = {scene.concepts[k].noun.casefold() for k in scene.things}
    for text in dict.fromkeys((*settings.prompts, *settings.phrases)):
        for noun in sorted(nouns):
            if re.search(rf"\b{re.escape(noun)}s?\b", text.casefold()):
                yield f"a ground with another {noun} on it? grounds says {text!r}"


def _nouns_of(scene: Scene) -> list[str]:
    return [scene.concepts[k].noun for k in scene.things]


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
