"""Draw pictures for a judge, and note on the way where each handle's attention lies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lora_scene.creating.encoding import check_prompt, encode_prompts
from lora_scene.creating.rendering import render
from lora_scene.creating.requests import Request, Sampling
from lora_scene.creating.sampling import Step
from lora_scene.creating.studio import Studio
from lora_scene.creating.token_attention import token_columns
from lora_scene.learning.attention import AttentionRecorder, Columns
from lora_scene.scenes.pictures import Mask, Pixels

if TYPE_CHECKING:
    from lora_scene.judging.kept_pictures import KeptPictures


@dataclass(frozen=True, eq=False)
class Drawn:
    """A picture and where its handles' attention lay.

    Attributes:
        asked: What was asked for.
        pixels: (H, W, 3) uint8.
        handles: The handles that the prompt names, in its order.
        maps: (k, r_h, r_w) float32, each handle's attention, averaged over layers, heads and steps.
    """

    asked: Request
    pixels: Pixels
    handles: tuple[str, ...]
    maps: Mask


def draw_watched(
    studio: Studio,
    wanted: Sequence[Request],
    *,
    sampling: Sampling,
    batch_size: int = 8,
    kept: KeptPictures | None = None,
) -> Iterator[Drawn]:
    """Draw pictures at the base's own size, in the order asked for.

    Args:
        studio: The base and its adapters.
        wanted: The pictures.
        sampling: Solver, steps, guidance.
        batch_size: How many are drawn at once; pictures of different weights never are.
        kept: Where batches are kept, and those that lie there are taken from; None keeps none.

    Raises:
        CreationError: A prompt is too long or names an unknown handle; looked at for all of them
            before the first picture is drawn.
    """
    for prompt in dict.fromkeys(one.prompt for one in wanted):
        check_prompt(studio, prompt)
    for batch in _batches([replace(one, sampling=sampling) for one in wanted], batch_size):
        drawn = kept.find(studio, batch) if kept else []
        if not drawn:
            drawn = _draw_batch(studio, batch, sampling)
            if kept:
                kept.keep(studio, drawn)
        yield from drawn


class AttentionWatch:
    """A guide that changes nothing and averages the handles' maps over the steps.

    Args:
        studio: The base and its adapters.
        prompts: One per picture.
        sampling: Tells whether the negative prompts run beside the prompts.
        words: The words of each prompt that are watched; None watches its handles.
    """

    def __init__(
        self,
        studio: Studio,
        prompts: Sequence[str],
        sampling: Sampling,
        *,
        words: Sequence[Sequence[str]] | None = None,
    ) -> None:
        backbone = studio.backbone
        self.recorder = AttentionRecorder(backbone.unet)
        if words is None:
            positions, n_tokens = handle_positions(studio, prompts)
        else:
            positions, n_tokens = word_positions(studio, prompts, words)
        silent: list[list[list[int]]] = [[] for _ in prompts] if sampling.is_guided else []
        self._n_silent = len(silent)
        self._columns = Columns.of([*silent, *positions], n_tokens, backbone.device)
        self._listening = contextlib.ExitStack()
        self._totals: list[Tensor] = []
        self._n_steps = 0

    def before(self, z_t: Tensor, step: Step) -> Tensor:
        """Listen during this step alone: other guides may run the UNet between steps."""
        self._listening.enter_context(self.recorder.attached())
        self._listening.enter_context(self.recorder.recording(self._columns, z_t))
        return z_t

    def after(self, z_t: Tensor, step: Step) -> Tensor:
        """Add the step's maps."""
        maps = self.recorder.maps()[self._n_silent :]
        self._listening.close()
        self._totals = (
            [total + own for total, own in zip(self._totals, maps, strict=True)]
            if self._totals
            else maps
        )
        self._n_steps += 1
        return z_t

    def mean_maps(self) -> list[Tensor]:
        """Return each picture's maps (k, r_h, r_w), the mean over the steps."""
        return [total / self._n_steps for total in self._totals]


def handle_positions(studio: Studio, prompts: Sequence[str]) -> tuple[list[list[list[int]]], int]:
    """Return where the tokens of each handle of each prompt stand, and the number of tokens."""
    positions = [
        [token_columns(studio, prompt, handle) for handle in studio.handles_in(prompt)]
        for prompt in prompts
    ]
    return positions, studio.backbone.tokenizers[0].model_max_length


def word_positions(
    studio: Studio, prompts: Sequence[str], words: Sequence[Sequence[str]]
) -> tuple[list[list[list[int]]], int]:
    """Return where words of each prompt first stand, as lists of tokens, and how many there are."""
    tokenizer = studio.backbone.tokenizers[0]
    ids = studio.backbone.tokenize(list(prompts))[0]
    positions = []
    for row, watched in zip(ids.tolist(), words, strict=True):
        own = [tokenizer(word, add_special_tokens=False).input_ids for word in watched]
        positions.append([_first_run(row, tokens) for tokens in own])
    return positions, ids.shape[1]


@torch.no_grad()
def training_maps(studio: Studio, pixels: Pixels, prompt: str, *, shares: Sequence[float]) -> Mask:
    """Return the handles' maps while the adapter looks at a noised photo.

    Args:
        studio: The base and its adapters.
        pixels: (H, W, 3) uint8, framed to a size of the base's.
        prompt: Names the handles, as in training.
        shares: The timesteps, as shares of all, 0..1.

    Returns:
        (k, r_h, r_w) float32, averaged over layers, heads and timesteps.
    """
    backbone = studio.backbone
    z = backbone.encode_picture(pixels).mean[None].to(backbone.device)
    text = encode_prompts(studio, [prompt], [""]).positive
    positions, n_tokens = handle_positions(studio, [prompt])
    columns = Columns.of(positions, n_tokens, backbone.device)
    recorder = AttentionRecorder(backbone.unet)
    total: Tensor | None = None
    with recorder.attached():
        for n, share in enumerate(shares):
            eps = torch.randn(z.shape, generator=torch.Generator().manual_seed(n)).to(z)
            t = torch.tensor([round(share * (backbone.n_timesteps - 1))], device=z.device)
            with recorder.recording(columns, z):
                backbone.denoise(backbone.add_noise(z, eps, t), t, text)
            maps = recorder.maps()[0]
            total = maps if total is None else total + maps
    assert total is not None
    averaged: Mask = (total / len(shares)).cpu().numpy()
    return averaged


def _draw_batch(studio: Studio, batch: Sequence[Request], sampling: Sampling) -> list[Drawn]:
    watch = AttentionWatch(studio, [one.prompt for one in batch], sampling)
    done = render(studio, batch, guides=[watch])
    return [
        Drawn(one, pixels, studio.handles_in(one.prompt), maps.cpu().numpy())
        for one, pixels, maps in zip(batch, done.pixels, watch.mean_maps(), strict=True)
    ]


def _first_run(row: Sequence[int], tokens: Sequence[int]) -> list[int]:
    n = len(tokens)
    starts = [i for i in range(len(row) - n + 1) if list(row[i : i + n]) == list(tokens)]
    return list(range(starts[0], starts[0] + n)) if starts else []


def _batches(wanted: Sequence[Request], size: int) -> Iterator[list[Request]]:
    """Yield neighbours of one weight, `size` at most."""
    for _, neighbours in groupby(wanted, key=lambda one: one.weight):
        group = list(neighbours)
        yield from (group[start : start + size] for start in range(0, len(group), size))
