"""Handles in a tokenizer and rows in a text encoder: added, and taken away without a trace.

A handle of several vectors follows diffusers' convention: `<bear>`, `<bear>_1`, `<bear>_2`... are
tokens, and pipelines expand `<bear>` in a prompt to all of them. They replace its exact letters,
while the tokenizer finds `<Bear>` too, and calls it `<bear>`: one vector of three, without a word.
So the tokenizer itself expands what the pipeline left, whatever its case.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lora_scene.adapters.adapter import Adapter
from lora_scene.backbones.families import FAMILIES, Family
from lora_scene.errors import AdapterError


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer and its text encoder's matrix as they were at one moment.

    Attributes:
        tokenizer_class: The tokenizer's class.
        tokenizer_state: A deep copy of the tokenizer's attributes.
        tokens: Every token that was known, in the order of their ids.
        n_rows: Rows of the matrix.
        spare_rows: (n_rows - n_tokens, d) rows that no token used, which new tokens may take.
    """

    tokenizer_class: type
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
        tokenizer_class=type(tokenizer),
        tokenizer_state=copy.deepcopy(vars(tokenizer)),
        tokens=frozenset(tokenizer.get_vocab()),
        n_rows=matrix.shape[0],
        spare_rows=matrix.detach()[len(tokenizer) :].clone(),
    )


def add_handles(tokenizer: Any, text_encoder: Any, rows: Mapping[str, torch.Tensor]) -> None:
    """Add handles and their rows; the matrix grows just as far as they need.

    Args:
        tokenizer: Of a pipeline.
        text_encoder: The one whose matrix it indexes.
        rows: Handle to its (n_vectors, d) rows.

    Raises:
        AdapterError: The tokenizer does not give a new token an id of its own.
    """
    tokens = [t for handle, block in rows.items() for t in handle_tokens(handle, len(block))]
    tokenizer.add_tokens(tokens)
    ids = [tokenizer.convert_tokens_to_ids(token) for token in tokens]
    embedding = text_encoder.get_input_embeddings()
    old = embedding.weight
    n_rows = max(old.shape[0], len(tokenizer))
    grown = torch.cat([old.detach(), old.new_zeros(n_rows - old.shape[0], old.shape[1])])
    grown[ids] = torch.cat([*rows.values()]).to(grown)
    _set_matrix(text_encoder, embedding, grown)
    for token, token_id in zip(tokens, ids, strict=True):
        encoded = tokenizer(token, add_special_tokens=False).input_ids
        if encoded != [token_id]:
            raise AdapterError(
                "the tokenizer does not read the handle as one token",
                where=token,
                expected=[token_id],
                got=encoded,
            )
    let_expand(tokenizer, {handle: len(block) for handle, block in rows.items()})


def add_concepts(pipeline: Any, adapter: Adapter) -> None:
    """Add an adapter's handles and rows to each tokenizer and text encoder of a pipeline."""
    for index, pair in enumerate(text_parts(pipeline, FAMILIES[adapter.family])):
        add_handles(*pair, {concept.handle: concept.rows[index] for concept in adapter.concepts})


def text_parts(pipeline: Any, family: Family) -> list[tuple[Any, Any]]:
    """Return a pipeline's tokenizers with their text encoders."""
    names = zip(family.tokenizers, family.text_encoders, strict=True)
    return [(getattr(pipeline, t), getattr(pipeline, e)) for t, e in names]


def let_expand(tokenizer: Any, n_vectors: Mapping[str, int]) -> None:
    """Let a tokenizer read every spelling of a handle as all of its tokens.

    Args:
        tokenizer: It knows the tokens already; copies of it inherit what is set here.
        n_vectors: Handle to its number of vectors.
    """
    several = {handle: n for handle, n in n_vectors.items() if n > 1}
    if several:
        known = getattr(tokenizer, _EXPANDED, {})
        setattr(tokenizer, _EXPANDED, {**known, **several})
        kind: type = type(tokenizer)
        tokenizer.__class__ = _expanding(kind)


def restore(vocabulary: Vocabulary, tokenizer: Any, text_encoder: Any) -> None:
    """Put a tokenizer and its text encoder's matrix back to what `remember` saw, bit for bit.

    A token that somebody took out meanwhile is there again, with a row of zeros.
    """
    now = tokenizer.get_vocab()
    tokenizer.__class__ = vocabulary.tokenizer_class
    vars(tokenizer).clear()
    vars(tokenizer).update(copy.deepcopy(dict(vocabulary.tokenizer_state)))
    then = tokenizer.get_vocab()
    embedding = text_encoder.get_input_embeddings()
    old = embedding.weight.detach()
    matrix = old.new_zeros(vocabulary.n_rows, old.shape[1])
    matrix[: len(old)] = old[: len(matrix)]
    moved = [token for token in then.keys() & now.keys() if then[token] != now[token]]
    matrix[[then[token] for token in moved]] = old[[now[token] for token in moved]]
    matrix[[then[token] for token in then.keys() - now.keys()]] = 0
    n_spare = vocabulary.spare_rows.shape[0]
    matrix[vocabulary.n_rows - n_spare :] = vocabulary.spare_rows.to(matrix)
    _set_matrix(text_encoder, embedding, matrix)


def noun_rows(tokenizer: Any, matrix: torch.Tensor, noun: str, n_vectors: int) -> torch.Tensor:
    """Return a matrix's rows (n_vectors, d) of a noun, float32: where training starts from.

    The noun's pieces are spread over the vectors where there are several of both; what has no
    piece of its own takes the mean of them all.
    """
    pieces = tokenizer(noun, add_special_tokens=False).input_ids
    known = matrix.detach()[torch.tensor(pieces, device=matrix.device)].float()
    rows = known.mean(dim=0).repeat(n_vectors, 1)
    if n_vectors > 1 and len(known) > 1:
        n_own = min(n_vectors, len(known))
        rows[:n_own] = known[:n_own]
    return rows


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


_EXPANDED = "expanded_handles"  # handle to number of vectors, on a tokenizer


@functools.cache
def _expanding(kind: type) -> type:
    """Return a tokenizer's class that expands handles first; it keeps its name, for saving."""
    if getattr(kind, "expands_handles", False):
        return kind

    def call(self: Any, text: Any = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(text, str):
            text = _expand(text, getattr(self, _EXPANDED, {}))
        elif isinstance(text, list | tuple):
            handles = getattr(self, _EXPANDED, {})
            text = [_expand(one, handles) if isinstance(one, str) else one for one in text]
        return kind.__call__(self, text, *args, **kwargs)

    return type(kind.__name__, (kind,), {"__call__": call, "expands_handles": True})


def _expand(text: str, n_vectors: Mapping[str, int]) -> str:
    """Write each handle that stands alone, in any case, as all its tokens."""
    for handle, n in n_vectors.items():
        name = re.escape(handle)
        alone = re.compile(rf"{name}(?!_\d| {name}_1)", re.IGNORECASE)
        text = alone.sub(" ".join(handle_tokens(handle, n)), text)
    return text


def _set_matrix(text_encoder: Any, embedding: nn.Embedding, matrix: torch.Tensor) -> None:
    embedding.weight = nn.Parameter(matrix, requires_grad=embedding.weight.requires_grad)
    embedding.num_embeddings = matrix.shape[0]
    text_encoder.config.vocab_size = matrix.shape[0]
