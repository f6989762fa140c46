"""A short, small drawing that tells whether two pipelines do the same."""

from __future__ import annotations

from typing import Any

import torch

from lora_scene.adapters.adapter import Adapter
from lora_scene.backbones.families import own_side

N_STEPS = 2
GUIDANCE = 3.0
MAX_LATENT_SIDE = 32  # cells; enough to pass through every layer
SEED = 0


def probe_prompt(adapter: Adapter | None) -> str:
    """Return a prompt that names all handles, in lower case: stock pipelines expand no other."""
    if adapter is None:
        return "a photo of a thing"
    return f"a photo of {' and '.join(adapter.handles).lower()}"


@torch.no_grad()
def draw_probe(pipeline: Any, prompt: str) -> torch.Tensor:
    """Draw two steps on a small canvas.

    Returns:
        The latents (1, 4, h, w), float32 on the CPU.
    """
    side = pipeline.vae_scale_factor * min(own_side(pipeline.unet.config), MAX_LATENT_SIDE)
    drawn = pipeline(
        prompt,
        num_inference_steps=N_STEPS,
        guidance_scale=GUIDANCE,
        height=side,
        width=side,
        output_type="latent",
        generator=torch.Generator().manual_seed(SEED),
    )
    latents: torch.Tensor = drawn.images.float().cpu()
    return latents


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return ||found - wanted|| / ||wanted||."""
    return float((found - wanted).norm() / wanted.norm())
