"""All that differs between Stable Diffusion 1.x, 2.x and XL, as one table of values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lora_scene.errors import BackboneError

EXTRA_INPUTS = {  # by their number of channels
    5: "an image's depth (a depth model)",
    7: "a small picture (an upscaler)",
    8: "a picture (instruct-pix2pix, or a model of video)",
    9: "a picture and a mask (an inpainting model)",
}


@dataclass(frozen=True)
class Family:
    """What the rest of the package must know of an architecture.

    Attributes:
        key: `sd1`, `sd2` or `sdxl`.
        title: Its name for people.
        text_encoders: The pipeline's attributes that hold text encoders, in order.
        tokenizers: The pipeline's attributes that hold their tokenizers.
        has_pooled_text: Whether the UNet wants a pooled text embedding and time ids.
        embedding_keys: Tensor names in an embedding file, one a text encoder.
        kohya_text_prefixes: Key prefixes of text-encoder LoRA in the kohya layout.
        resolution: The usual training size, pixels.
        cells: What sides are multiples of, and the sides of a cell of the latents and of the
            attention maps, pixels.
    """

    key: str
    title: str
    text_encoders: tuple[str, ...]
    tokenizers: tuple[str, ...]
    has_pooled_text: bool
    embedding_keys: tuple[str, ...]
    kohya_text_prefixes: tuple[str, ...]
    resolution: int
    cells: tuple[int, int, int]


_SD = Family(
    key="sd1",
    title="Stable Diffusion 1.x",
    text_encoders=("text_encoder",),
    tokenizers=("tokenizer",),
    has_pooled_text=False,
    embedding_keys=("emb_params",),
    kohya_text_prefixes=("lora_te",),
    resolution=512,
    cells=(64, 8, 32),
)
_SDXL = Family(
    key="sdxl",
    title="Stable Diffusion XL",
    text_encoders=("text_encoder", "text_encoder_2"),
    tokenizers=("tokenizer", "tokenizer_2"),
    has_pooled_text=True,
    embedding_keys=("clip_l", "clip_g"),
    kohya_text_prefixes=("lora_te1", "lora_te2"),
    resolution=1024,
    cells=(32, 8, 32),
)
FAMILIES: Mapping[str, Family] = {
    "sd1": _SD,
    "sd2": replace(_SD, key="sd2", title="Stable Diffusion 2.x"),
    "sdxl": _SDXL,
}


def check_resolution(resolution: int, multiple: int) -> None:
    """Refuse a size, in pixels, that VAE and UNet cannot halve as often as they do.

    Raises:
        BackboneError: It is no multiple of `multiple`.
    """
    if resolution % multiple:
        near = max(round(resolution / multiple), 1) * multiple
        raise BackboneError(
            "the base cannot work at that size",
            where="base.resolution",
            expected=f"a multiple of {multiple} pixels, such as {near}",
            got=resolution,
        )


def vae_factor(vae_config: Mapping[str, Any]) -> int:
    """Return the side of a cell of the latents, pixels, by `AutoencoderKL.config`."""
    return int(2 ** (len(vae_config["block_out_channels"]) - 1))


def own_side(unet_config: Mapping[str, Any]) -> int:
    """Return the side of the latents that a UNet was made for, cells.

    Raises:
        BackboneError: Its configuration does not say, or says of no square.
    """
    stated = unet_config.get("sample_size")
    sides = set(stated) if isinstance(stated, list | tuple) else {stated}
    side = sides.pop() if len(sides) == 1 else None
    if not isinstance(side, int) or side < 1:
        raise BackboneError(
            "the base's configuration does not tell the square that it was made for",
            where="unet/config.json: sample_size",
            expected="cells a side, such as 64 for 512 pixels",
            got=stated,
        )
    return side


def side_multiple(unet_config: Mapping[str, Any], vae_config: Mapping[str, Any]) -> int:
    """Return what sides of pictures are multiples of, pixels: VAE and UNet halve them so often."""
    return int(vae_factor(vae_config) * 2 ** (len(unet_config["down_block_types"]) - 1))


def identify(unet_config: Mapping[str, Any]) -> Family:
    """Tell the family from a UNet's configuration.

    SDXL's UNet takes a pooled text embedding and time ids; SD 2.x projects with linear layers
    where SD 1.x has 1x1 convolutions. Sizes play no part, so small models of the same shape are
    known too.

    Args:
        unet_config: `UNet2DConditionModel.config`.

    Raises:
        BackboneError: The UNet has inputs that none of the families has, such as the refiner's
            single text encoder, an inpainting model's nine channels or an image embedding.
    """
    n_in, n_out = unet_config["in_channels"], unet_config["out_channels"]
    if n_in != n_out:
        raise BackboneError(
            f"this UNet takes more than a noisy latent: {EXTRA_INPUTS.get(n_in, 'another task')}",
            expected=f"{n_out} input channels",
            got=n_in,
            hint="train on the text-to-image base; its adapters load into inpainting models too",
        )
    if unet_config.get("time_cond_proj_dim") is not None:
        raise BackboneError(
            "a distilled UNet that takes the guidance as an input (LCM)",
            hint="train on the base that it was distilled from; the adapters load into it too",
        )
    addition = unet_config.get("addition_embed_type")
    foreign = {
        key: unet_config.get(key)
        for key in ("class_embed_type", "encoder_hid_dim_type", "num_class_embeds")
        if unet_config.get(key) is not None
    }
    if addition not in (None, "text_time") or foreign:
        raise BackboneError(
            "a UNet of an unknown family",
            expected=", ".join(family.title for family in FAMILIES.values()),
            got=foreign or f"addition_embed_type={addition!r}",
        )
    if addition == "text_time":
        return FAMILIES["sdxl"]
    return FAMILIES["sd2" if unet_config.get("use_linear_projection") else "sd1"]


def map_level(unet_config: Mapping[str, Any]) -> int:
    """Return the UNet's level whose cross-attention maps the attention loss reads.

    It is the coarsest outside the mid block that has cross-attention, at which the latents are
    halved as often: maps of 16x16 for SD at 512 px, 24x24 at 768 px, 32x32 for SDXL at 1024 px (the
    paper's 16, Break-A-Scene section 3.3, generalised).

    Args:
        unet_config: `UNet2DConditionModel.config`.
    """
    levels = [
        level
        for level, block in enumerate(unet_config["down_block_types"])
        if block.startswith("CrossAttn")
    ]
    if not levels:
        raise BackboneError("this UNet has no cross-attention, so prompts cannot steer it")
    return max(levels)
