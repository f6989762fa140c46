from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from PIL import Image

import lora_scene.demo
from lora_scene.adapters.folder import read_adapter
from lora_scene.cli.main import root
from lora_scene.demo import SHORT, demo_scene, run_demo


@pytest.fixture
def random_only(monkeypatch):
    monkeypatch.setattr(lora_scene.demo, "demo_base", lambda: "random")


def test_the_embedded_scene_has_three_things():
    scene = demo_scene()
    assert len(scene.things) == 3
    assert scene.photos[0].pixels.shape == (64, 64, 3)


@pytest.mark.slow
def test_the_demo_trains_exports_verifies_and_draws(tmp_path, random_only):
    demo = run_demo(tmp_path, overrides=SHORT)
    assert read_adapter(tmp_path / "adapter").handles == demo_scene().handles
    assert {check.layout for check in demo.checks} >= {"diffusers", "kohya", "embedding"}
    assert all(check.n_matched == check.n_expected > 0 for check in demo.checks)
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.height > 8 * 64
    assert json.loads((tmp_path / "demo.json").read_text())["base"] == "random"


@pytest.mark.slow
def test_the_verb_says_where_to_look_and_that_a_random_base_draws_noise(tmp_path, random_only):
    out = tmp_path / "demo"
    arguments = ["demo", "--short", "--device", "cpu", "--out", str(out)]
    result = CliRunner().invoke(root, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "random" in result.stdout
    assert "grid.png" in result.stdout
    assert "lora-scene generate" in result.stdout


def test_without_an_embedded_base_the_demo_takes_a_random_one(monkeypatch):
    def absent(model):
        raise lora_scene.demo.BackboneError("absent")

    monkeypatch.setattr(lora_scene.demo, "resolve_model", absent)
    assert lora_scene.demo.demo_base() == "random"
