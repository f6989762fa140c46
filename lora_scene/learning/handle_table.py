"""Handles: new tokens whose embedding rows are parameters of their own.

The vocabulary matrix is never resized, copied or trained. A small table is spliced in after the
lookup: ids from `first_id` on read the table, all others the untouched matrix. The new ids are
those that a stock pipeline gives the same tokens, so that training sees what inference sees.
"""

from __future__ import annotations

import contextlib
import copy
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lora_scene.adapters.vocabulary import handle_tokens, let_expand, noun_rows
from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.prompt_room import SHORTER
from lora_scene.errors import SceneError
from lora_scene.scenes.scene import Concept

SHOWN = 200  # characters of a prompt that is refused

SPLIT_NOISE = 0.01  # of the vocabulary's deviation: tells a handle's equal vectors apart
COLUMNS = 64  # measured at once


class SplicedEmbedding(nn.Module):
    """Look ids up in the vocabulary, and those from `first_id` on in the rows.

    Args:
        vocabulary: The text encoder's own lookup.
        rows: (n, d), float32.
        first_id: Id of the first row.
    """

    def __init__(self, vocabulary: nn.Embedding, rows: nn.Parameter, first_id: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        # A child after the vocabulary: a model's dtype is that of its first parameter.
        self._table = nn.ParameterList([rows])
        self.first_id = first_id

    @property
    def rows(self) -> nn.Parameter:
        """Return the rows (n, d)."""
        rows: nn.Parameter = self._table[0]
        return rows

    @property
    def weight(self) -> Tensor:
        """Return the vocabulary's matrix, for callers that ask for its dtype or device."""
        return self.vocabulary.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Return embeddings (..., d) of ids (...)."""
        is_new = ids >= self.first_id
        known: Tensor = self.vocabulary(ids.masked_fill(is_new, 0))
        index = (ids - self.first_id).clamp(0, len(self.rows) - 1)
        return torch.where(is_new[..., None], self.rows[index].to(known.dtype), known)


class HandleTable(nn.Module):
    """The rows of all handles in all text encoders.

    Attributes:
        concepts: The scene's concepts, in order.
        n_vectors: Rows per handle.
        tables: One (K * n_vectors, d_i) parameter a text encoder i, in float32.
        n_gradients: For each table, the steps in which each row had a gradient.

    Args:
        backbone: The base, whose tokenizers learn the new tokens in `spliced`.
        concepts: The things to learn.
        n_vectors: Rows per handle.
        init: `noun` starts at the class noun's pieces, `random` at a draw from the
            vocabulary's distribution.
        generator: Source of what is drawn, on the CPU.

    Raises:
        SceneError: A handle is already a token of the base.
    """

    def __init__(
        self,
        backbone: Backbone,
        concepts: Sequence[Concept],
        *,
        n_vectors: int = 1,
        init: Literal["noun", "random"] = "noun",
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.concepts = tuple(concepts)
        self.n_vectors = n_vectors
        self._backbone = [backbone]  # in a list: not a submodule
        for tokenizer in backbone.tokenizers:
            _refuse_known(tokenizer, self.tokens)
        self.tables = nn.ParameterList(
            nn.Parameter(
                torch.cat(
                    [
                        _first_rows(tokenizer, encoder, concept, n_vectors, init, generator)
                        for concept in self.concepts
                    ]
                )
            )
            for tokenizer, encoder in zip(backbone.tokenizers, backbone.text_encoders, strict=True)
        )
        self.n_gradients = [
            torch.zeros(len(t), dtype=torch.long, device=t.device) for t in self.tables
        ]
        self._start_norms = tuple(
            table.detach().norm(dim=-1, keepdim=True) for table in self.tables
        )

    @property
    def tokens(self) -> tuple[str, ...]:
        """Return every token: `<bear>`, then `<bear>_1`... for a handle of several vectors."""
        return tuple(
            token
            for concept in self.concepts
            for token in handle_tokens(concept.handle, self.n_vectors)
        )

    @contextlib.contextmanager
    def spliced(self) -> Iterator[None]:
        """Let the base read the handles; take every trace of them away afterwards."""
        backbone = self._backbone[0]
        kept = backbone.tokenizers, [e.get_input_embeddings() for e in backbone.text_encoders]
        tokenizers = tuple(_with_tokens(tokenizer, self.tokens) for tokenizer in kept[0])
        for tokenizer in tokenizers:  # whatever the case that a prompt spells a handle in
            let_expand(tokenizer, {c.handle: self.n_vectors for c in self.concepts})
        backbone.tokenizers = tokenizers
        for encoder, lookup, table, tokenizer in zip(
            backbone.text_encoders, kept[1], self.tables, kept[0], strict=True
        ):
            encoder.set_input_embeddings(SplicedEmbedding(lookup, table, len(tokenizer)))
        try:
            yield
        finally:
            backbone.tokenizers = kept[0]
            for encoder, lookup in zip(backbone.text_encoders, kept[1], strict=True):
                encoder.set_input_embeddings(lookup)

    def expand(self, prompt: str) -> str:
        """Write each handle as all its tokens, as `TextualInversionLoaderMixin` does."""
        if self.n_vectors > 1:
            for concept in self.concepts:
                prompt = prompt.replace(
                    concept.handle, " ".join(handle_tokens(concept.handle, self.n_vectors))
                )
        return prompt

    def columns(self, ids: Tensor, subset: Sequence[int]) -> list[list[int]]:
        """Return the token positions of each drawn handle, in the subset's order, while spliced.

        Args:
            ids: (n_tokens,) of the first tokenizer.
            subset: Concept indices, of which the prompt names each.

        Raises:
            SceneError: A handle was cut off at the end of a prompt that is too long.
        """
        first = len(self._backbone[0].tokenizers[0]) - len(self.tokens)
        found = []
        for concept in subset:
            start = first + concept * self.n_vectors
            is_handle = (ids >= start) & (ids < start + self.n_vectors)
            found.append(is_handle.nonzero().flatten().tolist())
            if not found[-1]:
                raise SceneError(
                    "the prompt is too long for the text encoder",
                    where=self.concepts[concept].handle,
                    expected=f"at most {len(ids) - 2} tokens",
                    hint="use a shorter template or fewer vectors per handle",
                )
        return found

    def refuse_cut(self, prompts: Sequence[str], where: str, hint: str = "") -> None:
        """Refuse prompts that a tokenizer would cut.

        Args:
            prompts: With handles; the table is spliced in.
            where: The setting that they come from.
            hint: What else helps.

        Raises:
            SceneError: Naming the first such prompt.
        """
        refuse_cut(self._backbone[0], [self.expand(prompt) for prompt in prompts], where, hint)

    def rows_of(self, index: int) -> tuple[Tensor, ...]:
        """Return concept `index`'s rows, one (n_vectors, d_i) tensor a text encoder."""
        span = slice(index * self.n_vectors, (index + 1) * self.n_vectors)
        return tuple(table.detach()[span].cpu().clone() for table in self.tables)

    def begin_at(self, index: int, rows: Sequence[Tensor]) -> None:
        """Let concept `index` begin at rows, one (n_vectors, d_i) tensor a text encoder."""
        span = slice(index * self.n_vectors, (index + 1) * self.n_vectors)
        for table, own, norms in zip(self.tables, rows, self._start_norms, strict=True):
            table.data[span] = own.to(table)
            norms[span] = table.data[span].norm(dim=-1, keepdim=True)

    def count_gradients(self) -> None:
        """Add a step to the count of each row that its gradients reach."""
        for table, counts in zip(self.tables, self.n_gradients, strict=True):
            if table.grad is not None:
                counts += table.grad.ne(0).any(dim=1)

    @property
    def unreached(self) -> tuple[str, ...]:
        """Return the handles of which some row never had a gradient, in the concepts' order."""
        per_row = torch.stack([counts.cpu() for counts in self.n_gradients]).amin(dim=0)
        least = per_row.view(len(self.concepts), self.n_vectors).amin(dim=1)
        return tuple(c.handle for c, n in zip(self.concepts, least.tolist(), strict=True) if not n)

    @torch.no_grad()
    def restore_norms(self) -> None:
        """Scale each row back to the norm it started with (arXiv:2512.13672)."""
        for table, norm in zip(self.tables, self._start_norms, strict=True):
            table.mul_(norm / table.norm(dim=-1, keepdim=True))


def _first_rows(
    tokenizer: Any,
    encoder: Any,
    concept: Concept,
    n_vectors: int,
    init: str,
    generator: torch.Generator,
) -> Tensor:
    """Return a concept's first rows (n_vectors, d), float32, where the vocabulary lies."""
    matrix: Tensor = encoder.get_input_embeddings().weight.detach()
    noise = torch.randn(n_vectors, matrix.shape[1], generator=generator).to(matrix.device)
    if init == "random":
        return _of_columns(matrix, torch.mean) + _of_columns(matrix, torch.std) * noise
    rows = noun_rows(tokenizer, matrix, concept.noun, n_vectors)
    return rows + SPLIT_NOISE * _of_columns(matrix, torch.std) * noise if n_vectors > 1 else rows


def _of_columns(matrix: Tensor, measure: Callable[..., Tensor]) -> Tensor:
    """Measure columns (n, d) in float32, a few at a time: no second vocabulary lies on a card."""
    return torch.cat([measure(some.float(), dim=0) for some in torch.split(matrix, COLUMNS, dim=1)])


def _with_tokens(tokenizer: Any, tokens: Sequence[str]) -> Any:
    """Return a copy of a tokenizer that knows the new tokens."""
    tokenizer = copy.deepcopy(tokenizer)
    n_added = tokenizer.add_tokens(list(tokens))
    assert n_added == len(tokens), "handles were checked against the vocabulary"
    return tokenizer


def _refuse_known(tokenizer: Any, tokens: Sequence[str]) -> None:
    vocabulary = tokenizer.get_vocab()
    known = [t for t in tokens if t in vocabulary or f"{t}</w>" in vocabulary]
    if known:
        raise SceneError(
            "already a token of the base, which would lose its meaning",
            where=", ".join(known),
            expected="new names in angle brackets, such as <my-bear>",
        )


def refuse_cut(backbone: Backbone, prompts: Sequence[str], where: str, hint: str = "") -> None:
    """Refuse prompts that a base's tokenizer would cut.

    Args:
        backbone: The base.
        prompts: As its tokenizers read them.
        where: The setting that they come from.
        hint: What else helps.

    Raises:
        SceneError: Naming the first such prompt.
    """
    for tokenizer in backbone.tokenizers:
        limit = int(tokenizer.model_max_length)
        for prompt in dict.fromkeys(prompts):
            n = len(tokenizer(prompt, verbose=False).input_ids)
            if n > limit:
                raise SceneError(
                    "a prompt is too long for the text encoder, and would be cut",
                    where=where,
                    expected=f"at most {limit} tokens",
                    got=f"{n}: {textwrap.shorten(prompt, SHOWN)}",
                    hint=SHORTER + (f"; or {hint}" if hint else ""),
                )
