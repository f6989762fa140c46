"""The metrics: pure functions of vectors and masks; docs/metrics.md says where each is from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from lora_scene.judging.encoders import Vectors
from lora_scene.scenes.mask_files import Regions, iou


def cosines(a: Vectors, b: Vectors) -> Vectors:
    """Return the cosines (n, m) between unit rows (n, d) and (m, d)."""
    return np.asarray(a @ b.T, np.float32).reshape(len(a), len(b))


def paired_cosines(a: Vectors, b: Vectors) -> Vectors:
    """Return the cosine (n,) between each row of `a` and the same row of `b`, both (n, d)."""
    return np.asarray((a * b).sum(axis=1), np.float32)


def layout_copy(found: Regions, trained: Sequence[Regions]) -> float:
    """Return how far a thing stands where it stood in training, 0..1.

    The greatest IoU of its region (H, W) with its training masks and their mirror images, since
    training sees both. 1 is a copied layout. A thing that is put anywhere has some overlap too,
    which grows with its size: compare methods on the same scene.
    """
    masks = [view for mask in trained for view in (mask, mask[:, ::-1])]
    return max((iou(found, mask) for mask in masks), default=0.0)


def diversity(vectors: Vectors) -> float | None:
    """Return 1 minus the mean cosine between different rows (n, d): 0 if all are the same.

    None for fewer than two rows.
    """
    n = len(vectors)
    if n < 2:
        return None
    table = cosines(vectors, vectors)
    return float(1 - (table.sum() - np.trace(table)) / (n * (n - 1)))


def drift(before: Vectors, after: Vectors) -> float | None:
    """Return 1 minus the mean cosine between each row of `before` and of `after`, (n, d) each.

    The rows are pictures of the same prompts, without handles, and seeds, by the untouched base
    and by the base with the adapter: 0 if the adapter leaves other prompts alone. None for none.
    """
    return float(1 - paired_cosines(before, after).mean()) if len(before) else None


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that there are, or None where there are none."""
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None
