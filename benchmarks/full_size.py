"""Random bases in full size, with CLIP's true vocabulary, saved as people have them.

The vocabulary is a file of the package `open_clip_torch`, which is read and not imported.
"""

from __future__ import annotations

import gzip
import importlib.metadata
from pathlib import Path
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

from lora_scene.backbones.architectures import ARCHITECTURES, Architecture

MERGES = "open_clip/bpe_simple_vocab_16e6.txt.gz"
N_TOKENS = 49408
BYTES = 256
STABLE_DIFFUSION_SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def clip_tokenizer(pad: str = "<|endoftext|>") -> CLIPTokenizer:
    """Build CLIP's tokenizer of 49,408 tokens from its published merges.

    Raises:
        FileNotFoundError: `open_clip_torch` is not installed.
    """
    try:
        files = importlib.metadata.files("open_clip_torch") or []
    except importlib.metadata.PackageNotFoundError as error:
        raise FileNotFoundError("pip install --no-deps open_clip_torch, for its file") from error
    path = next(file for file in files if str(file).replace("\\", "/") == MERGES).locate()
    lines = gzip.decompress(Path(str(path)).read_bytes()).decode("utf-8").splitlines()
    n_merges = N_TOKENS - 2 * BYTES - 2
    merges = [(a, b) for a, b in (line.split() for line in lines[1 : n_merges + 1])]
    letters = _byte_letters()
    pieces = [*letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in merges)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    assert len(pieces) == N_TOKENS
    vocab = {piece: number for number, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77, pad_token=pad)


def _byte_letters() -> list[str]:
    """Return the printable letters that stand for the bytes 0..255 in CLIP's vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    n_others = BYTES - len(printable)
    return [chr(code) for code in printable] + [chr(BYTES + n) for n in range(n_others)]


def build_full_size(name: str, *, dtype: torch.dtype) -> Any:
    """Build a pipeline of `sd15` or `sdxl` with random weights.

    Args:
        name: Of `ARCHITECTURES`.
        dtype: Of the weights, from the first on: SDXL takes 6.9 GB in 16 bits, 13.9 in 32.
    """
    torch.manual_seed(0)
    kept = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return _pipeline(name, ARCHITECTURES[name])
    finally:
        torch.set_default_dtype(kept)


def _pipeline(name: str, architecture: Architecture) -> Any:
    encoders = [
        kind(CLIPTextConfig(**config, bos_token_id=N_TOKENS - 2, eos_token_id=N_TOKENS - 1))
        for kind, config in zip(
            (CLIPTextModel, CLIPTextModelWithProjection), architecture.text_encoders, strict=False
        )
    ]
    parts: dict[str, Any] = {
        "vae": AutoencoderKL(**{**architecture.vae, "up_block_types": ("UpDecoderBlock2D",) * 4}),
        "unet": UNet2DConditionModel(**architecture.unet),
        "scheduler": DDIMScheduler(**STABLE_DIFFUSION_SCHEDULE),
        "text_encoder": encoders[0],
        "tokenizer": clip_tokenizer(),
    }
    if name == "sdxl":
        parts |= {"text_encoder_2": encoders[1], "tokenizer_2": clip_tokenizer(pad="!")}
        return StableDiffusionXLPipeline(**parts)
    return StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
