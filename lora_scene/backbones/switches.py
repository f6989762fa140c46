"""What a recipe's base section switches on in a UNet, beside its storage."""

from __future__ import annotations

import torch
from torch import nn

from lora_scene.backbones.compiling import compile_blocks
from lora_scene.recipe.settings import Base


def switch_on(unet: nn.Module, base: Base, *, device: str | torch.device) -> None:
    """Make activations again and compile, as far as the recipe says; in place.

    Args:
        unet: Of diffusers, loaded.
        base: The recipe's section.
        device: Where the UNet will run.

    Raises:
        BackboneError: A compiler is asked for and missing.
    """
    if base.gradient_checkpointing:
        unet.enable_gradient_checkpointing()  # type: ignore[operator]
    if base.compile:
        compile_blocks(unet, device=device)
