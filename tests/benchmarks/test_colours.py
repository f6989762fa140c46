"""Distances of colours are CIELAB's; things are cut into quarters by them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import colours
from benchmarks.colours import expected_colour, identities, quarters, seen_in_runs
from benchmarks.layouts import SCENES
from lora_scene.creating.requests import Sampling
from lora_scene.creating.studio import open_studio
from lora_scene.judging.judge import load_judge
from lora_scene.recipe import load_recipe
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


def test_a_line_a_thing_tells_what_the_judge_and_a_run_see(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(colours, "distances", lambda *given: {("h02-2", "<cac>"): 12.5})
    monkeypatch.setattr(colours, "seen_in_runs", lambda *given: {("h02-2", "<cac>"): 16.0})
    rows = tmp_path / "rows.jsonl"
    monkeypatch.setattr(colours, "known_rows", lambda path: {"key": {"scene": "h02-2"}})
    colours.main([str(rows), "--things", "--out", str(tmp_path / "out.jsonl")])
    (line,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    found = {key: line[key] for key in ("scene", "handle", "judged", "seen")}
    assert found == {"scene": "h02-2", "handle": "<cac>", "judged": 12.5, "seen": 16.0}


def test_a_run_sees_a_cat_in_the_bases_colours_and_one_in_others() -> None:
    studio, recipe = open_studio([], base="mini", device="cpu"), load_recipe("mini")
    recipe = replace(recipe, grounds=replace(recipe.grounds, n_per_noun=2))
    scenes = {"h08-2": load_scene(SCENES / "h08-2")}
    found = seen_in_runs(studio.backbone, scenes, recipe)
    assert found["h08-2", "<cat>"] < 40 < found["h08-2", "<cat2>"]
