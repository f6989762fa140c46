"""Prior preservation (DreamBooth, arXiv:2208.12242): pictures of the untouched base.

They are kept as latents: drawn once, never decoded and encoded again.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from lora_scene.backbones.backbone import Backbone, TextEncoding
from lora_scene.files import writing
from lora_scene.learning.handle_table import refuse_cut
from lora_scene.learning.objective import PriorBatch
from lora_scene.ownership import metadata_of
from lora_scene.recipe import Prior, Recipe
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
            text = functools.reduce(TextEncoding.append, [self.encodings[p] for p in prompts])
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
    pairs = [(noun, template) for template in settings.prompts for noun in nouns]
    sizes = deal_sizes(shares, settings.n_images)
    prompts = tuple(
        template.format(noun)
        for noun, template in (pairs[i % len(pairs)] for i in range(len(sizes)))
    )
    refuse_cut(backbone, prompts, "prior.prompts")
    drawn_as = repr((backbone.name, base, sizes, prompts, settings, seed))
    latents = _read_cache(cache, drawn_as)
    if latents is None:
        latents = tuple(
            _draw(backbone, prompt, settings, seed + i, size)
            for i, (prompt, size) in enumerate(zip(prompts, sizes, strict=True))
        )
        _write_cache(cache, drawn_as, latents)
    encodings = None
    if is_text_fixed:
        told = dict.fromkeys(prompts)
        encodings = {p: backbone.encode_tokens(backbone.tokenize([p])) for p in told}
    return PriorSet(latents, prompts, encodings)


def deal_sizes(shares: Mapping[Size, float], n: int) -> list[Size]:
    """Return n sizes in proportion to their shares, but each at least once (D'Hondt's method)."""
    given = list(shares)
    while len(given) < n:
        given.append(max(shares, key=lambda size: shares[size] / (given.count(size) + 1)))
    return given


def trains_text(recipe: Recipe) -> bool:
    """Tell whether a run changes the text encoders' own weights."""
    trained = {phase.trains for phase in recipe.phases if phase.steps}
    return ("full" in trained and recipe.full.text_encoder) or (
        "lora" in trained and recipe.lora.text_encoder_rank > 0
    )


def _read_cache(cache: Path, drawn_as: str) -> tuple[Tensor, ...] | None:
    """Return the latents that an interrupted run drew in the same way, if there are any."""
    if metadata_of(cache).get("drawn") != drawn_as:
        return None
    try:
        latents = tuple(latent for _, latent in sorted(load(cache.read_bytes()).items()))
    except (SafetensorError, OSError):
        return None
    return latents if metadata_of(cache).get("sha256") == _digest(latents) else None


def _write_cache(cache: Path, drawn_as: str, latents: Sequence[Tensor]) -> None:
    metadata = {"format": "lora_scene.prior.2", "drawn": drawn_as, "sha256": _digest(latents)}
    with writing(cache) as aside:
        save_file({f"{i:05}": latent for i, latent in enumerate(latents)}, aside, metadata)


def _digest(latents: Sequence[Tensor]) -> str:
    numbers = b"".join(latent.contiguous().numpy().tobytes() for latent in latents)
    return hashlib.sha256(numbers).hexdigest()


def _draw(backbone: Backbone, prompt: str, settings: Prior, seed: int, cells: Size) -> Tensor:
    """Return one picture's latent (c, h, w), float32, on the CPU."""
    size = cells.times(backbone.vae_factor)
    latent: Tensor = backbone.pipeline(
        prompt,
        height=size.height,
        width=size.width,
        num_inference_steps=settings.n_steps,
        guidance_scale=settings.guidance,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
    ).images
    return latent[0].float().cpu()
