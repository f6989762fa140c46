from __future__ import annotations

from collections import Counter
from itertools import permutations
from math import factorial

import numpy as np

from lora_scene.scenes.union import draw_single, draw_subset, prompt_for


def test_subsets_are_drawn_by_size_then_uniformly_and_in_any_order():
    generator = np.random.default_rng(0)
    n = 30_000
    counts = Counter(draw_subset(3, generator) for _ in range(n))
    orders = [order for size in (1, 2, 3) for order in permutations(range(3), size)]
    assert set(counts) == set(orders)
    for order in orders:
        # one size in three, then one of K! / (K - k)! ordered choices
        expected = n / 3 * factorial(3 - len(order)) / factorial(3)
        assert abs(counts[order] - expected) < 5 * np.sqrt(expected), order


def test_single_draws_are_uniform():
    generator = np.random.default_rng(0)
    counts = Counter(draw_single(4, generator) for _ in range(8000))
    assert set(counts) == {(0,), (1,), (2,), (3,)}
    assert max(abs(count - 2000) for count in counts.values()) < 5 * np.sqrt(2000)


def test_the_same_seed_draws_the_same():
    draws = [[draw_subset(5, np.random.default_rng(s)) for s in range(20)] for _ in range(2)]
    assert draws[0] == draws[1]


def test_prompts_name_the_handles_in_order():
    assert prompt_for(["<b>", "<a>"]) == "a photo of <b> and <a>"
    assert prompt_for(["<a>", "<b>"], ["bear", "shell"]) == "a photo of <a> bear and <b> shell"
    assert prompt_for(["<a>"], template="a drawing of {} at night") == "a drawing of <a> at night"
