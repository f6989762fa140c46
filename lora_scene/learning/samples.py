"""Sample pictures while training: the same prompts and seeds at every stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lora_scene.backbones.backbone import Backbone, TextEncoding
from lora_scene.backbones.decoding import decode_latent, wide_enough
from lora_scene.learning.devices import free_cached
from lora_scene.learning.handle_table import HandleTable
from lora_scene.recipe import Recipe
from lora_scene.size import Size

N_STEPS = 25


def is_sampled(recipe: Recipe, number: int, step: int) -> bool:
    """Tell whether sample pictures are due after so many steps of a phase."""
    every, is_end = recipe.run.sample_every, recipe.is_over(number, step)
    return bool(every) and (is_end or (step % every == 0 and (step > 0 or number == 1)))


@torch.no_grad()
def draw_samples(
    backbone: Backbone, table: HandleTable, prompts: Sequence[str], *, size: Size, seed: int
) -> list[Any]:
    """Draw one picture a prompt with the weights as they are; handles must be spliced in.

    Args:
        backbone: The base, with what is learnt.
        table: The handles.
        prompts: With handles.
        size: Of the pictures, in pixels.
        seed: Of each.
    """
    pictures = []
    for prompt in prompts:
        text = backbone.encode_tokens(backbone.tokenize([table.expand(prompt)]))
        empty = _encode_empty(backbone)
        pooled = {}
        if text.pooled is not None and empty.pooled is not None:
            pooled = {
                "pooled_prompt_embeds": text.pooled,
                "negative_pooled_prompt_embeds": empty.pooled,
            }
        z = backbone.pipeline(
            prompt_embeds=text.states,
            negative_prompt_embeds=empty.states,
            height=size.height,
            width=size.width,
            num_inference_steps=N_STEPS,
            guidance_scale=backbone.usual_guidance,
            generator=torch.Generator().manual_seed(seed),
            output_type="latent",
            **pooled,
        ).images
        pictures.append(decoded(backbone, z))
    free_cached(backbone.device)
    return pictures


def decoded(backbone: Backbone, z: Tensor) -> Any:
    """Decode a clean latent (1, c, h, w) to a picture; the VAE is on the device meanwhile."""
    free_cached(backbone.device)  # the UNet's workspaces: the decoder's are larger
    backbone.vae.to(backbone.device)
    with wide_enough(backbone.vae):
        pixels = decode_latent(backbone.vae, z)
    backbone.vae.to("cpu")
    return backbone.pipeline.image_processor.postprocess(pixels)[0]


def _encode_empty(backbone: Backbone) -> TextEncoding:
    """Encode the negative prompt that a stock pipeline takes where none is given."""
    empty = backbone.encode_tokens(backbone.tokenize([""]))
    if not backbone.pipeline.config.get("force_zeros_for_empty_prompt", False):
        return empty
    assert empty.pooled is not None
    return TextEncoding(torch.zeros_like(empty.states), torch.zeros_like(empty.pooled))
