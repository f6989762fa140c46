"""Handles in a tokenizer and rows in a text encoder: added, and taken away without a trace.

A handle of several vectors follows diffusers' convention: `<bear>`, `<bear>_1`, `<bear>_2`... are
tokens, and pipelines expand `<bear>` in a prompt to all of them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lora_scene.errors import AdapterError


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer and its text encoder's matrix as they were at one moment.

    Attributes:
        tokenizer_state: A deep copy of the tokenizer's attributes.
        tokens: Every token that was known, in the order of their ids.
        n_rows: Rows of the matrix.
        spare_rows: (n_rows - n_tokens, d) rows that no token used, which new tokens may take.
    """

    tokenizer_state: Mapping[str, Any]
    tokens: frozenset[str]
    n_rows: int
    spare_rows: torch.Tensor


def handle_tokens(handle: str, n_vectors: int) -> tuple[str, ...]:
    """Return the tokens that stand for a handle: itself, then `handle_1` and so on."""
    return (handle, *(f"{handle}_{index}" for index in range(1, n_vectors)))


def remember(tokenizer: Any, text_encoder: Any) -> Vocabulary:
    """Take down a tokenizer and its text encoder's matrix, for `restore`."""
    matrix = text_encoder.get_input_embeddings().weight
    return Vocabulary(
        tokenizer_state=copy.deepcopy(vars(tokenizer)),
        tokens=frozenset(tokenizer.get_vocab()),
        n_rows=matrix.shape[0],
        spare_rows=matrix.detach()[len(tokenizer) :].clone(),
    )


def add_tokens(tokenizer: Any, text_encoder: Any, rows: Mapping[str, torch.Tensor]) -> None:
    """Add tokens and their rows; the matrix grows just as far as they need.

    Args:
        tokenizer: The pipeline's tokenizer.
        text_encoder: The text encoder whose matrix it indexes.
        rows: Token to its (d,) row.

    Raises:
        AdapterError: The tokenizer does not give a new token an id of its own.
    """
    tokenizer.add_tokens(list(rows))
    ids = [tokenizer.convert_tokens_to_ids(token) for token in rows]
    embedding = text_encoder.get_input_embeddings()
    old = embedding.weight
    n_rows = max(old.shape[0], len(tokenizer))
    grown = torch.cat([old.detach(), old.new_zeros(n_rows - old.shape[0], old.shape[1])])
    for token_id, row in zip(ids, rows.values(), strict=True):
        grown[token_id] = row.to(grown)
    _set_matrix(text_encoder, embedding, grown)
    for token, token_id in zip(rows, ids, strict=True):
        encoded = tokenizer(token, add_special_tokens=False).input_ids
        if encoded != [token_id]:
            raise AdapterError(
                "the tokenizer does not read the handle as one token",
                where=token,
                expected=[token_id],
                got=encoded,
            )


def restore(vocabulary: Vocabulary, tokenizer: Any, text_encoder: Any) -> None:
    """Put a tokenizer and its text encoder's matrix back to what `remember` saw, bit for bit."""
    vars(tokenizer).clear()
    vars(tokenizer).update(copy.deepcopy(dict(vocabulary.tokenizer_state)))
    embedding = text_encoder.get_input_embeddings()
    matrix = embedding.weight.detach()[: vocabulary.n_rows].clone()
    n_spare = vocabulary.spare_rows.shape[0]
    matrix[vocabulary.n_rows - n_spare :] = vocabulary.spare_rows.to(matrix)
    _set_matrix(text_encoder, embedding, matrix)


def clashes(handles: Mapping[str, int], tokenizer: Any) -> list[str]:
    """Return a sentence for each handle that cannot be told from what the tokenizer knows.

    diffusers expands a handle by plain text replacement, and tokenizers find added tokens inside
    words and whatever their case: so no handle may be part of an added token, nor hold one.

    Args:
        handles: Handle to its number of vectors.
        tokenizer: The pipeline's tokenizer.
    """
    vocabulary = {token.lower() for token in tokenizer.get_vocab()}
    added = [token for token in tokenizer.get_added_vocab() if token]
    problems = []
    for handle, n_vectors in handles.items():
        tokens = {token.lower() for token in handle_tokens(handle, n_vectors + 1)}
        if vocabulary & tokens:
            problems.append(f"{handle} is a token already")
            continue
        problems += [
            f"{handle} cannot be told from the token {token}"
            for token in added
            if token.lower() in handle.lower() or handle.lower() in token.lower()
        ]
    return problems


def _set_matrix(text_encoder: Any, embedding: nn.Embedding, matrix: torch.Tensor) -> None:
    embedding.weight = nn.Parameter(matrix, requires_grad=embedding.weight.requires_grad)
    embedding.num_embeddings = matrix.shape[0]
    text_encoder.config.vocab_size = matrix.shape[0]
