"""Tiny random bases in the real architectures, made in code in a moment; they draw noise."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from lora_scene.backbones.families import FAMILIES as _FAMILIES

FAMILIES = tuple(_FAMILIES)
RESOLUTION = 64  # pixels; latents are 16x16, the attention maps 4x4
WORDS = (
    *("a", "an", "and", "photo", "of", "on", "in", "at", "the", "with", "to"),
    *("bear", "bowl", "shell", "cat", "dog", "red", "grass", "beach", "snow"),
)
MAX_LENGTH = 24


def tokenizer() -> CLIPTokenizer:
    """Build a CLIP tokenizer: single letters, and `WORDS` as whole tokens."""
    letters = [chr(c) for c in range(ord("!"), ord("~") + 1)]
    vocab: dict[str, int] = {}
    for piece in [*letters, *(letter + "</w>" for letter in letters)]:
        vocab[piece] = len(vocab)
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            if pair not in merges:
                merges.append(pair)
            vocab.setdefault("".join(pair), len(vocab))
            pieces = ["".join(pair), *pieces[2:]]
    vocab["<|startoftext|>"] = len(vocab)
    vocab["<|endoftext|>"] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_LENGTH)


def text_config(width: int, tokens: CLIPTokenizer, *, eos: int | None = None) -> CLIPTextConfig:
    """Describe a text encoder of `width`; `eos` replaces the tokenizer's end-of-text id."""
    return CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_LENGTH,
        projection_dim=width,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id if eos is None else eos,
        pad_token_id=tokens.pad_token_id,
    )


def unet(family: str, width: int) -> UNet2DConditionModel:
    """Build a family's UNet, for text of `width`."""
    shared: dict[str, Any] = {
        "sample_size": 16,
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "in_channels": 4,
        "out_channels": 4,
        "use_linear_projection": family != "sd1",
    }
    if family == "sdxl":
        return UNet2DConditionModel(
            block_out_channels=(16, 32, 64),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 1, 2),
            attention_head_dim=(2, 4, 8),
            cross_attention_dim=width,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 32,
            **shared,
        )
    return UNet2DConditionModel(
        block_out_channels=(16, 32, 32, 64),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        attention_head_dim=4,
        cross_attention_dim=width,
        **shared,
    )


def vae() -> AutoencoderKL:
    """Build an autoencoder with a factor of 4."""
    return AutoencoderKL(
        block_out_channels=(8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=RESOLUTION,
        scaling_factor=0.18215,
    )


def scheduler(prediction_type: str) -> DDIMScheduler:
    """Build the families' noise schedule, for `epsilon` or `v_prediction`."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )


def pipeline(family: str = "sd1", *, seed: int = 0, legacy_eos: bool = False) -> Any:
    """Build a random pipeline of a family; `sd2` is v-prediction.

    Args:
        family: `sd1`, `sd2` or `sdxl`.
        seed: Seed of the weights.
        legacy_eos: Whether the last text encoder has the legacy `eos_token_id == 2`, which makes
            CLIP pool at the highest token id.
    """
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        tokens = tokenizer()
        eos = 2 if legacy_eos else None
        shared = {
            "vae": vae(),
            "tokenizer": tokens,
            "scheduler": scheduler("v_prediction" if family == "sd2" else "epsilon"),
        }
        if family == "sdxl":
            made = StableDiffusionXLPipeline(
                text_encoder=CLIPTextModel(text_config(16, tokens)),
                text_encoder_2=CLIPTextModelWithProjection(text_config(32, tokens, eos=eos)),
                tokenizer_2=tokenizer(),
                unet=unet(family, 48),
                add_watermarker=False,
                **shared,
            )
        else:
            made = StableDiffusionPipeline(
                text_encoder=CLIPTextModel(text_config(32, tokens, eos=eos)),
                unet=unet(family, 32),
                safety_checker=None,
                feature_extractor=None,
                requires_safety_checker=False,
                **shared,
            )
    made.set_progress_bar_config(disable=True)
    return made


@functools.cache
def folder(family: str, root: str, seed: int = 0) -> str:
    """Save a random pipeline under `root` once; return its folder."""
    path = f"{root}/{family}-{seed}"
    pipeline(family, seed=seed).save_pretrained(path)
    return path
