"""Distances of colours are CIELAB's; things are cut into quarters by them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import colours
from benchmarks.colours import expected_colour, identities, quarters
from benchmarks.layouts import SCENES
from lora_scene.creating.requests import Sampling
from lora_scene.creating.studio import open_studio
from lora_scene.judging.judge import load_judge
from lora_scene.scenes.framing import frame_scene
from lora_scene.scenes.scene import load_scene


def test_the_base_expects_a_cactus_to_be_green(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(colours.PLAN, prompts=colours.PLAN.prompts[1:2], sampling=Sampling(8, 3.5))
    monkeypatch.setattr(colours, "PLAN", plan)
    studio, judge = open_studio([], base="mini", device="cpu"), load_judge("mini", device="cpu")
    scene = frame_scene(load_scene(SCENES / "h02-2"), studio.backbone.canvas())
    _, a, b = expected_colour(studio, "cactus", scene=scene, finder=judge.finder)
    assert a < -10
    assert b > 10


def test_things_are_cut_into_quarters_by_their_distance() -> None:
    rows = [
        {"method": "ours", "scene": "s", "concepts": {f"<{n}>": {"identity": n / 10}}}
        for n in (*range(8), 3)
    ]
    rows.append({"method": "full", "scene": "s", "concepts": {"<0>": {"identity": 1.0}}})
    known = identities(rows, "ours")
    assert known["s", "<3>"] == 0.3
    far = {("s", f"<{n}>"): 10.0 * n for n in range(8)}
    lines = quarters(far, {"ours": known})
    assert [(line["things"], line["distance"]) for line in lines] == [
        (2, 5),
        (2, 25),
        (2, 45),
        (2, 65),
    ]
    np.testing.assert_allclose([line["ours"] for line in lines], [0.05, 0.25, 0.45, 0.65])
    assert identities(rows, "full") == {("s", "<0>"): 1.0}
