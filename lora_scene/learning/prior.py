"""Prior preservation (DreamBooth, arXiv:2208.12242): pictures of the untouched base.

They are kept as latents: drawn once, never decoded and encoded again.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from lora_scene.backbones.backbone import Backbone, TextEncoding
from lora_scene.files import writing
from lora_scene.learning.objective import EncodingCache, PriorBatch
from lora_scene.ownership import metadata_of
from lora_scene.recipe import Prior, Recipe


@dataclass(frozen=True)
class PriorSet:
    """The base's own pictures.

    Attributes:
        latents: (n, c, h, w), on the CPU.
        prompts: What each was drawn from.
        encodings: Each prompt's encoding, where the text encoders are frozen.
    """

    latents: Tensor
    prompts: tuple[str, ...]
    encodings: Mapping[str, TextEncoding] | None

    def batch(
        self, backbone: Backbone, n: int, rng: np.random.Generator, noise: torch.Generator
    ) -> PriorBatch:
        """Draw `n` pictures with fresh noise and timesteps."""
        chosen = rng.integers(len(self.latents), size=n)
        t = torch.from_numpy(rng.integers(backbone.n_timesteps, size=n))
        z = self.latents[chosen]
        eps = torch.randn(z.shape, generator=noise)
        prompts = [self.prompts[i] for i in chosen]
        if self.encodings is None:
            text = backbone.encode_tokens(backbone.tokenize(prompts))
        else:
            text = functools.reduce(TextEncoding.append, [self.encodings[p] for p in prompts])
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
    is_text_fixed: bool,
) -> PriorSet:
    """Let the base draw its pictures of the class nouns, or read them from `cache`.

    Args:
        backbone: The base, before anything is trained.
        nouns: Class nouns, in turn.
        settings: Prompts, steps, guidance.
        seed: Seed of the pictures.
        cache: A safetensors file; written anew unless it holds just these pictures.
        is_text_fixed: Whether the text encoders stay as they are, so that encodings can be kept.
    """
    pairs = [(noun, template) for template in settings.prompts for noun in nouns]
    prompts = tuple(
        template.format(noun)
        for noun, template in (pairs[i % len(pairs)] for i in range(settings.n_images))
    )
    drawn_as = repr((backbone.name, backbone.resolution, prompts, settings, seed))
    latents = _read_cache(cache, drawn_as)
    if latents is None:
        latents = torch.cat(
            [_draw(backbone, prompt, settings, seed + i) for i, prompt in enumerate(prompts)]
        )
        _write_cache(cache, drawn_as, latents)
    encodings = None
    if is_text_fixed:
        cache_of_encodings = EncodingCache(backbone)
        encodings = {p: cache_of_encodings.encode([p]) for p in dict.fromkeys(prompts)}
    return PriorSet(latents, prompts, encodings)


def trains_text(recipe: Recipe) -> bool:
    """Tell whether a run changes the text encoders' own weights."""
    trained = {phase.trains for phase in recipe.phases if phase.steps}
    return ("full" in trained and recipe.full.text_encoder) or (
        "lora" in trained and recipe.lora.text_encoder_rank > 0
    )


def _read_cache(cache: Path, drawn_as: str) -> Tensor | None:
    """Return the latents that an interrupted run drew in the same way, if there are any."""
    if metadata_of(cache).get("drawn") != drawn_as:
        return None
    try:
        latents = load(cache.read_bytes())["latents"]
    except (SafetensorError, KeyError, OSError):
        return None
    return latents if metadata_of(cache).get("sha256") == _digest(latents) else None


def _write_cache(cache: Path, drawn_as: str, latents: Tensor) -> None:
    metadata = {"format": "lora_scene.prior.1", "drawn": drawn_as, "sha256": _digest(latents)}
    with writing(cache) as aside:
        save_file({"latents": latents}, aside, metadata)


def _digest(latents: Tensor) -> str:
    return hashlib.sha256(latents.contiguous().numpy().tobytes()).hexdigest()


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
