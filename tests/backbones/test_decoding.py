"""The VAE's decoder where memory is too small, and in float16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

import lora_scene
from lora_scene.backbones.decoding import decode_latent, unscaled, wide_enough
from lora_scene.errors import LoraSceneWarning
from tests import tiny

ROOM = Path(lora_scene.__file__).parent
MINI, PHOTO = ROOM / "backbones" / "mini" / "vae", ROOM / "scenes" / "demo" / "img.png"


def smooth_latent() -> torch.Tensor:
    rows, columns = torch.meshgrid(*[torch.linspace(-1, 1, 32)] * 2, indexing="ij")
    return torch.stack([rows, columns, rows * columns, rows - columns])[None]


def short_of_memory(vae, monkeypatch, *, largest):
    """Let the decoder run out of memory on more cells than `largest`; return what it decoded."""
    whole, seen = vae.decoder.forward, []

    def forward(z, *args, **kwargs):
        if z.shape[-1] * z.shape[-2] > largest:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        seen.append(tuple(z.shape[-2:]))
        return whole(z, *args, **kwargs)

    monkeypatch.setattr(vae.decoder, "forward", forward)
    return seen


@pytest.mark.parametrize(("largest", "n"), [(16 * 16, 2), (8 * 8, 4)])
def test_a_picture_too_large_for_memory_is_decoded_in_tiles_and_told(monkeypatch, largest, n):
    """By the trained decoder of the embedded base, on a photo: tones shift a little."""
    vae = AutoencoderKL.from_pretrained(MINI)
    with Image.open(PHOTO) as photo:
        pixels = torch.from_numpy(np.array(photo.convert("RGB").resize((128, 128)))) / 127.5 - 1
    with torch.no_grad():
        z = vae.encode(pixels.permute(2, 0, 1)[None]).latent_dist.mean
    z = z * vae.config.scaling_factor
    kept = vae.tile_latent_min_size
    whole = decode_latent(vae, z)
    seen = short_of_memory(vae, monkeypatch, largest=largest)
    with pytest.warns(LoraSceneWarning, match=f"{n} x {n} overlapping tiles"):
        tiled = decode_latent(vae, z)
    assert tiled.shape == whole.shape
    assert max(height * width for height, width in seen) <= largest
    assert (tiled - whole).abs().mean() < 0.03  # of 2
    assert vae.tile_latent_min_size == kept


@pytest.mark.filterwarnings("ignore::lora_scene.errors.LoraSceneWarning")
def test_memory_too_small_for_any_tile_is_an_error(monkeypatch):
    vae = tiny.pipeline().vae
    short_of_memory(vae, monkeypatch, largest=0)
    with pytest.raises(torch.OutOfMemoryError):
        decode_latent(vae, smooth_latent())


@pytest.mark.parametrize("force_upcast", [True, False])
def test_float16_decodes_in_float32_unless_the_vae_says_that_it_need_not(force_upcast):
    vae, exact = tiny.pipeline("sdxl").vae, tiny.pipeline("sdxl").vae
    vae.register_to_config(force_upcast=force_upcast)
    vae.half()
    z = smooth_latent()
    with wide_enough(vae):
        assert vae.dtype == (torch.float32 if force_upcast else torch.float16)
        decoded = decode_latent(vae, z)
    assert vae.dtype == torch.float16
    expected = exact.decode(unscaled(exact, z)).sample
    assert (decoded.float() - expected).abs().max() < 0.02
