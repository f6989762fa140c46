"""Methods: from a protocol's entry to something that draws a scene's concepts.

recipe    train once                                  -> studio with one adapter
separate  train each concept alone, load all together -> studio with K adapters
guided    train nothing                               -> bare studio, led by CLIP
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lora_scene.creating.studio import Studio, open_studio
from lora_scene.errors import RecipeError
from lora_scene.learning.events import Listener
from lora_scene.learning.runs import CHECKPOINT
from lora_scene.learning.training import train
from lora_scene.recipe import Phase, Recipe, load_recipe, quoted
from lora_scene.scenes.run_prompts import known_nouns
from lora_scene.scenes.scene import Scene
from lora_scene.workshop.protocol import Attempt, Method, Protocol


@dataclass(frozen=True)
class Trained:
    """What a method learnt.

    Attributes:
        folders: Of the results; none for `guided`.
        seconds: Of all trainings.
        peak_bytes: Greatest peak memory.
        n_parameters: Numbers that were trained, at most at once.
        image_forwards: Pictures that the UNet saw in training.
    """

    folders: tuple[Path, ...] = ()
    seconds: float = 0.0
    peak_bytes: int = 0
    n_parameters: int = 0
    image_forwards: int = 0

    @property
    def n_bytes(self) -> int:
        """Return the size of the weight files that were learnt; checkpoints are none of them."""
        files = [f for folder in self.folders for f in folder.rglob("*.safetensors")]
        learnt = [file for file in files if file.parent.name != CHECKPOINT.parent.name]
        return sum(file.stat().st_size for file in learnt)


def recipes_of(protocol: Protocol, run: Attempt, *, scene: Scene) -> list[tuple[Recipe, Scene]]:
    """Return what is trained for a run: recipes, seeds and image-forwards in place.

    Raises:
        RecipeError: A recipe is wrong.
    """
    method = run.method
    if method.kind == "guided":
        return []
    recipe = _recipe(protocol, method, run.seed)
    forwards = method.image_forwards or protocol.image_forwards
    if method.kind == "recipe":
        return [(equalised(recipe, forwards, scene), scene)]
    alone = [_alone(scene, k) for k in scene.things]
    return [(equalised(recipe, forwards // len(alone), part), part) for part in alone]


def train_method(
    recipes: Sequence[tuple[Recipe, Scene]],
    folder: Path,
    *,
    device: str,
    listener: Listener | None = None,
) -> Trained:
    """Train what a run needs; finished parts are taken up, an interrupted one goes on.

    Args:
        recipes: As `recipes_of` gives them.
        folder: Of the run.
        device: Where it computes.
        listener: Told what happens.
    """
    results = []
    for number, (recipe, scene) in enumerate(recipes):
        out = folder / f"adapter{number}"
        recipe = replace(recipe, run=replace(recipe.run, watch=0))
        results.append(train(scene, recipe, out=out, device=device, listener=listener))
    return Trained(
        folders=tuple(result.folder for result in results),
        seconds=sum(result.seconds for result in results),
        peak_bytes=max((result.peak_bytes for result in results), default=0),
        n_parameters=max((result.n_trained for result in results), default=0),
        image_forwards=sum(forwards_of(*one) for one in recipes),
    )


def open_method(protocol: Protocol, trained: Trained, *, device: str) -> Studio:
    """Load a method's result, or the bare base where nothing was trained."""
    base = protocol.base if not trained.folders or len(trained.folders) > 1 else None
    return open_studio([*trained.folders], base=base, device=device)


def forwards_of(recipe: Recipe, scene: Scene) -> int:
    """Return the pictures that the UNet sees in a whole training, those of the base included."""
    in_steps = sum(_phase_forwards(recipe, phase) for phase in recipe.phases)
    return in_steps + _before_steps(recipe, scene)


def _phase_forwards(recipe: Recipe, phase: Phase) -> int:
    """Return those of a phase's steps; of how many the base is asked is what chance has of it."""
    batch = recipe.run.batch_size * recipe.run.accumulation
    asked = min(phase.steps, phase.draws or phase.steps) if recipe.masked_loss.asks_base else 0
    asked_about = batch * asked * (1 - recipe.ground_share(phase))
    return batch * phase.steps * (1 + (recipe.prior.weight > 0)) + round(asked_about)


def _before_steps(recipe: Recipe, scene: Scene) -> int:
    """Return those of the nouns, looked at once more each, and grounds that the base draws.

    With guidance a step is two. Grounds count also where nothing turns out to be far.
    """
    grounds = recipe.grounds
    if not grounds.is_on:
        return 0
    a_picture = grounds.n_steps * (2 if grounds.guidance > 1 else 1)
    n_nouns = len(known_nouns(scene)) if grounds.far else 0
    return grounds.n_images * a_picture + n_nouns * grounds.n_per_noun * (a_picture + 1)


def equalised(recipe: Recipe, image_forwards: int, scene: Scene) -> Recipe:
    """Scale the phases' steps, and draws, so that the UNet sees so many pictures.

    Raises:
        RecipeError: What the base draws before the first step takes as many alone.
    """
    fixed = _before_steps(recipe, scene)
    if fixed >= image_forwards:
        raise RecipeError(
            "what the base draws before the first step takes all image-forwards",
            where="grounds.n_images",
            expected=f"less than {image_forwards}",
            got=fixed,
        )
    factor = (image_forwards - fixed) / (forwards_of(recipe, scene) - fixed)

    def scaled(n: int) -> int:
        return max(1, round(n * factor)) if n else 0

    first, second = (
        replace(phase, steps=scaled(phase.steps), draws=scaled(phase.draws))
        for phase in recipe.phases
    )
    return replace(recipe, phase1=first, phase2=second)


def _recipe(protocol: Protocol, method: Method, seed: int) -> Recipe:
    beside = protocol.folder / method.recipe
    name = beside if beside.is_file() else method.recipe
    own = (f"base.model={quoted(protocol.base)}", f"run.seed={seed}", "run.sample_every=0")
    recipe = load_recipe(name, [*method.overrides, *own])
    return replace(recipe, name=method.name)


def _alone(scene: Scene, k: int) -> Scene:
    photos = tuple(
        replace(photo, masks=photo.masks[k : k + 1]) for photo in scene.photos if k in photo.present
    )
    return replace(scene, concepts=(scene.concepts[k],), photos=photos)
