"""The prompts that a run will read, known from its scene and recipe before anything is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from lora_scene.recipe import Prior, Recipe
from lora_scene.recipe.templates import fill
from lora_scene.scenes.handles import UNNAMED_NOUN, Concept
from lora_scene.scenes.scene import Scene
from lora_scene.scenes.union import prompt_for


class Told(Protocol):
    """What a prompt tells of a picture."""

    @property
    def present(self) -> tuple[int, ...]:
        """Return the concepts that the picture shows."""

    @property
    def caption_suffix(self) -> str:
        """Return what the prompt adds behind them."""


@dataclass(frozen=True)
class Named:
    """What a prompt tells of a picture, without the picture; see `Told`."""

    present: tuple[int, ...]
    caption_suffix: str = ""


def longest_prompts(
    shown: Iterable[Told],
    concepts: Sequence[Concept],
    recipe: Recipe,
    *,
    about: frozenset[int] | None = None,
) -> tuple[str, ...]:
    """Return the longest prompts of a run: all that a picture shows, in each template.

    Args:
        shown: The pictures.
        concepts: All that there are.
        recipe: How they are named.
        about: Leaves out prompts that name none of these; None leaves out none.
    """
    is_single = all(phase.sampling == "single" for phase in recipe.phases if phase.steps)
    found = []
    for present, suffix in {(one.present, one.caption_suffix) for one in shown}:
        for subset in [(k,) for k in present] if is_single else [present]:
            if about is not None and about.isdisjoint(subset):
                continue
            names = [concepts[k].handle for k in subset]
            nouns = [concepts[k].noun for k in subset]
            read = [(names, nouns if recipe.handles.with_nouns else None)]
            read += [(nouns, None)] if recipe.masked_loss.asks_base else []  # by the base alone
            for template in recipe.handles.templates:
                found += [prompt_for(*each, template) + suffix for each in read]
    return tuple(found)


def longest_on_grounds(
    shown: Iterable[Told],
    concepts: Sequence[Concept],
    recipe: Recipe,
    far: frozenset[int],
) -> tuple[str, ...]:
    """Return the longest prompts of a run that say on which ground things are, the `far` ones."""
    things = {k for k, concept in enumerate(concepts) if not concept.is_background}
    fitting = [
        Named(tuple(k for k in one.present if k in things))
        for one in shown
        if not one.caption_suffix and things.intersection(one.present)
    ]
    unasked = replace(recipe.masked_loss, outside_target="data")  # the base reads none of them
    prompts = longest_prompts(fitting, concepts, replace(recipe, masked_loss=unasked), about=far)
    return tuple(f"{prompt} {said}" for prompt in prompts for said in recipe.grounds.phrases)


def prior_prompts(settings: Prior, nouns: Sequence[str]) -> list[str]:
    """Return what the base draws in turn before the first step: each prompt with each noun."""
    return [fill(template, noun) for template in settings.prompts for noun in nouns]


def known_nouns(scene: Scene) -> tuple[str, ...]:
    """Return the nouns of a scene's things, each once; what has none is only an object."""
    nouns = dict.fromkeys(scene.concepts[k].noun for k in scene.things)
    return tuple(noun for noun in nouns if noun != UNNAMED_NOUN)
