"""Regions that a network lists by itself, for the user to pick from by number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lora_scene.errors import SegmenterError
from lora_scene.scenes.mask_files import iou
from lora_scene.scenes.mask_prompts import Prompt
from lora_scene.scenes.pictures import Mask
from lora_scene.scenes.refine import Flags
from lora_scene.scenes.scene import INSIDE

SAME_IOU = 0.7
MOST_REGIONS = 40


@dataclass(frozen=True, eq=False)
class Segment:
    """Something that could be picked.

    Attributes:
        name: What the network takes it for, or `region`.
        score: How sure it is, 0..1.
        mask: (H, W) float32 in 0..1.
    """

    name: str
    score: float
    mask: Mask


def pick_regions(
    regions: Sequence[Segment], prompts: Sequence[Prompt], *, shape: tuple[int, int]
) -> Mask:
    """Return the masks of the regions that the prompts number, from 1.

    Raises:
        SegmenterError: A number is not in the list.
    """
    wrong = [
        SegmenterError(
            "no region of this number",
            where=prompt.handle,
            expected=f"1 to {len(regions)}" if regions else "a photo with regions; none was found",
            got=prompt.pick,
            hint="lora-scene mask PHOTO --list draws the numbers",
        )
        for prompt in prompts
        if not 1 <= (prompt.pick or 0) <= len(regions)
    ]
    if wrong:
        raise SegmenterError.collect(wrong, "the regions cannot be picked")
    masks = np.zeros((len(prompts), *shape), dtype=np.float32)
    for k, prompt in enumerate(prompts):
        masks[k] = regions[(prompt.pick or 0) - 1].mask
    return masks


def drop_doubles(regions: Sequence[Segment]) -> tuple[Segment, ...]:
    """Keep the surest region of those that are nearly the same, the surest first."""
    kept: list[tuple[Segment, Flags]] = []
    for region in sorted(regions, key=lambda region: -region.score):
        inside = region.mask >= INSIDE
        if not any(iou(inside, other) >= SAME_IOU for _, other in kept):
            kept.append((region, inside))
    return tuple(region for region, _ in kept[:MOST_REGIONS])
