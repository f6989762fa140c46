"""Prior preservation (DreamBooth, arXiv:2208.12242): pictures of the untouched base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lora_scene.backbones.backbone import Backbone, TextEncoding
from lora_scene.learning.base_pictures import deal_sizes, deal_turns, draw_pictures
from lora_scene.learning.objective import PriorBatch
from lora_scene.recipe import Prior, Recipe
from lora_scene.scenes.run_prompts import prior_prompts
from lora_scene.size import Size


@dataclass(frozen=True)
class PriorSet:
    """The base's own pictures.

    Attributes:
        latents: (c, h, w) each, of the sizes that the photos are learnt at, on the CPU.
        prompts: What each was drawn from.
        encodings: Each prompt's encoding, where the text encoders are frozen.
    """

    latents: tuple[Tensor, ...]
    prompts: tuple[str, ...]
    encodings: Mapping[str, TextEncoding] | None

    def batch(
        self,
        backbone: Backbone,
        n: int,
        size: Size,
        generators: tuple[np.random.Generator, torch.Generator],
    ) -> PriorBatch:
        """Draw `n` pictures of a size, in cells of the latents, with fresh noise and timesteps."""
        rng, noise = generators
        fitting = [i for i, latent in enumerate(self.latents) if Size.of(latent.shape) == size]
        chosen = [fitting[i] for i in rng.integers(len(fitting), size=n)]
        t = torch.from_numpy(rng.integers(backbone.n_timesteps, size=n))
        z = torch.stack([self.latents[i] for i in chosen])
        eps = torch.randn(z.shape, generator=noise)
        prompts = [self.prompts[i] for i in chosen]
        if self.encodings is None:
            text = backbone.encode_tokens(backbone.tokenize(prompts))
        else:
            text = TextEncoding.joined([self.encodings[p] for p in prompts])
        device = backbone.device
        return PriorBatch(z.to(device), eps.to(device), t.to(device), text)


@torch.no_grad()
def draw_prior(
    backbone: Backbone,
    nouns: list[str],
    settings: Prior,
    *,
    shares: Mapping[Size, float],
    seed: int,
    cache: Path,
    is_text_fixed: bool,
    base: object = "",
) -> PriorSet:
    """Let the base draw its pictures of the class nouns, or read them from `cache`.

    Args:
        backbone: The base, before anything is trained.
        nouns: Class nouns, in turn.
        settings: Prompts, steps, guidance.
        shares: How often each size, in cells of the latents, is drawn.
        seed: Seed of the pictures.
        cache: A safetensors file; written anew unless it holds just these pictures.
        is_text_fixed: Whether the text encoders stay as they are, so that encodings can be kept.
        base: What tells the base's numbers from others of the same name; its `repr` counts.

    Raises:
        SceneError: A prompt would be cut.
    """
    sizes, asked = deal_sizes(shares, settings.n_images), prior_prompts(settings, nouns)
    prompts = tuple(asked[turn % len(asked)] for turn in deal_turns(sizes))
    latents = draw_pictures(
        backbone,
        prompts,
        n_steps=settings.n_steps,
        guidance=settings.guidance,
        sizes=sizes,
        seed=seed,
        cache=cache,
        where="prior.prompts",
        base=base,
    )
    encodings = None
    if is_text_fixed:
        told = dict.fromkeys(prompts)
        encodings = {p: backbone.encode_tokens(backbone.tokenize([p])) for p in told}
    return PriorSet(latents, prompts, encodings)


def trains_text(recipe: Recipe) -> bool:
    """Tell whether a run changes the text encoders' own weights."""
    trained = {phase.trains for phase in recipe.phases if phase.steps}
    return ("full" in trained and recipe.full.text_encoder) or (
        "lora" in trained and recipe.lora.text_encoder_rank > 0
    )
