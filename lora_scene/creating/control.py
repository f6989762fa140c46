"""What a request asks of single concepts: places, strengths, emphases, put together for a batch."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lora_scene.creating.encoding import Text
from lora_scene.creating.placing import GATE, N_MOVES, Place, PlaceGuide, box_cells
from lora_scene.creating.studio import Studio
from lora_scene.creating.token_attention import Grid, MapReader, biased, token_columns
from lora_scene.errors import CreationError


@dataclass(frozen=True)
class Control:
    """What a picture asks of single concepts.

    Attributes:
        places: Boxes that concepts should stand in.
        strengths: (handle, strength) pairs; see `strength`.
        emphases: (handle, factor) pairs: of the odds of attending to the handle's tokens.
    """

    places: tuple[Place, ...] = ()
    strengths: tuple[tuple[str, float], ...] = ()
    emphases: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        for handle, factor in self.emphases:
            if factor < 0:
                raise CreationError(
                    "a negative emphasis", where=handle, expected="0 or more", got=factor
                )

    @property
    def is_attentive(self) -> bool:
        """Tell whether the attention is steered."""
        return bool(self.places or self.emphases)

    def resolved(self, studio: Studio) -> Control:
        """Return the same with every handle as its adapter spells it.

        Raises:
            CreationError: No adapter knows a handle.
        """
        find = studio.find_handle
        return Control(
            tuple(Place(find(place.handle), place.box) for place in self.places),
            tuple((find(handle), strength) for handle, strength in self.strengths),
            tuple((find(handle), factor) for handle, factor in self.emphases),
        )

    def shared_out(self, studio: Studio, prompts: Sequence[str]) -> list[Control]:
        """Return what each of several prompts is asked: of the handles alone that it names.

        Raises:
            CreationError: No adapter knows a handle, or no prompt names it.
        """
        resolved = self.resolved(studio)
        named = [studio.handles_in(prompt) for prompt in prompts]
        missing = [h for h in resolved.handles if not any(h in own for own in named)]
        if missing:
            raise CreationError(
                f"no prompt names {missing[0]}", where="; ".join(prompts), got=", ".join(missing)
            )
        return [resolved.only(own) for own in named]

    @property
    def handles(self) -> tuple[str, ...]:
        """Return every handle that is asked anything of, each once."""
        all_of_them = [place.handle for place in self.places]
        all_of_them += [handle for handle, _ in (*self.strengths, *self.emphases)]
        return tuple(dict.fromkeys(all_of_them))

    def only(self, handles: Sequence[str]) -> Control:
        """Return what is asked of some handles."""
        return Control(
            tuple(place for place in self.places if place.handle in handles),
            tuple(pair for pair in self.strengths if pair[0] in handles),
            tuple(pair for pair in self.emphases if pair[0] in handles),
        )

    def check_named(self, studio: Studio, prompt: str) -> None:
        """Check that a prompt names every handle whose attention is steered.

        Raises:
            CreationError: It does not.
        """
        for handle in [*(p.handle for p in self.places), *(h for h, _ in self.emphases)]:
            token_columns(studio, prompt, handle)

    def record(self) -> dict[str, Any]:
        """Return what a picture's record says of it; empty where nothing is asked."""
        told = {
            "places": {place.handle: list(place.box) for place in self.places},
            "strengths": dict(self.strengths),
            "emphases": dict(self.emphases),
        }
        return {key: value for key, value in told.items() if value}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Control:
        """Read what `record` wrote."""
        places = record.get("places", {}).items()
        return cls(
            tuple(Place(handle, tuple(box)) for handle, box in places),
            tuple(record.get("strengths", {}).items()),
            tuple(record.get("emphases", {}).items()),
        )


@dataclass(frozen=True)
class Steering:
    """How places are enforced.

    Attributes:
        n_moves: See `PlaceGuide`; 0 only measures.
        is_gated: Whether a placed handle is hidden from the cells outside its box.
    """

    n_moves: int = N_MOVES
    is_gated: bool = True


STEERING = Steering()


@contextlib.contextmanager
def steered(
    studio: Studio,
    prompts: Sequence[str],
    control: Control,
    *,
    text: Text,
    latents: Grid,
    steering: Steering = STEERING,
) -> Iterator[list[PlaceGuide]]:
    """Steer the attention of a batch; give the guides that `denoise` needs for it.

    Args:
        studio: The base and its adapters.
        prompts: One a sample.
        control: What is asked, of every sample alike.
        text: The encoded prompts.
        latents: The latents' rows and columns.
        steering: How places are enforced.

    Raises:
        CreationError: A prompt does not name a handle that is asked for.
    """
    if not control.is_attentive:
        yield []
        return
    n_tokens = text.positive.states.shape[1]
    handles = [*(p.handle for p in control.places), *(h for h, _ in control.emphases)]
    columns = [[token_columns(studio, prompt, h) for h in handles] for prompt in prompts]

    @functools.cache
    def bias_of(grid: Grid) -> Tensor:
        return _bias(control, columns, n_tokens, grid, steering.is_gated)

    unet = studio.backbone.unet
    with contextlib.ExitStack() as stack:
        stack.enter_context(biased(unet, bias_of, latents))
        guides = []
        if control.places:
            placed = [sample[: len(control.places)] for sample in columns]
            reader = MapReader(unet, placed, n_tokens=n_tokens, latents=latents)
            stack.enter_context(reader.attached())
            guides = [PlaceGuide(studio, text, control.places, reader, steering.n_moves)]
        yield guides


def _bias(
    control: Control,
    columns: Sequence[Sequence[Sequence[int]]],
    n_tokens: int,
    grid: Grid,
    is_gated: bool,
) -> Tensor:
    """Return the bias (b, n_cells, n_tokens) on the logits."""
    bias = torch.zeros(len(columns), grid[0] * grid[1], n_tokens)
    for sample, handles in zip(bias, columns, strict=True):
        for place, positions in zip(control.places, handles, strict=False):
            if is_gated:
                outside = 1 - box_cells(place, grid).flatten()
                sample[:, list(positions)] -= GATE * outside[:, None]
        for (_, factor), positions in zip(
            control.emphases, handles[len(control.places) :], strict=True
        ):
            sample[:, list(positions)] += math.log(factor) if factor else -GATE
    return bias
