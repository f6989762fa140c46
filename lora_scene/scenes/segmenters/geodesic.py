"""Distance along a photo's colours: near is what no edge parts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lora_scene.scenes.refine import Flags

STEP_COST = 3.0  # of one pixel's path in flat colour, against 1 a level of Lab difference
N_SWEEPS = 6  # of all four directions; more turns of a path need more

Values = npt.NDArray[np.float64]


def geodesic_distance(seeds: Flags, features: Values) -> Values:
    """Return each pixel's cheapest path to a seed, over 4-neighbours.

    A step costs `STEP_COST` and the sum of the absolute differences of the features. Sweeps to
    and fro along rows and columns find it: min_j d_j + |C_i - C_j| is a running minimum of
    d - C, where C is the cumulated cost.

    Args:
        seeds: (h, w), where the distance is 0.
        features: (h, w, n).
    """
    distance = np.where(seeds, 0.0, np.inf)
    costs = []
    for axis in (0, 1):
        steps = np.abs(np.diff(features, axis=axis)).sum(axis=2) + STEP_COST
        margins = [(0, 0), (0, 0)]
        margins[axis] = (1, 0)
        costs.append(np.pad(np.cumsum(steps, axis=axis), margins))
    for _ in range(N_SWEEPS):
        for axis, cost in enumerate(costs):
            forth = np.minimum.accumulate(distance - cost, axis=axis) + cost
            back = np.flip(np.minimum.accumulate(np.flip(distance + cost, axis), axis=axis), axis)
            distance = np.minimum(distance, np.minimum(forth, back - cost))
    return distance
