"""Read the nouns off a picture with the judge: what stands where, and how many."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel

from benchmarks.mini_world.backgrounds import BACKGROUNDS
from benchmarks.mini_world.captions import EMPTY
from lora_scene.judging.mini import connected_parts, patch_embeddings, with_article

PATCH = 8
"""Side of one patch of the judge, px."""

MIN_PATCHES = 3
"""A thing covers at least so many patches; fewer are an edge or a speck."""


@dataclass(frozen=True)
class Reading:
    """What the judge sees in one picture: the things, in no order, and the background."""

    things: tuple[str, ...]
    background: str


def class_prompts(names: Sequence[str]) -> list[str]:
    """Return the text that stands for each patch class."""
    return [EMPTY[name] if name in BACKGROUNDS else with_article(name) for name in names]


@torch.no_grad()
def read_pictures(
    judge: CLIPModel, pixels: Tensor, names: Sequence[str], prompts: Tensor
) -> list[Reading]:
    """Read pictures.

    Args:
        judge: the model.
        pixels: (B, 3, S, S), scaled as the judge's image processor does.
        names: C classes: nouns and backgrounds.
        prompts: (C, L) tokens of `class_prompts(names)`.
    """
    texts = F.normalize(judge.get_text_features(prompts).pooler_output, dim=-1)
    _, patches = patch_embeddings(judge, pixels)
    classes = (patches @ texts.T).argmax(-1).numpy()
    return [_read(grid, names) for grid in classes]


def _read(grid: NDArray[np.int64], names: Sequence[str]) -> Reading:
    counts = Counter(names[int(number)] for number in grid.flat)
    grounds = {name: counts[name] for name in BACKGROUNDS}
    things = []
    for number in map(int, np.unique(grid)):
        if names[number] not in BACKGROUNDS:
            parts = [p for p in connected_parts(grid == number) if p.sum() >= MIN_PATCHES]
            things += [names[number]] * len(parts)
    return Reading(tuple(things), max(grounds, key=lambda name: grounds[name]))
