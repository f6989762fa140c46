from __future__ import annotations

import numpy as np
import pytest

from lora_scene.workshop.statistics import (
    by_scene,
    interval,
    method_interval,
    methods_of,
    paired_difference,
)


def row(method: str, scene: str, value: float | None, *, seed: int = 0, curve=None) -> dict:
    return {
        "method": method,
        "group": "g",
        "scene": scene,
        "seed": seed,
        "summary": {"identity": value},
        "curve": curve or {},
    }


def test_the_interval_covers_the_mean_of_a_normal_sample_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    found = [interval(list(rng.normal(1.0, 1.0, 30)), seed=n) for n in range(100)]
    held = sum(one.low <= 1.0 <= one.high for one in found)
    assert 87 <= held <= 99


def test_a_constant_has_an_interval_of_no_width_and_nothing_has_none() -> None:
    one = interval([0.5, 0.5, 0.5])
    assert (one.mean, one.low, one.high, one.n) == (0.5, 0.5, 0.5, 3)
    assert interval([]) is None


def test_seeds_are_averaged_within_a_scene_first() -> None:
    rows = [row("ours", "a", 0.0), row("ours", "a", 1.0, seed=1), row("ours", "b", 1.0)]
    assert by_scene(rows, "ours", metric="identity") == {"g/a": 0.5, "g/b": 1.0}
    assert method_interval(rows, "ours", metric="identity").mean == 0.75


def test_differences_are_paired_by_scene() -> None:
    rows = [row("ours", s, v) for s, v in (("a", 0.1), ("b", 0.9), ("c", 0.5))]
    rows += [row("full", s, v) for s, v in (("a", 0.0), ("b", 0.8))]
    difference = paired_difference(rows, "ours", reference="full", metric="identity")
    assert difference.n == 2
    assert difference.low == pytest.approx(0.1)
    assert difference.high == pytest.approx(0.1)


def test_what_was_not_measured_is_left_out() -> None:
    rows = [row("ours", "a", None), row("ours", "b", 1.0, curve={"0.5": {"identity": 0.25}})]
    assert by_scene(rows, "ours", metric="identity") == {"g/b": 1.0}
    assert by_scene(rows, "ours", metric="identity", weight="0.5") == {"g/b": 0.25}
    assert methods_of(rows) == ["ours"]
