"""Whether things of colours that the base does not expect of their noun are learnt as well.

    python -m benchmarks.colours ROWS [ROWS ...] [--methods ours full no-mask] [--out FILE]
    python -m benchmarks.colours ROWS [ROWS ...] --things [--out FILE]

The base draws every noun of the rows' scenes on three grounds, two seeds each; a thing's distance
is that of two mean CIELAB colours (CIE76): of its mask in the photo, and of what the judge finds in
those pictures. The things are cut into quarters by it; a line a quarter tells the mean distance and
every method's mean identity. With `--things`, a line a thing tells that distance, and the one that
a run of recipe `mini` sees by itself, which knows no judge.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.layouts import PLAN, SCENES
from benchmarks.records import circumstances, write
from lora_scene.backbones.backbone import Backbone
from lora_scene.creating.rendering import checked, render
from lora_scene.creating.requests import Request
from lora_scene.creating.studio import Studio, open_studio
from lora_scene.judging.finding import Finder
from lora_scene.judging.judge import load_judge
from lora_scene.judging.mini import with_article
from lora_scene.learning.attention import read_level
from lora_scene.learning.colours import colour_distances, mean_colour
from lora_scene.recipe import Recipe, load_recipe
from lora_scene.scenes.framing import frame_scene
from lora_scene.scenes.scene import Scene, load_scene
from lora_scene.workshop.results import known_rows
from lora_scene.workshop.statistics import Row

QUARTERS = 4
Thing = tuple[str, str]
"""A scene's name and a handle of it."""


def expected_colour(studio: Studio, noun: str, *, scene: Scene, finder: Finder) -> np.ndarray:
    """Return the mean colour (3,) of what the base draws of a noun.

    Args:
        studio: The bare base.
        noun: Of a concept of the scene.
        scene: Its concepts are what the finder looks for.
        finder: The judge's.
    """
    asked = [
        checked(studio, Request(prompt.format(with_article(noun)), seed, sampling=PLAN.sampling))
        for prompt in PLAN.prompts
        for seed in PLAN.seeds
    ]
    colours = [
        mean_colour(pixels[one.region])
        for pixels in render(studio, asked).pixels
        for one in finder.find(pixels, scene.concepts)
        if one.owner is not None and scene.concepts[one.owner].noun == noun
    ]
    return np.mean(colours, axis=0)


def distances(studio: Studio, scenes: Mapping[str, Scene], finder: Finder) -> dict[Thing, float]:
    """Return how far each thing's colour lies from the one that the base gives its noun.

    Args:
        studio: The bare base.
        scenes: Framed, by name.
        finder: The judge's.
    """
    shown_in = {noun: scene for scene in scenes.values() for noun in scene.nouns}
    expected = {
        noun: expected_colour(studio, noun, scene=scene, finder=finder)
        for noun, scene in sorted(shown_in.items())
    }
    found = {}
    for name, scene in scenes.items():
        photo = scene.photos[0]
        for k in scene.things:
            concept, region = scene.concepts[k], np.asarray(photo.masks[k] > 0)
            if region.any():
                own = mean_colour(photo.pixels[region])
                found[name, concept.handle] = float(np.linalg.norm(own - expected[concept.noun]))
    return found


def seen_in_runs(
    backbone: Backbone, scenes: Mapping[str, Scene], recipe: Recipe
) -> dict[Thing, float]:
    """Return how far each thing's colour is for a run.

    Args:
        backbone: The bare base.
        scenes: By name.
        recipe: What would be trained.
    """
    settings, template = recipe.grounds, recipe.handles.templates[0]
    level = read_level(backbone, recipe)
    return {
        (name, handle): away
        for name, scene in scenes.items()
        for handle, away in colour_distances(
            backbone, scene, settings, template=template, level=level
        ).items()
    }


def identities(rows: Iterable[Row], method: str) -> dict[Thing, float]:
    """Return each thing's identity by a method, the mean over training seeds."""
    values: dict[Thing, list[float]] = defaultdict(list)
    for row in rows:
        if row["method"] == method:
            for handle, found in row["concepts"].items():
                values[row["scene"], handle].append(found["identity"])
    return {thing: float(np.mean(own)) for thing, own in values.items()}


def quarters(
    far: Mapping[Thing, float], known: Mapping[str, Mapping[Thing, float]]
) -> list[dict[str, float]]:
    """Return, of each quarter of the things that all methods know, the distance and identities."""
    shared = [thing for thing in far if all(thing in own for own in known.values())]
    ordered = sorted(shared, key=lambda thing: far[thing])
    return [
        {
            "things": len(part),
            "distance": float(np.mean([far[ordered[i]] for i in part])),
            **{m: float(np.mean([own[ordered[i]] for i in part])) for m, own in known.items()},
        }
        for part in np.array_split(np.arange(len(ordered)), QUARTERS)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a line a quarter, or a thing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="+", type=Path)
    parser.add_argument("--methods", nargs="+", default=["ours", "full"])
    parser.add_argument("--things", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    rows = [row for path in given.rows for row in known_rows(path).values()]
    studio, judge = open_studio([], base="mini", device="cpu"), load_judge("mini", device="cpu")
    assert judge.finder is not None, "the embedded judge finds things by their nouns"
    canvas = studio.backbone.canvas()
    names = sorted({row["scene"] for row in rows})
    scenes = {name: frame_scene(load_scene(SCENES / name), canvas) for name in names}
    far = distances(studio, scenes, judge.finder)
    about = circumstances("cpu")
    if given.things:
        seen = seen_in_runs(studio.backbone, scenes, load_recipe("mini"))
        for (scene, handle), away in far.items():
            told = {"judged": away, "seen": seen[scene, handle]}
            write({"scene": scene, "handle": handle, **told, **about}, given.out)
        return
    for line in quarters(far, {method: identities(rows, method) for method in given.methods}):
        write({**line, **about}, given.out)


if __name__ == "__main__":
    main()
