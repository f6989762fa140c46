"""What stands in place is counted by the boxes that were asked for, both ways round."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import placing
from lora_scene.creating.requests import Sampling
from lora_scene.judging.finding import Sighting
from tests.creating import studios
from tests.judging import fakes

pytestmark = pytest.mark.filterwarnings(studios.QUIET)


class Sides:
    """A finder that sees the first thing at the left and the second at the right, always."""

    name = "sides"

    def find(self, pixels: np.ndarray, concepts: object) -> list[Sighting]:
        left = np.zeros(pixels.shape[:2], bool)
        left[:, : left.shape[1] // 2] = True
        return [Sighting(left, 0), Sighting(~left, 1)]


def test_things_that_stay_where_they_are_stand_in_place_one_way_round(monkeypatch) -> None:
    monkeypatch.setattr(placing, "SAMPLING", Sampling(1, 3.0))
    judge = replace(fakes.judge(), finder=Sides())
    found = list(placing.placed(studios.studio(), fakes.scene(), judge, grounds=("a",)))
    assert [stands for _, stands in found] == [True] * 4 + [False] * 4
    assert all(0 < inside < 1 for inside, _ in found)


def test_a_thing_stands_where_its_middle_is() -> None:
    region = np.zeros((4, 100), bool)
    region[:, 30:51] = True
    assert placing.is_between(Sighting(region, 0), (0.3, 0, 0.41, 1))
    assert not placing.is_between(Sighting(region, 0), (0.41, 0, 0.6, 1))
