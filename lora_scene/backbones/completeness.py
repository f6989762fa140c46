"""Whether a base that the libraries loaded is whole: they fill gaps with random or empty parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lora_scene.backbones.families import identify
from lora_scene.backbones.tensor_header import read_tensor_header
from lora_scene.errors import BackboneError

TEXT_PREFIX = "text_model."  # which some versions of transformers write, and others do not
KNOWN = 0.9  # of a text encoder's rows: some are padded


def own_weights(pipeline: Any, where: str) -> None:
    """Refuse weights that are missing or not finite; let none stay mapped from its file.

    A mapped file cannot be replaced on Windows, and changes under the weights elsewhere.

    Raises:
        BackboneError: Some are.
    """
    parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    for part in parts:
        for name, tensor in (*part.named_parameters(), *part.named_buffers()):
            if tensor.is_meta:
                raise BackboneError("the base lacks weights", where=where, got=f"no {name}")
            if tensor.is_floating_point() and not tensor.sum(dtype=torch.float32).isfinite():
                raise BackboneError(
                    "weights that are not finite (NaN or infinity), so that every picture is black",
                    where=where,
                    got=f"{type(part).__name__}: {name}",
                    hint="the file is damaged; or, in float16, its numbers are too large: try "
                    "base.dtype=bf16 or fp32",
                )
            tensor.data = tensor.data.clone()


def check_text_weights(encoder: torch.nn.Module, folder: Path, where: str) -> None:
    """Refuse a text encoder whose files lack weights: transformers would draw them at random.

    Args:
        encoder: As it was loaded.
        folder: Of its files.
        where: The base, for messages.

    Raises:
        BackboneError: They lack some.
    """
    headers = (read_tensor_header(path, BackboneError) for path in folder.glob("*.safetensors"))
    stored = {name.removeprefix(TEXT_PREFIX) for header in headers for name in header.shapes}
    names = (name.removeprefix(TEXT_PREFIX) for name, _ in encoder.named_parameters())
    missing = [name for name in names if name not in stored]
    if missing:
        raise BackboneError("the base lacks weights", where=where, got=f"no {missing[0]}")


def check_tokenizers(pipeline: Any, where: str) -> None:
    """Refuse tokenizers without a vocabulary: of one that is missing the library makes an empty.

    Raises:
        BackboneError: One's tokens are more than its encoder's rows, or far fewer.
    """
    family = identify(pipeline.unet.config)
    for part, encoder in zip(family.tokenizers, family.text_encoders, strict=True):
        tokenizer = getattr(pipeline, part)
        n_rows = len(getattr(pipeline, encoder).get_input_embeddings().weight)
        if not knows_its_words(tokenizer, n_rows):
            raise BackboneError(
                f"the {part} is not the {encoder}'s, or its files are missing",
                where=where,
                expected=f"{n_rows:,} tokens",
                got=f"{len(tokenizer):,}",
            )


def knows_its_words(tokenizer: Any, n_rows: int) -> bool:
    """Tell whether a tokenizer's tokens are a text encoder's rows, but for a few that are spare."""
    return KNOWN * n_rows <= len(tokenizer) <= n_rows
