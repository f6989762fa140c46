"""Draw what the denoiser trains on: crops of one drawing or whole scenes, with fresh captions."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTokenizer

from benchmarks.mini_world.captions import caption
from benchmarks.mini_world.compose import Placement
from benchmarks.mini_world.latents import MASK_SIDE, Pool
from benchmarks.mini_world.tokens import MAX_LENGTH

Stage = Literal["crops", "scenes", "mixed"]
"""Of crops alone, of whole scenes alone, or of both in turn."""

CROP = 8
"""Side of a crop, latent cells."""

DROP_PROB = 0.1
"""Of an empty caption, for classifier-free guidance."""


@dataclass(frozen=True)
class Batch:
    """A training batch.

    Attributes:
        latents: (B, C, h, w).
        tokens: (B, L).
        masks: (B, 4, h, w) in 0..1, the share of a cell that each drawing covers.
        owners: (B, 4, L) bool, the tokens of each drawing's noun.
    """

    latents: Tensor
    tokens: Tensor
    masks: Tensor
    owners: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        tensors = (self.latents, self.tokens, self.masks, self.owners)
        return Batch(*(tensor.to(device) for tensor in tensors))


class Batches:
    """Draws training batches from a pool."""

    def __init__(self, pool: Pool, tokenizer: CLIPTokenizer) -> None:
        self.pool = pool
        self.tokenize = lru_cache(maxsize=100_000)(_tokenizer(tokenizer))
        self.single = [n for n, places in enumerate(pool.placements) if _fits_crop(places)]

    def draw(self, stage: Stage, n: int, rng: np.random.Generator) -> Batch:
        """Draw n crops or n scenes, with fresh captions."""
        choices = self.single if stage == "crops" else len(self.pool)
        numbers = rng.choice(choices, n)
        rows = [self._sample(int(number), stage, rng) for number in numbers]
        latents, tokens, masks, owners = (np.stack(column) for column in zip(*rows, strict=True))
        return Batch(
            torch.from_numpy(latents).float(),
            torch.from_numpy(tokens),
            torch.from_numpy(masks).float() / 255,
            torch.from_numpy(owners),
        )

    def _sample(
        self, number: int, stage: Stage, rng: np.random.Generator
    ) -> tuple[NDArray[Any], ...]:
        places = self.pool.placements[number]
        words = caption(places, self.pool.backgrounds[number], rng)
        if rng.random() < DROP_PROB:
            words = ""
        tokens = self.tokenize(words)
        owners = np.zeros((4, MAX_LENGTH), bool)
        for row, place in enumerate(places):
            owners[row] = _spans(tokens, self.tokenize(place.noun))
        rows, columns = slice(None), slice(None)
        if stage == "crops":
            rows, columns = (_window(places[0], axis, rng) for axis in (0, 1))
        latents = self.pool.latents[number][:, rows, columns]
        return latents, tokens, self.pool.masks[number][:, rows, columns], owners


def _tokenizer(tokenizer: CLIPTokenizer) -> Callable[[str], NDArray[np.int64]]:
    def tokenize(text: str) -> NDArray[np.int64]:
        ids = tokenizer(
            text, padding="max_length", truncation=True, max_length=MAX_LENGTH
        ).input_ids
        return np.array(ids)

    return tokenize


def _spans(tokens: NDArray[np.int64], noun: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark where the noun's own tokens (start, noun..., end...) stand in a caption's."""
    end = noun[-1]
    wanted = noun[1 : int(np.argmax(noun == end))]
    marks = np.zeros(len(tokens), bool)
    for start in range(len(tokens) - len(wanted)):
        if (tokens[start : start + len(wanted)] == wanted).all():
            marks[start : start + len(wanted)] = True
    return marks


def _fits_crop(places: tuple[Placement, ...]) -> bool:
    return len(places) == 1 and all(b - a <= CROP for a, b in map(places[0].cells, (0, 1)))


def _window(place: Placement, axis: int, rng: np.random.Generator) -> slice:
    """Draw a window of CROP cells that holds the drawing, along one axis."""
    start, stop = place.cells(axis)
    first = int(rng.integers(max(0, stop - CROP), min(start, MASK_SIDE - CROP) + 1))
    return slice(first, first + CROP)
