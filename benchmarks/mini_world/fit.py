"""Measure how well what was learnt from a photo denoises it, and the same drawings elsewhere.

    python -m benchmarks.mini_world.fit RUN SCENE --cache DIR

RUN is a finished training on one of the benchmark's scenes `d*` or `t*`, whose drawings are those
of the held-out style as they are. At each timestep: the mean squared error of the velocity over
the things' own cells, on the photo with all of them named, and with each thing alone on every
ground that the benchmark asks for, in fresh places.
"""

import argparse
import json
import re
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.mini_world.backgrounds import BACKGROUNDS
from benchmarks.mini_world.compose import Sprites, compose
from benchmarks.mini_world.drawings import HELD_OUT_STYLE, load_drawings
from benchmarks.mini_world.nouns import noun_set
from benchmarks.mini_world.unseen import N_NOISES, encoded, velocity_errors
from lora_scene.creating.studio import Studio, open_studio
from lora_scene.scenes.scene import Scene, load_scene

GROUNDS = ("grass", "snow", "brick")
N_PLACES = 3


def fit_on_photo(studio: Studio, scene: Scene) -> dict[int, float]:
    """Return the errors over all things of a scene's first photo, the prompt naming them all."""
    photo = scene.photos[0]
    z = studio.backbone.encode_picture(photo.pixels.copy()).mean[None]
    things = torch.tensor(photo.masks).amax(0)[None, None]
    cells = F.interpolate(things, size=z.shape[-2:], mode="area")
    prompt = "a photo of " + " and ".join(concept.handle for concept in scene.concepts)
    n_noises = N_NOISES * len(GROUNDS) * N_PLACES  # one picture, where there are many elsewhere
    return velocity_errors(studio.pipeline, z, cells, [prompt], n_noises=n_noises)


def fit_elsewhere(studio: Studio, scene: Scene, sprites: Sprites) -> dict[int, float]:
    """Return the errors over each thing alone, on each ground, in fresh places."""
    rng = np.random.default_rng(5)
    scenes, prompts = [], []
    for concept in scene.concepts:
        for ground in GROUNDS * N_PLACES:
            scenes.append(compose(sprites, [concept.noun], ground, rng))
            prompts.append(f"a photo of {concept.handle} {BACKGROUNDS[ground][0]}")
    return velocity_errors(studio.pipeline, *encoded(studio.pipeline, scenes), prompts)


def main() -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished training")
    parser.add_argument("scene", type=Path, help="what it was trained on")
    parser.add_argument("--cache", type=Path, required=True, help="folder of the drawings")
    options = parser.parse_args()
    if not re.fullmatch(r"[dt]\d\d-\d", options.scene.name):
        parser.error(f"{options.scene}: a scene d* or t* is wanted; others' drawings are changed")
    sprites = Sprites(load_drawings(options.cache), noun_set("mini16"), [HELD_OUT_STYLE])
    studio, scene = open_studio([options.run], dtype="fp32"), load_scene(options.scene)
    print(json.dumps({"on": "the photo", **fit_on_photo(studio, scene)}))
    print(json.dumps({"on": "elsewhere", **fit_elsewhere(studio, scene, sprites)}))


if __name__ == "__main__":
    main()
