"""Whole trainings on the device that is not there, beside the same on the CPU."""

from __future__ import annotations

import pytest
import torch

from lora_scene.learning import samples
from tests.devices.absent import NAME
from tests.learning import made

TOLERANCES = {"fp32": 1e-4, "bf16": 5e-3, "fp16": 5e-3}  # of rows and factors after two steps


def worst(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


@pytest.mark.parametrize(
    ("family", "dtype"), [("sd1", "bf16"), ("sd2", "fp16"), ("sdxl", "bf16"), ("sdxl", "fp16")]
)
def test_both_phases_learn_what_the_cpu_learns(device, bases, scene, tmp_path, family, dtype):
    settings = made.recipe(bases[family], f"base.dtype={dtype}", steps=(1, 1))
    there = made.train(scene, settings, out=tmp_path / "there", device=NAME)
    on_cpu = made.recipe(bases[family], "base.dtype=bf16", steps=(1, 1))
    here = made.run(scene, on_cpu, tmp_path / "here")
    assert worst(made.numbers(there), made.numbers(here)) < TOLERANCES[dtype]
    assert device.kernels > 1000


def test_prior_and_samples_are_drawn_there(device, bases, scene, tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "N_STEPS", 2)
    settings = made.recipe(
        bases["sdxl"],
        *("base.dtype=fp32", "prior.weight=1", "prior.n_images=1", "prior.n_steps=1"),
        *("run.sample_every=1", 'run.sample_prompts=["a <bear>"]'),
        steps=(1, 1),
    )
    there = made.train(scene, settings, out=tmp_path / "there", device=NAME)
    here = made.run(scene, settings, tmp_path / "here")
    assert worst(made.numbers(there), made.numbers(here)) < TOLERANCES["fp32"]
    assert len(list((tmp_path / "there" / "samples").glob("*.png"))) >= 2


def test_a_step_waits_once_and_uploads_little(device, bases, scene, tmp_path):
    seen = []
    for n in (1, 2):
        chosen = ["base.dtype=bf16", "optimizer.name=adamw8bit", "augment.n_variants=1"]
        settings = made.recipe(bases["sd1"], *chosen, name="sd15", steps=(n, n))
        before = device.waits, device.uploads, device.uploaded
        made.train(scene, settings, out=tmp_path / str(n), device=NAME)
        after = device.waits, device.uploads, device.uploaded
        seen.append([now - then for now, then in zip(after, before, strict=True)])
    waits, uploads, uploaded = ((b - a) / 2 for a, b in zip(*seen, strict=True))
    assert waits == 1, device.where  # the loss, to be told and to be found finite
    assert uploads <= 10, device.where
    assert uploaded < 32_000, device.where
