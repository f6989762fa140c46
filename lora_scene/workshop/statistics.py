"""Means with their intervals: bootstrap over scenes, and paired differences.

Scenes are the sample; prompts, subsets and seeds of one scene are not independent of each other.
So a method's value is first averaged within each scene, over training seeds too, and scenes are
drawn with replacement (Efron's percentile interval).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

N_DRAWS = 10_000
LEVEL = 0.95

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Interval:
    """A mean over scenes with its 95 % interval.

    Attributes:
        mean: Over scenes.
        low: Lower bound; the mean itself for a single scene, which says nothing of others.
        high: Upper bound.
        n: Scenes.
    """

    mean: float
    low: float
    high: float
    n: int


def interval(values: Sequence[float], *, seed: int = 0) -> Interval | None:
    """Return the mean of one value per scene, and its bootstrap interval; None for no value."""
    if not len(values):
        return None
    sample = np.asarray(values, np.float64)
    picks = np.random.default_rng(seed).integers(len(sample), size=(N_DRAWS, len(sample)))
    draws = sample[picks].mean(axis=1)
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(sample.mean()), float(low), float(high), len(sample))


def by_scene(
    rows: Sequence[Row], method: str, *, metric: str, weight: str | None = None
) -> dict[str, float]:
    """Return a method's mean on each scene, over its training seeds.

    Args:
        rows: A benchmark's.
        method: Its name.
        metric: A key of the summaries.
        weight: Of the curve, such as `0.5`; None takes the main summary.
    """
    values: dict[str, list[float]] = {}
    for row in rows:
        if row["method"] != method:
            continue
        summary = row["summary"] if weight is None else row["curve"].get(weight, {})
        value = summary.get(metric)
        if value is not None:
            values.setdefault(f"{row['group']}/{row['scene']}", []).append(value)
    return {scene: float(np.mean(own)) for scene, own in values.items()}


def method_interval(
    rows: Sequence[Row], method: str, *, metric: str, weight: str | None = None
) -> Interval | None:
    """Return a method's mean over scenes with its interval."""
    return interval(list(by_scene(rows, method, metric=metric, weight=weight).values()))


def paired_difference(
    rows: Sequence[Row], method: str, *, reference: str, metric: str
) -> Interval | None:
    """Return the mean difference, method minus reference, over the scenes that both have."""
    own, other = by_scene(rows, method, metric=metric), by_scene(rows, reference, metric=metric)
    return interval([own[scene] - other[scene] for scene in own if scene in other])


def methods_of(rows: Sequence[Row]) -> list[str]:
    """Return the methods, in the order of their first row."""
    return list(dict.fromkeys(row["method"] for row in rows))
