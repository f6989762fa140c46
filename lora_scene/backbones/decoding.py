"""The VAE: in a dtype that holds its numbers, in tiles where memory is too small for a picture."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lora_scene.errors import LoraSceneWarning
from lora_scene.faults import is_out_of_memory

TILINGS = (1, 2, 4)  # tiles a side, tried in this order


@contextlib.contextmanager
def wide_enough(vae: Any) -> Iterator[None]:
    """Let a VAE that overflows in float16 compute in float32, and put it back."""
    kept = vae.dtype
    if vae.config.get("force_upcast", True) and kept == torch.float16:
        vae.to(torch.float32)
    try:
        yield
    finally:
        if vae.dtype != kept:
            vae.to(kept)


def unscaled(vae: Any, z: Tensor) -> Tensor:
    """Return latents (b, c, h, w) as the VAE decodes them, without its scale and shift."""
    factor: float = vae.config.scaling_factor
    if vae.config.get("latents_mean") is not None:
        mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1).to(z)
        spread = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1).to(z)
        return z * spread / factor + mean
    shift: float = vae.config.get("shift_factor") or 0.0
    return z / factor + shift


@torch.no_grad()
def decode_latent(vae: Any, z: Tensor) -> Tensor:
    """Decode one clean latent (1, c, h, w) to a picture (1, 3, H, W), about -1..1.

    A picture that does not fit into the device's memory is decoded in overlapping tiles, which a
    warning tells of: normalisation then sees a tile alone, so that large even areas may differ.
    """
    z = unscaled(vae, z.to(vae.dtype))
    for n in TILINGS:
        try:
            picture = _tiled(vae, z, n) if n > 1 else vae.decode(z, return_dict=False)[0]
        except (RuntimeError, MemoryError) as error:
            if n == TILINGS[-1] or not is_out_of_memory(error):
                raise
        else:
            break
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    if n > 1:
        warnings.warn(
            f"memory was too small to decode a picture whole: {n} x {n} overlapping tiles were, "
            "and large even areas may differ in tone; a smaller size avoids it",
            LoraSceneWarning,
            stacklevel=2,
        )
    decoded: Tensor = picture
    return decoded


def _tiled(vae: Any, z: Tensor, n: int) -> Tensor:
    """Decode in about n tiles a side, a quarter of each blended with its neighbours."""
    kept = vae.tile_latent_min_size, vae.tile_sample_min_size
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    side = -(-max(z.shape[-2:]) // n)
    vae.tile_latent_min_size, vae.tile_sample_min_size = side, side * factor
    try:
        tiled: Tensor = vae.tiled_decode(z, return_dict=False)[0]
    finally:
        vae.tile_latent_min_size, vae.tile_sample_min_size = kept
    return tiled
