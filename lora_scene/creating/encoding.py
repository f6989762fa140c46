"""Prompts as the stock pipelines encode them, looked at first for what would be lost."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lora_scene.backbones.backbone import TextEncoding
from lora_scene.creating.studio import Studio
from lora_scene.errors import CreationError, warn_of

SHOWN = 80  # characters of a long prompt in messages


@dataclass(frozen=True)
class Text:
    """Encoded prompts (b of them) and the negative ones that go with them."""

    positive: TextEncoding
    negative: TextEncoding

    def __len__(self) -> int:
        return len(self.positive.states)

    @functools.cached_property
    def both(self) -> TextEncoding:
        """Return the negative prompts and then the prompts, joined once for all steps."""
        return self.negative.append(self.positive)


def check_prompt(studio: Studio, prompt: str) -> None:
    """Check that a prompt can be read to its end, and that every handle in it is known.

    Raises:
        CreationError: It cannot, or one is not.
    """
    studio.handles_in(prompt)
    for tokenizer, ids, room in _too_long(studio, prompt):
        lost = tokenizer.decode(ids[room:])
        raise CreationError(
            "a prompt that is too long: its end would be cut off",
            where=textwrap.shorten(prompt, SHOWN, placeholder="..."),
            expected=f"at most {room} tokens",
            got=f"{len(ids)}; lost: {textwrap.shorten(lost, SHOWN, placeholder='...')!r}",
        )


def left_out(studio: Studio, prompts: Sequence[str]) -> set[str]:
    """Return the prompts of several handles that are too long; a warning tells of each."""
    found = {}
    for prompt in prompts:
        handles = studio.handles_in(prompt)
        if len(handles) > 1 and any(_too_long(studio, prompt)):
            found[prompt] = " and ".join(handles)
    for together in dict.fromkeys(found.values()):
        warn_of(together, "they do not fit into one prompt, and are not drawn together")
    return set(found)


@torch.no_grad()
def encode_prompts(studio: Studio, prompts: Sequence[str], negatives: Sequence[str]) -> Text:
    """Encode prompts just as the stock pipeline does.

    An empty negative prompt is the stock pipeline's default: SDXL bases may take zeros for it.

    Raises:
        CreationError: See `check_prompt`.
    """
    for prompt in (*prompts, *negatives):
        check_prompt(studio, prompt)
    parts = [_encode(studio, p, n or None) for p, n in zip(prompts, negatives, strict=True)]
    text = parts[0]
    for part in parts[1:]:
        text = Text(text.positive.append(part.positive), text.negative.append(part.negative))
    return text


def _encode(studio: Studio, prompt: str, negative: str | None) -> Text:
    encoded = studio.pipeline.encode_prompt(
        prompt=prompt,
        device=studio.backbone.device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=True,
        negative_prompt=negative,
    )
    if studio.backbone.family.has_pooled_text:
        states, negatives, pooled, negative_pooled = encoded
        return Text(TextEncoding(states, pooled), TextEncoding(negatives, negative_pooled))
    return Text(TextEncoding(encoded[0]), TextEncoding(encoded[1]))


def _too_long(studio: Studio, prompt: str) -> Iterator[tuple[Any, list[int], int]]:
    """Yield each tokenizer that would cut a prompt, with its tokens and how many are read."""
    for tokenizer in studio.backbone.tokenizers:
        expanded = studio.pipeline.maybe_convert_prompt(prompt, tokenizer)
        ids = tokenizer(expanded, add_special_tokens=False).input_ids
        room = tokenizer.model_max_length - 2
        if len(ids) > room:
            yield tokenizer, ids, room
