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


OPEN_CLIP = {
    "text_model.": "",
    "encoder.layers.": "transformer.resblocks.",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn": "attn",
    "embeddings.token_embedding": "token_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
}


def write(
    pipe: Any,
    path: Path,
    *,
    more: Mapping[str, torch.Tensor] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a pipeline as one `.safetensors` file, with `more` tensors in it."""
    return save(tensors(pipe) | dict(more or {}), path, metadata)


def save(
    tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> Path:
    named = {key: tensor.contiguous() for key, tensor in tensors.items()}
    save_file(named, path, metadata=dict(metadata) if metadata else None)
    return path


def tensors(pipe: Any) -> dict[str, torch.Tensor]:
    """Return all of a pipeline's tensors by their names in the original layout."""
    found = unet_tensors(pipe.unet) | vae_tensors(pipe.vae)
    if hasattr(pipe, "text_encoder_2"):
        found |= clip_tensors(pipe.text_encoder, "conditioner.embedders.0.transformer.")
        return found | open_clip_tensors(pipe.text_encoder_2, "conditioner.embedders.1.model.")
    if pipe.unet.config.use_linear_projection:
        return found | open_clip_tensors(pipe.text_encoder, "cond_stage_model.model.")
    return found | clip_tensors(pipe.text_encoder, "cond_stage_model.transformer.")


def clip_tensors(encoder: Any, prefix: str) -> dict[str, torch.Tensor]:
    return {
        f"{prefix}text_model.{key.removeprefix('text_model.')}": tensor
        for key, tensor in encoder.state_dict().items()
    }


def open_clip_tensors(encoder: Any, prefix: str) -> dict[str, torch.Tensor]:
    found = {}
    for key, tensor in encoder.state_dict().items():
        for ours, theirs in OPEN_CLIP.items():
            key = key.replace(ours, theirs)
        is_projection = key == "text_projection.weight"
        found[prefix + key.removesuffix(".weight" if is_projection else "")] = (
            tensor.T if is_projection else tensor
        )
    for key in [key for key in found if ".q_proj." in key]:
        parts = [found.pop(key.replace(".q_proj.", f".{each}_proj.")) for each in "qkv"]
        found[key.replace(".q_proj.", ".in_proj_")] = torch.cat(parts)
    return found


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
