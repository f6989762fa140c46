"""Measure how well a base denoises a drawing that it never saw, beside those it was trained on.

    python -m benchmarks.mini_world.unseen --base DIR --cache DIR

At each timestep: the mean squared error of the velocity over the drawing's own cells, in scenes of
one thing, asked for by its noun. What is to be learnt from a photo is a drawing of the held-out
style, and a base that can't denoise any but its own drawings has that to learn too.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor
from torch.nn import functional as F

from benchmarks.mini_world.backgrounds import BACKGROUNDS
from benchmarks.mini_world.compose import Composition, Sprites, compose
from benchmarks.mini_world.drawings import HELD_OUT_STYLE, load_drawings
from benchmarks.mini_world.gates import Wish
from benchmarks.mini_world.latents import to_pictures
from benchmarks.mini_world.nouns import noun_set

TIMESTEPS = (999, 900, 800, 700, 600, 450, 300, 150)
N_NOISES = 4


def scenes_of(sprites: Sprites, n: int) -> list[Composition]:
    """Compose n scenes of one thing for every noun."""
    rng, grounds = np.random.default_rng(5), list(BACKGROUNDS)
    wanted = [noun for noun in sprites.nouns for _ in range(n)]
    return [
        compose(sprites, [noun], grounds[k % len(grounds)], rng) for k, noun in enumerate(wanted)
    ]


def errors(pipeline: StableDiffusionPipeline, scenes: Sequence[Composition]) -> dict[int, float]:
    """Return timestep -> mean squared error of the velocity over the drawings' cells.

    Args:
        pipeline: A base of the mini world, in float32.
        scenes: Of one thing each, asked for by its noun.
    """
    prompts = [Wish(scene.nouns, scene.background).prompt for scene in scenes]
    return velocity_errors(pipeline, *encoded(pipeline, scenes), prompts)


@torch.no_grad()
def encoded(
    pipeline: StableDiffusionPipeline, scenes: Sequence[Composition]
) -> tuple[Tensor, Tensor]:
    """Return scenes' latents (n, c, h, w), and how much of each cell their first thing covers."""
    z = pipeline.vae.encode(to_pictures(list(scenes))).latent_dist.mean
    masks = torch.from_numpy(np.stack([scene.masks[:1] for scene in scenes])).float()
    return z, F.interpolate(masks, size=z.shape[-2:], mode="area")


@torch.no_grad()
def velocity_errors(
    pipeline: StableDiffusionPipeline,
    z: Tensor,
    cells: Tensor,
    prompts: Sequence[str],
    *,
    n_noises: int = N_NOISES,
) -> dict[int, float]:
    """Return timestep -> mean squared error of the velocity over some cells.

    Args:
        pipeline: A base that predicts velocities, in float32.
        z: Latents (n, c, h, w).
        cells: The weight of each cell (n, 1, h, w), 0..1.
        prompts: One a picture.
        n_noises: Noises a picture and timestep.
    """
    tokens = pipeline.tokenizer(list(prompts), padding="max_length", return_tensors="pt").input_ids
    states = pipeline.text_encoder(tokens).last_hidden_state
    signal = pipeline.scheduler.alphas_cumprod
    generator = torch.Generator().manual_seed(0)
    found = {}
    for t in TIMESTEPS:
        alpha, sigma = signal[t].sqrt(), (1 - signal[t]).sqrt()
        total = 0.0
        for _ in range(n_noises):
            eps = torch.randn(z.shape, generator=generator)
            prediction = pipeline.unet(alpha * z + sigma * eps, t, states).sample
            error = (prediction - (alpha * eps - sigma * z)).square().mean(1, keepdim=True)
            total += float((error * cells).sum() / cells.sum()) / n_noises
        found[t] = round(total, 3)
    return found


def main() -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True, help="pipeline folder")
    parser.add_argument("--cache", type=Path, required=True, help="folder of the drawings")
    parser.add_argument("--n", type=int, default=2, help="scenes a noun")
    options = parser.parse_args()
    pipeline = StableDiffusionPipeline.from_pretrained(options.base, torch_dtype=torch.float32)
    drawings, nouns = load_drawings(options.cache), noun_set("mini16")
    for name, styles in (("training styles", None), ("held-out style", [HELD_OUT_STYLE])):
        found = errors(pipeline, scenes_of(Sprites(drawings, nouns, styles), options.n))
        print(json.dumps({"drawings": name, **found}))


if __name__ == "__main__":
    main()
