from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

from lora_scene.cli.main import root
from lora_scene.errors import BackboneError
from lora_scene.learning import estimates
from lora_scene.learning.devices import memory_switches


def test_doctor_tells_scripts_and_people(tmp_path):
    command = ["doctor", "--device", "cpu", "--folder", str(tmp_path)]
    findings = json.loads(CliRunner().invoke(root, [*command, "--json"]).stdout)
    assert {"name", "value", "problem"} == findings[0].keys()
    shown = CliRunner().invoke(root, command)
    assert shown.exit_code == 0
    assert "bitsandbytes" in shown.stdout


def test_estimate_adds_up_and_knows_the_embedded_base_and_its_pictures():
    command = ["estimate", "--recipe", "mini", "--set", "phase1.steps=0", "--drawing", "--json"]
    result = json.loads(CliRunner().invoke(root, command).stdout)
    assert result["resolution"] == 64
    assert 0 < result["peak_bytes"] < 1e9
    assert result["peak_bytes"] == max(sum(p["parts"].values()) for p in result["phases"])
    plain, placed = (sum(one["parts"].values()) for one in result["drawing"])
    assert plain < placed


def test_estimate_refuses_a_base_of_another_family_than_the_recipe_s():
    with pytest.raises(BackboneError, match="another family than the recipe's"):
        CliRunner().invoke(
            root, ["estimate", "--recipe", "sd15", "--base", "sdxl"], catch_exceptions=False
        )


def test_estimate_says_that_it_measured_nothing(bases, monkeypatch):
    """Of the switches one alone is tried here; what each saves is tried with the estimates."""
    one = lambda recipe: [s for s in memory_switches(recipe) if "checkpointing" in s]  # noqa: E731
    monkeypatch.setattr(estimates, "memory_switches", one)
    command = ["estimate", "--base", bases["sd1"], "--recipe", "paper", "--resolution", "64"]
    shown = CliRunner().invoke(root, [*command, "--set", "prior.weight=0", "--switches"])
    assert shown.exit_code == 0
    assert "sd1-0 at 64x64 px" in shown.stdout
    assert "estimated, not measured" in shown.stdout
    assert "gradient_checkpointing" in shown.stdout
    assert ("--set base.dtype=fp16" in shown.stderr) == (not torch.cuda.is_available())
