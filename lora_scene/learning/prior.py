"""Prior preservation (DreamBooth, arXiv:2208.12242): pictures of the untouched base.

They are kept as latents: drawn once, never decoded and encoded again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_scene.backbones.backbone import Backbone, TextEncoding
from lora_scene.learning.objective import PriorBatch
from lora_scene.recipe import Prior


@dataclass(frozen=True)
class PriorSet:
    """The base's own pictures.

    Attributes:
        latents: (n, c, h, w), on the CPU.
        prompts: What each was drawn from.
        encodings: Their prompts' encodings, where the text encoders are frozen.
    """

    latents: Tensor
    prompts: tuple[str, ...]
    encodings: TextEncoding | None

    def batch(
        self, backbone: Backbone, n: int, rng: np.random.Generator, noise: torch.Generator
    ) -> PriorBatch:
        """Draw `n` pictures with fresh noise and timesteps."""
        chosen = rng.integers(len(self.latents), size=n)
        t = torch.from_numpy(rng.integers(backbone.n_timesteps, size=n))
        z = self.latents[chosen]
        eps = torch.randn(z.shape, generator=noise)
        if self.encodings is None:
            text = backbone.encode_tokens(backbone.tokenize([self.prompts[i] for i in chosen]))
        else:
            pooled = self.encodings.pooled
            text = TextEncoding(
                self.encodings.states[chosen], None if pooled is None else pooled[chosen]
            )
        device = backbone.device
        return PriorBatch(z.to(device), eps.to(device), t.to(device), text)


@torch.no_grad()
def draw_prior(
    backbone: Backbone,
    nouns: list[str],
    settings: Prior,
    *,
    seed: int,
    cache: Path,
    trains_text: bool,
) -> PriorSet:
    """Let the base draw its pictures of the class nouns, or read them from `cache`.

    Args:
        backbone: The base, before anything is trained.
        nouns: Class nouns, in turn.
        settings: Prompts, steps, guidance.
        seed: Seed of the pictures.
        cache: A safetensors file; written if it does not exist.
        trains_text: Whether the text encoders will change, so that no encoding can be kept.
    """
    pairs = [(noun, template) for template in settings.prompts for noun in nouns]
    prompts = tuple(
        template.format(noun)
        for noun, template in (pairs[i % len(pairs)] for i in range(settings.n_images))
    )
    if cache.is_file():
        latents = load_file(cache)["latents"]
    else:
        latents = torch.cat(
            [_draw(backbone, prompt, settings, seed + i) for i, prompt in enumerate(prompts)]
        )
        cache.parent.mkdir(parents=True, exist_ok=True)
        save_file({"latents": latents}, cache)
    encodings = None
    if not trains_text:
        encodings = backbone.encode_tokens(backbone.tokenize(list(prompts)))
    return PriorSet(latents, prompts, encodings)


def _draw(backbone: Backbone, prompt: str, settings: Prior, seed: int) -> Tensor:
    """Return one picture's latent (1, c, h, w), float32, on the CPU."""
    latent: Tensor = backbone.pipeline(
        prompt,
        height=backbone.resolution,
        width=backbone.resolution,
        num_inference_steps=settings.n_steps,
        guidance_scale=settings.guidance,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
    ).images
    return latent.float().cpu()
