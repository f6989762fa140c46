from __future__ import annotations

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner
from PIL import Image

from lora_scene import journey
from lora_scene.adapters.folder import read_adapter
from lora_scene.cli.main import root
from lora_scene.errors import FileError, TrainingError
from lora_scene.journey import demo_scene


def test_the_embedded_scene_has_three_things():
    scene = demo_scene()
    assert len(scene.things) == 3
    assert scene.photos[0].pixels.shape == (64, 64, 3)


@pytest.mark.slow
def test_the_short_demo_trains_exports_verifies_draws_and_weighs(tmp_path, monkeypatch):
    monkeypatch.setattr(journey, "SAMPLING", replace(journey.SAMPLING, n_steps=2))
    monkeypatch.setattr(journey, "PLACES", journey.PLACES[:1])
    monkeypatch.setattr(journey, "SEEDS", journey.SEEDS[:1])
    out = tmp_path / "demo"
    arguments = ["demo", "--short", "--device", "cpu", "--out", str(out)]
    result = CliRunner().invoke(root, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert read_adapter(out / "adapter").handles == demo_scene().handles
    with Image.open(out / "grid.png") as grid:
        assert grid.height > 8 * 64
    written = json.loads((out / "demo.json").read_text())
    files = {path.name for path in (out / "exported").rglob("*.safetensors")}
    assert set(written["verified"]) <= files
    assert len(written["verified"]) >= 5
    assert 0 < written["figures"]["base"]["identity"] < 1
    assert written["figures"]["adapter"]["attention_iou"] is not None
    for said in ("identity", "grid.png", "lora-scene generate"):
        assert said in result.stdout


@pytest.mark.parametrize("name", ["grid.png", "demo.json"])
def test_a_demo_that_could_not_be_shown_is_refused_before_it_trains(name, tmp_path, monkeypatch):
    monkeypatch.setattr(journey, "train", None)
    (tmp_path / name).write_bytes(b"somebody's")
    with pytest.raises(FileError, match=name):
        CliRunner().invoke(root, ["demo", "--out", str(tmp_path)], catch_exceptions=False)


def test_a_demo_begins_anew_where_it_is_told_that_it_may(tmp_path, monkeypatch):
    def refuses(*_, restart: bool, **__):
        raise TrainingError("another run's") if not restart else KeyError("begun anew")

    monkeypatch.setattr(journey, "train", refuses)
    arguments = ["demo", "--out", str(tmp_path)]
    with pytest.raises(TrainingError):
        CliRunner().invoke(root, arguments, catch_exceptions=False)
    with pytest.raises(KeyError):
        CliRunner().invoke(root, [*arguments, "--restart"], catch_exceptions=False)
