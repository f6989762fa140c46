"""What a step draws: variant, subset, prompt, timestep, noise: from (seed, phase, step, part).

Every pass of a step has generators of its own, so a resumed run draws what an unbroken one would
have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lora_scene.learning.latents import EncodedVariant
from lora_scene.recipe import Handles, Phase
from lora_scene.scenes.scene import Concept
from lora_scene.scenes.union import draw_single, draw_subset, prompt_for


@dataclass(frozen=True)
class Sample:
    """What one sample of a batch shows and says.

    Attributes:
        variant: The picture.
        subset: Indices of the concepts that the prompt names.
        prompt: With handles.
        plain_prompt: With class nouns in their place.
        t: Timestep, 0..n_timesteps - 1.
        z: (c, h, w), its latent.
        eps: (c, h, w), the noise that is added.
        on_ground: Whether the things stand on a ground that the base drew.
    """

    variant: EncodedVariant
    subset: tuple[int, ...]
    prompt: str
    plain_prompt: str
    t: int
    z: Tensor
    eps: Tensor
    on_ground: bool = False


def step_generators(
    seed: int, phase: int, step: int, part: int = 0
) -> tuple[np.random.Generator, torch.Generator]:
    """Return the generators of one forward pass: of choices, and of noise on the CPU."""
    rng = np.random.default_rng([seed, phase, step, part])
    return rng, torch.Generator().manual_seed(int(rng.integers(2**62)))


def dropout_seed(seed: int, phase: int, step: int, part: int) -> int:
    """Return the seed of LoRA's dropout, new in every step, also where draws come again."""
    return int(np.random.default_rng([seed, phase, step, part, 1]).integers(2**62))


def draw_batch(n: int, variants: Sequence[EncodedVariant], **drawn_with: Any) -> list[Sample]:
    """Draw n samples of one size: the first by its share of all, the others of its size alone.

    So sizes are drawn in proportion. See `draw_sample` for what it is drawn with.
    """
    first = draw_sample(variants, **drawn_with)
    fitting = [one for one in variants if one.latents == first.variant.latents]
    return [first, *(draw_sample(fitting, **drawn_with) for _ in range(n - 1))]


def draw_sample(
    variants: Sequence[EncodedVariant],
    *,
    concepts: Sequence[Concept],
    phase: Phase,
    handles: Handles,
    n_timesteps: int,
    generators: tuple[np.random.Generator, torch.Generator],
) -> Sample:
    """Draw one sample: union sampling (Break-A-Scene, section 3.2) on a random variant."""
    rng, noise = generators
    variant = draw_variant(variants, rng)
    subset = _draw_concepts(variant, phase, rng)
    template = str(rng.choice(list(handles.templates)))
    drawn = [concepts[k] for k in subset]
    nouns = [concept.noun for concept in drawn]
    names = [concept.handle for concept in drawn]
    prompt = prompt_for(names, nouns if handles.with_nouns else None, template)
    eps = torch.randn(variant.moments.mean.shape, generator=noise)
    posterior = torch.randn(variant.moments.mean.shape, generator=noise)
    return Sample(
        variant=variant,
        subset=subset,
        prompt=prompt + variant.caption_suffix,
        plain_prompt=prompt_for(nouns, None, template) + variant.caption_suffix,
        t=draw_timestep(phase, n_timesteps, rng),
        z=variant.moments.sample(posterior),
        eps=eps,
    )


def draw_variant(
    variants: Sequence[EncodedVariant], generator: np.random.Generator
) -> EncodedVariant:
    """Draw a variant by its share."""
    shares = np.array([variant.probability for variant in variants])
    return variants[int(generator.choice(len(variants), p=shares / shares.sum()))]


def draw_timestep(phase: Phase, n_timesteps: int, rng: np.random.Generator) -> int:
    """Draw a timestep, 0..n_timesteps - 1: uniform, or with a density that rises linearly.

    It rises to the last timestep for `noisy`, to the first for `clean`.
    """
    share = rng.random()
    if phase.timesteps != "uniform":
        share = np.sqrt(share)
    if phase.timesteps == "clean":
        share = 1 - share
    return min(int(share * n_timesteps), n_timesteps - 1)


def _draw_concepts(
    variant: EncodedVariant, phase: Phase, rng: np.random.Generator
) -> tuple[int, ...]:
    present = variant.present
    if phase.sampling == "single":
        return tuple(present[k] for k in draw_single(len(present), rng))
    if variant.names_all:
        return tuple(int(k) for k in rng.permutation(present))
    return tuple(present[k] for k in draw_subset(len(present), rng))
