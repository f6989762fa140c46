"""How much of a photo concepts cover, and how much of it they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from lora_scene.scenes.scene import INSIDE, Photo, Scene, shared_areas


@dataclass(frozen=True)
class Coverage:
    """How much of a photo a concept covers.

    Attributes:
        handle: The concept's handle.
        noun: Its class noun.
        photo: The photo's file.
        of_photo: Fraction of the photo, 0..1; 0 where it is absent.
        of_frame: Fraction of the part that training sees, 0..1.
        kept: Fraction of the mask that this part holds, 0..1.
        box: (left, top, right, bottom) in pixels of the photo, right and bottom outside; or None.
    """

    handle: str
    noun: str
    photo: str
    of_photo: float
    of_frame: float
    kept: float
    box: tuple[int, int, int, int] | None


@dataclass(frozen=True)
class Overlap:
    """What two masks of a photo share.

    Attributes:
        handles: The two handles.
        photo: The photo's file.
        of_smaller: Shared part of the smaller mask, 0..1.
        iou: Shared part of their union, 0..1.
    """

    handles: tuple[str, str]
    photo: str
    of_smaller: float
    iou: float


def covered(photo: Photo, k: int) -> float:
    """Return the fraction of the photo that concept k covers, 0..1."""
    return float((photo.masks[k] >= INSIDE).mean())


def bounding_box(photo: Photo, k: int) -> tuple[int, int, int, int] | None:
    """Return concept k's (left, top, right, bottom) in pixels, or None where it is absent."""
    ys, xs = np.nonzero(photo.masks[k] >= INSIDE)
    if not len(ys):
        return None
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def coverages_of(
    photo: Photo, framed: Photo, kept: Sequence[float], scene: Scene
) -> list[Coverage]:
    """Measure every concept of a photo.

    Args:
        photo: The photo.
        framed: What training sees of it.
        kept: Fraction of each mask that this holds, 0..1.
        scene: The concepts.
    """
    return [
        Coverage(
            handle=concept.handle,
            noun=concept.noun,
            photo=photo.source,
            of_photo=covered(photo, k),
            of_frame=covered(framed, k),
            kept=kept[k],
            box=bounding_box(photo, k),
        )
        for k, concept in enumerate(scene.concepts)
    ]


def overlaps_of(photo: Photo, handles: Sequence[str]) -> list[Overlap]:
    """Measure the pairs of a photo's concepts that share anything."""
    found = []
    shared = shared_areas(photo.masks >= INSIDE)
    for a, b in combinations(photo.present, 2):
        if shared[a, b]:
            iou = shared[a, b] / (shared[a, a] + shared[b, b] - shared[a, b])
            of_smaller = shared[a, b] / min(shared[a, a], shared[b, b])
            found.append(
                Overlap((handles[a], handles[b]), photo.source, float(of_smaller), float(iou))
            )
    return found
