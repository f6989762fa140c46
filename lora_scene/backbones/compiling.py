"""torch.compile for the parts of a UNet that nothing looks into.

Residual blocks and feed-forward layers hold 62 % of the arithmetic of Stable Diffusion's UNets at
their own size (1.5, 2.1 and XL, counted on the meta device). Attention is left as it is: recorders
hang hooks into it, and its kernels are fused already.
"""

from __future__ import annotations

import importlib.util
import shutil

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from lora_scene.errors import BackboneError

C_COMPILERS = ("c++", "g++", "clang++", "cl")
MOST_SHAPES = 64  # of blocks, before and after adapters; torch gives up after 8 by itself


def compile_blocks(unet: nn.Module, *, device: str | torch.device) -> int:
    """Let torch.compile fuse each residual block and feed-forward layer, in place.

    Compilation itself happens at the first pass, forward and backward, and again when adapters
    have been added. Names of weights stay as they were. The process's limit on recompiling is
    raised, so that every shape of block gets its graph.

    Args:
        unet: Of diffusers, in any storage.
        device: Where it will run: decides which compiler is needed.

    Returns:
        How many modules will be compiled.

    Raises:
        BackboneError: The device's compiler is missing.
    """
    kind = torch.device(device).type
    if kind == "cuda" and importlib.util.find_spec("triton") is None:
        raise BackboneError(
            "torch.compile needs triton on a GPU", hint="pip install triton, or base.compile=false"
        )
    if kind == "cpu" and not any(shutil.which(name) for name in C_COMPILERS):
        raise BackboneError(
            "torch.compile needs a C++ compiler on a CPU", hint="install one, or base.compile=false"
        )
    blocks = [part for part in unet.modules() if isinstance(part, ResnetBlock2D | FeedForward)]
    limit = torch._dynamo.config
    limit.recompile_limit = max(limit.recompile_limit, MOST_SHAPES)
    for block in blocks:
        block.compile(dynamic=False)
    return len(blocks)
