"""Diffusers pipelines written as single files in the layout of the original SD checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

UNET_ENDS = {
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "conv_in.": "input_blocks.0.0.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
    "add_embedding.linear_1.": "label_emb.0.0.",
    "add_embedding.linear_2.": "label_emb.0.2.",
}
RESNET = {
    "norm1.": "in_layers.0.",
    "conv1.": "in_layers.2.",
    "norm2.": "out_layers.0.",
    "conv2.": "out_layers.3.",
    "time_emb_proj.": "emb_layers.1.",
    "conv_shortcut.": "skip_connection.",
}
VAE_NAMES = {
    "conv_shortcut": "nin_shortcut",
    "conv_norm_out": "norm_out",
    "mid_block.attentions.0.": "mid.attn_1.",
    "mid_block.resnets.0.": "mid.block_1.",
    "mid_block.resnets.1.": "mid.block_2.",
    "group_norm.": "norm.",
    "to_q.": "q.",
    "to_k.": "k.",
    "to_v.": "v.",
    "to_out.0.": "proj_out.",
}


def write(pipe: Any, path: Path) -> Path:
    """Write an SD 1.x pipeline as one `.safetensors` file."""
    tensors = unet_tensors(pipe.unet) | vae_tensors(pipe.vae)
    for key, tensor in pipe.text_encoder.state_dict().items():
        inner = key if key.startswith("text_model.") else f"text_model.{key}"
        tensors[f"cond_stage_model.transformer.{inner}"] = tensor
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return path


def unet_tensors(unet: Any) -> dict[str, torch.Tensor]:
    return {
        f"model.diffusion_model.{_unet_key(key, unet.config)}": tensor
        for key, tensor in unet.state_dict().items()
    }


def _unet_key(key: str, config: Mapping[str, Any]) -> str:
    for ours, theirs in UNET_ENDS.items():
        if key.startswith(ours):
            return theirs + key.removeprefix(ours)
    n = config["layers_per_block"] + 1
    part, *rest = key.split(".")
    if part == "mid_block":
        kind, index, tail = rest[0], int(rest[1]), ".".join(rest[2:])
        place = "middle_block.1." if kind == "attentions" else f"middle_block.{2 * index}."
        return place + _resnet(tail, kind)
    level, kind, index, tail = int(rest[0]), rest[1], int(rest[2]), ".".join(rest[3:])
    if kind == "downsamplers":
        return f"input_blocks.{n * (level + 1)}.0.op." + tail.removeprefix("conv.")
    if kind == "upsamplers":
        has_attention = config["up_block_types"][level].startswith("CrossAttn")
        return f"output_blocks.{n * level + n - 1}.{2 if has_attention else 1}.{tail}"
    place = f"input_blocks.{n * level + index + 1}" if part == "down_blocks" else ""
    place = place or f"output_blocks.{n * level + index}"
    return f"{place}.{0 if kind == 'resnets' else 1}.{_resnet(tail, kind)}"


def _resnet(tail: str, kind: str) -> str:
    if kind != "resnets":
        return tail
    for ours, theirs in RESNET.items():
        if tail.startswith(ours):
            return theirs + tail.removeprefix(ours)
    raise KeyError(tail)


def vae_tensors(vae: Any) -> dict[str, torch.Tensor]:
    top = len(vae.config.block_out_channels) - 1
    tensors = {}
    for key, tensor in vae.state_dict().items():
        parts = key.split(".")
        if parts[1] in ("down_blocks", "up_blocks"):
            is_down = parts[1] == "down_blocks"
            level = int(parts[2]) if is_down else top - int(parts[2])
            side = "down" if is_down else "up"
            middle = f"block.{parts[4]}" if parts[3] == "resnets" else f"{side}sample"
            parts = [parts[0], side, str(level), middle, *parts[5:]]
        name = ".".join(parts)
        for ours, theirs in VAE_NAMES.items():
            name = name.replace(ours, theirs)
        is_projection = "attn_1" in name and tensor.dim() == 2
        tensors[f"first_stage_model.{name}"] = tensor[..., None, None] if is_projection else tensor
    return tensors
