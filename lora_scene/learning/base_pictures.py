"""Pictures that the untouched base draws before a training begins.

They are kept as latents: drawn once, never decoded and encoded again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from lora_scene.backbones.backbone import Backbone
from lora_scene.files import writing
from lora_scene.learning.handle_table import refuse_cut
from lora_scene.ownership import metadata_of
from lora_scene.size import Size


@torch.no_grad()
def draw_pictures(
    backbone: Backbone,
    prompts: Sequence[str],
    *,
    n_steps: int,
    guidance: float,
    sizes: Sequence[Size],
    seed: int,
    cache: Path | None,
    where: str,
    base: object = "",
    hint: str = "",
) -> tuple[Tensor, ...]:
    """Let the base draw pictures, or read them from `cache`.

    Args:
        backbone: The base, before anything is trained.
        prompts: One a picture.
        n_steps: Denoising steps of each.
        guidance: Guidance scale of each.
        sizes: One a picture, in cells of the latents.
        seed: Seed of the first picture; each has its own.
        cache: A safetensors file, written anew unless it holds just these pictures; or None.
        where: The setting that the prompts are of.
        base: What tells the base's numbers from others of the same name; its `repr` counts.
        hint: What else helps where a prompt would be cut.

    Returns:
        (c, h, w) each, float32, on the CPU.

    Raises:
        SceneError: A prompt would be cut.
    """
    refuse_cut(backbone, prompts, where, hint)
    drawn_as = repr((backbone.name, base, list(sizes), tuple(prompts), n_steps, guidance, seed))
    latents = _read_cache(cache, drawn_as) if cache else None
    if latents is None:
        latents = tuple(
            _draw(backbone, prompt, size, n_steps=n_steps, guidance=guidance, seed=seed + i)
            for i, (prompt, size) in enumerate(zip(prompts, sizes, strict=True))
        )
        if cache:
            _write_cache(cache, drawn_as, latents)
    return latents


def deal_sizes(shares: Mapping[Size, float], n: int) -> list[Size]:
    """Return n sizes in proportion to their shares, by D'Hondt's method; each at least once.

    Where there are more than n, one of each.
    """
    given = list(shares)
    while len(given) < n:
        given.append(max(shares, key=lambda size: shares[size] / (given.count(size) + 1)))
    return given


def deal_turns(sizes: Sequence[Size]) -> list[int]:
    """Return each picture's turn, counted through all of one size before those of the next.

    So the prompts that come in turn go round in every size, and on from one size to the next.
    """
    order = {size: i for i, size in enumerate(dict.fromkeys(sizes))}
    turns = [0] * len(sizes)
    for turn, picture in enumerate(sorted(range(len(sizes)), key=lambda i: order[sizes[i]])):
        turns[picture] = turn
    return turns


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
    metadata = {"format": "lora_scene.pictures.1", "drawn": drawn_as, "sha256": _digest(latents)}
    with writing(cache) as aside:
        save_file({f"{i:05}": latent for i, latent in enumerate(latents)}, aside, metadata)


def _digest(latents: Sequence[Tensor]) -> str:
    numbers = b"".join(latent.contiguous().numpy().tobytes() for latent in latents)
    return hashlib.sha256(numbers).hexdigest()


def _draw(
    backbone: Backbone, prompt: str, cells: Size, *, n_steps: int, guidance: float, seed: int
) -> Tensor:
    """Return one picture's latent (c, h, w), float32, on the CPU."""
    size = cells.times(backbone.vae_factor)
    latent: Tensor = backbone.pipeline(
        prompt,
        height=size.height,
        width=size.width,
        num_inference_steps=n_steps,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
    ).images
    return latent[0].float().cpu()
