"""Per-concept strength at inference: how much of a learnt identity its handle carries.

A handle's rows move on the line through the base's own rows of its class noun:

    row(s) = noun + s (row - noun)

0 draws any bear, 1 the learnt bear, values between a resemblance, values above 1 a caricature.
The LoRA update is shared by all concepts and is scaled by the adapter's weight instead. Emphasis
is the other hand: it multiplies the odds with which the picture attends to the handle, so that a
concept that is left out comes back, or one that takes over steps back, its identity unchanged.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lora_scene.adapters.vocabulary import handle_tokens
from lora_scene.creating.studio import Studio, unknown_handle
from lora_scene.errors import CreationError


def parse_amount(text: str) -> tuple[str, float]:
    """Read `bear=0.5` as a handle and a number; the handle's brackets may be left out.

    Raises:
        CreationError: It has another form.
    """
    match = re.fullmatch(r"<?([^=<>]+)>?=(-?\d*\.?\d+)", text.strip())
    if match is None or not math.isfinite(float(match.group(2))):
        raise CreationError("not a handle's amount", where=text, expected="such as bear=0.5")
    return f"<{match.group(1)}>", float(match.group(2))


@contextlib.contextmanager
def strengthened(studio: Studio, strengths: Mapping[str, float]) -> Iterator[None]:
    """Move handles' rows towards their nouns for a while, then put them back bit for bit.

    Args:
        studio: The base and its adapters.
        strengths: Handle to strength; handles that are not named keep 1.

    Raises:
        CreationError: No adapter knows a handle.
    """
    concepts = {c.handle: c for one in studio.adapters for c in one.adapter.concepts}
    for handle in strengths:
        if handle not in concepts:
            raise unknown_handle(handle, studio.nouns)
    kept: list[tuple[Tensor, list[int], Tensor]] = []
    try:
        for handle, strength in strengths.items():
            for tokenizer, encoder in zip(
                studio.backbone.tokenizers, studio.backbone.text_encoders, strict=True
            ):
                matrix = encoder.get_input_embeddings().weight
                concept = concepts[handle]
                tokens = list(handle_tokens(handle, concept.n_vectors))
                ids = tokenizer.convert_tokens_to_ids(tokens)
                learnt = matrix.detach()[ids].clone()
                kept.append((matrix, ids, learnt))
                noun = noun_rows(tokenizer, matrix, concept.noun, concept.n_vectors)
                matrix.data[ids] = noun + strength * (learnt - noun)
        yield
    finally:
        for matrix, ids, learnt in kept:
            matrix.data[ids] = learnt


def noun_rows(tokenizer: Any, matrix: Tensor, noun: str, n_vectors: int) -> Tensor:
    """Return the base's rows (n_vectors, d) of a noun, as training starts from them.

    The pieces are spread over the vectors where there are several of both; what has no piece of
    its own takes the mean of them all.
    """
    pieces = tokenizer(noun, add_special_tokens=False).input_ids
    known = matrix.detach()[torch.tensor(pieces, device=matrix.device)]
    rows = known.mean(dim=0).repeat(n_vectors, 1)
    if n_vectors > 1 and len(known) > 1:
        n_own = min(n_vectors, len(known))
        rows[:n_own] = known[:n_own]
    return rows
