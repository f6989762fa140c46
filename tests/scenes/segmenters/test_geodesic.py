from __future__ import annotations

import numpy as np
from scipy.sparse import lil_matrix
from scipy.sparse.csgraph import dijkstra

from lora_scene.scenes.segmenters.geodesic import STEP_COST, geodesic_distance


def test_geodesic_distance_equals_dijkstras():
    generator = np.random.default_rng(0)
    features = generator.integers(0, 50, (9, 11, 3)).astype(np.float64)
    seeds = np.zeros((9, 11), bool)
    seeds[2, 3] = seeds[8, 10] = True
    graph = lil_matrix((99, 99))
    for y in range(9):
        for x in range(11):
            for ny, nx in ((y + 1, x), (y, x + 1)):
                if ny < 9 and nx < 11:
                    cost = STEP_COST + np.abs(features[y, x] - features[ny, nx]).sum()
                    graph[y * 11 + x, ny * 11 + nx] = cost
    sources = [2 * 11 + 3, 8 * 11 + 10]
    expected = dijkstra(graph.tocsr(), directed=False, indices=sources).min(axis=0).reshape(9, 11)
    difference = np.abs(geodesic_distance(seeds, features) - expected).max()
    assert difference < 1e-9, difference
