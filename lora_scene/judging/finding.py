"""Where in a picture a concept is, and what is cut out there to be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lora_scene.scenes.framing import rescale_masks
from lora_scene.scenes.mask_prompts import Prompt
from lora_scene.scenes.pictures import Mask, Pixels
from lora_scene.scenes.scene import INSIDE, Concept
from lora_scene.scenes.segmenters.segmenter import Segmenter

Region = npt.NDArray[np.bool_]  # (H, W)

GREY = 128  # what lies around a cut-out thing
MARGIN = 0.08  # of a cut-out's side, on each side
PEAK_SHARE = 0.5  # a map's cells above this share of its maximum are the handle's
MIN_AREA = 0.004  # of a picture; less is a speck: 16 pixels at 64 px, 1050 at 512 px


@dataclass(frozen=True, eq=False)
class Sighting:
    """Something found in a picture.

    Attributes:
        region: (H, W) bool, not empty.
        owner: The index of the concept that it stands for, by its noun or its handle's attention;
            None where it stands for none of the scene's.
        twins: The other concepts that it may stand for as well, since they share the noun.
    """

    region: Region
    owner: int | None
    twins: tuple[int, ...] = ()


class Finder(Protocol):
    """Finds things by their nouns."""

    @property
    def name(self) -> str:
        """What it is, for reports."""

    @property
    def finds_every(self) -> bool:
        """Whether each thing of a noun is found, so that twins can be told apart by their looks."""

    def find(self, pixels: Pixels, concepts: Sequence[Concept]) -> list[Sighting]:
        """Return what is in a picture (H, W, 3) uint8: the concepts, and other things if seen."""


class SegmenterFinder:
    """Finds things with a segmenter that follows words, one region a concept at most.

    Args:
        segmenter: One of `lora_scene.scenes.segmenters` that accepts words.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter

    @property
    def name(self) -> str:
        """Return the segmenter's name."""
        return self._segmenter.name

    @property
    def finds_every(self) -> bool:
        """Return False: all that a noun names is one region."""
        return False

    def find(self, pixels: Pixels, concepts: Sequence[Concept]) -> list[Sighting]:
        """Return the regions of the concepts that are things."""
        things = [k for k, concept in enumerate(concepts) if not concept.is_background]
        prompts = [
            Prompt(concepts[k].handle, concepts[k].noun, words=concepts[k].noun) for k in things
        ]
        masks = self._segmenter.segment(pixels, prompts)
        regions = [mask >= INSIDE for mask in masks]
        return [
            Sighting(region, k)
            for k, region in zip(things, regions, strict=True)
            if region.mean() >= MIN_AREA
        ]


def regions_of_maps(maps: Mask, owners: Sequence[int], *, shape: tuple[int, int]) -> list[Sighting]:
    """Return the region where each handle's attention is strong, and stronger than the others'.

    Each map is divided by its maximum, as in the attention loss (Break-A-Scene, eq. 2), and
    resized linearly.

    Args:
        maps: (k, r, r), >= 0.
        owners: The concept of each map.
        shape: (height, width) of the picture.
    """
    peaks = maps.max(axis=(1, 2), keepdims=True).clip(1e-12)
    shares = rescale_masks((maps / peaks).astype(np.float32), shape)
    strongest = shares.argmax(axis=0)
    regions = [(strongest == i) & (share >= PEAK_SHARE) for i, share in enumerate(shares)]
    return [
        Sighting(region, owner)
        for region, owner in zip(regions, owners, strict=True)
        if region.mean() >= MIN_AREA
    ]


def cut_out(pixels: Pixels, region: Region) -> Pixels:
    """Return a thing alone on grey, in the middle of a square with a small margin.

    Args:
        pixels: (H, W, 3) uint8.
        region: (H, W) bool, not empty.

    Returns:
        (S, S, 3) uint8, S being the longer side of the region and the margins.
    """
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    height, width = int(rows[-1]) - top + 1, int(columns[-1]) - left + 1
    side = round(max(height, width) * (1 + 2 * MARGIN))
    square = np.full((side, side, 3), GREY, np.uint8)
    down, right = (side - height) // 2, (side - width) // 2
    box = (slice(top, top + height), slice(left, left + width))
    alone = np.where(region[box][..., None], pixels[box], GREY)
    square[down : down + height, right : right + width] = alone
    return square


def without(pixels: Pixels, regions: Sequence[Region]) -> Pixels:
    """Return a picture (H, W, 3) uint8 with regions painted grey, so that the rest is seen."""
    rest = pixels.copy()
    for region in regions:
        rest[region] = GREY
    return rest
