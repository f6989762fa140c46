"""A layout counts where each named noun is found once, and none of the scene's others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import layouts
from lora_scene.creating.requests import Sampling
from lora_scene.creating.studio import open_studio
from lora_scene.judging.finding import Sighting
from lora_scene.scenes.framing import frame_scene
from lora_scene.scenes.scene import load_scene

FOUND = [
    ([0], True),  # the house alone
    ([1, 1], False),  # the donut twice
    ([0, 1], True),  # both
]


class ScriptedFinder:
    """Finds what it was told, picture by picture, and things of nobody beside."""

    name, finds_every = "scripted", True

    def __init__(self) -> None:
        self.answers = iter([owners for owners, _ in FOUND])

    def find(self, pixels, concepts):
        region = np.ones(pixels.shape[:2], bool)
        return [Sighting(region, owner) for owner in [*next(self.answers), None]]


def test_each_named_noun_once_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(layouts.PLAN, prompts=layouts.PROMPTS[:1], seeds=(0,), sampling=Sampling(1, 1.0))
    monkeypatch.setattr(layouts, "PLAN", plan)
    studio = open_studio([], base="mini", device="cpu")
    scene = frame_scene(load_scene(layouts.SCENES / "t01-2"), studio.backbone.canvas())
    assert scene.nouns[:2] == ("house", "donut")
    told = list(layouts.shown_once(studio, scene, ScriptedFinder()))
    assert told == [(1, FOUND[0][1]), (1, FOUND[1][1]), (2, FOUND[2][1])]


def test_of_rows_the_marks_are_counted() -> None:
    """By hand: alone and alike; alone and unlike; twice; with another; a thing of nobody beside."""
    pictures = [
        ([0], [0], [[800, 100]]),
        ([0], [0], [[600, 100]]),
        ([0], [0, 0], [[800, 100], [800, 100]]),
        ([0, 1], [0], [[800, 100]]),
        ([0, 1], [1, 0, -1], [[100, 900], [750, 0], [0, 0]]),
    ]
    compared = {"floor": 0.7, "things": [0, 1], "pictures": pictures}
    rows = [{"method": "ours", "compared": compared}, {"method": "full", "compared": compared}]
    assert list(layouts.marked(rows, "ours")) == [
        (1, True, True),
        (1, True, False),
        (1, False, False),
        (2, False, False),
        (2, True, True),
    ]
