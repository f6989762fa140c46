"""Whole trainings on the device that is not there, beside the same on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lora_scene.adapters.whole_model import FULL_MODEL
from lora_scene.learning import samples
from lora_scene.learning.checkpoints import load_checkpoint
from lora_scene.learning.events import Event, StepDone
from lora_scene.learning.optimizers import build_optimizers
from lora_scene.learning.runs import CHECKPOINT, SUMMARY
from lora_scene.recipe import Optimizer, Phase, Recipe
from lora_scene.scenes.scene import Scene
from tests.devices.absent import NAME, Counts
from tests.learning import made

TOLERANCES = {"fp32": 1e-4, "bf16": 5e-3, "fp16": 5e-3}  # of rows and factors after the steps
MOST_KERNELS = {1: 2_760, 2: 5_630}  # 5 % above what a step of each phase launched
SAMPLED = ("run.sample_every=1", 'run.sample_prompts=["a <bear>"]')
PRIOR = ("prior.weight=1", "prior.n_images=1", "prior.n_steps=1")
GROUNDS = (*made.ON_GROUNDS, "grounds.far=1e-6")  # all things are: their nouns are looked at


def worst(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


@pytest.mark.parametrize(
    ("family", "dtype", "settings"),
    [
        ("sd1", "bf16", ("base.quantization=fp8",)),
        ("sd2", "bf16", GROUNDS),
        ("sdxl", "fp16", (*PRIOR, *SAMPLED)),
    ],
)
def test_both_phases_learn_what_the_cpu_learns(
    device: Counts,
    bases: dict[str, str],
    scene: Scene,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    dtype: str,
    settings: tuple[str, ...],
) -> None:
    """In float16 beside the CPU's bfloat16: it has no float16 training."""
    monkeypatch.setattr(samples, "N_STEPS", 1)
    asked = made.recipe(bases[family], f"base.dtype={dtype}", *settings, steps=(1, 1))
    there = made.train(scene, asked, out=tmp_path / "there", device=NAME)
    assert device.kernels > 1000
    on_cpu = made.recipe(bases[family], "base.dtype=bf16", *settings, steps=(1, 1))
    here = made.run(scene, on_cpu, tmp_path / "here")
    assert worst(made.numbers(there), made.numbers(here)) < TOLERANCES[dtype]
    drawn, expected = (sorted((tmp_path / n / "samples").glob("*")) for n in ("there", "here"))
    assert [path.name for path in drawn] == [path.name for path in expected]
    seen, told = (json.loads((tmp_path / n / SUMMARY).read_text()) for n in ("there", "here"))
    assert bool(seen.get("colours")) == (settings is GROUNDS)
    assert seen.get("colours") == pytest.approx(told.get("colours"), abs=1.0)  # of some dozens


@pytest.mark.parametrize("name", ["adamw", "adafactor", "prodigy", "schedulefree"])
def test_no_optimizer_waits_once_a_weight(device: Counts, name: str) -> None:
    weights = [torch.nn.Parameter(torch.full((4, 4), 0.5, device=NAME)) for _ in range(9)]
    phase = Phase(trains="lora", rows_lr=0.0, weights_lr=1.0)
    chosen = Optimizer(name=name)  # type: ignore[arg-type]
    (made,) = build_optimizers([], weights, chosen, phase=phase, notice=print)
    for _ in range(2):  # the first makes the states
        torch.stack([weight.square().sum() for weight in weights]).sum().backward()
        before = device.waits
        made.step()
        made.zero_grad()
    assert device.waits - before <= 2, device.where
    assert all(weight.detach().sum().item() != 8 for weight in weights), "it has moved all"


def test_a_whole_model_is_trained_in_mixed_precision_as_on_the_cpu(
    device: Counts, bases: dict[str, str], scene: Scene, tmp_path: Path
) -> None:
    rate = 1e-3  # what AdamW's first step moves a weight by, whatever the gradient's size
    chosen = ("phase2.trains=full", "phase2.schedule=constant", f"phase2.weights_lr={rate}")
    before = load_file(next((Path(bases["sd1"]) / "unet").glob("*.safetensors")))
    moved = {}
    for name, place, dtype in (("cpu", "cpu", "bf16"), ("b", NAME, "bf16"), ("f", NAME, "fp16")):
        asked = made.recipe(bases["sd1"], f"base.dtype={dtype}", *chosen, steps=(0, 1))
        made.train(scene, asked, out=tmp_path / name, device=place)
        (file,) = (tmp_path / name / FULL_MODEL / "unet").glob("*.safetensors")
        after = load_file(file)
        changes = [(after[key].float() - old.float()).flatten() for key, old in before.items()]
        moved[name] = torch.cat(changes)
    assert moved["cpu"].abs().mean() > 0.5 * rate
    for name in ("b", "f"):
        assert torch.cosine_similarity(moved[name], moved["cpu"], dim=0) > 0.95, name


def test_a_step_waits_once_and_uploads_little_and_a_run_goes_on(
    device: Counts, bases: dict[str, str], scene: Scene, tmp_path: Path
) -> None:
    """In float16, whose gradients are scaled; beside the CPU's bfloat16."""
    seen = {}

    def listen(event: Event) -> None:
        if isinstance(event, StepDone):
            asked = (device.waits, device.uploads, device.uploaded, device.kernels)
            seen[event.phase, event.step] = asked

    def settings(dtype: str, n: int) -> Recipe:
        chosen = [f"base.dtype={dtype}", "optimizer.name=adamw8bit", "augment.n_variants=1"]
        return made.recipe(bases["sd1"], *chosen, name="sd15", steps=(2, n))

    made.train(scene, settings("fp16", 2), out=tmp_path / "there", device=NAME, listener=listen)
    for phase in (1, 2):
        waits, uploads, uploaded, kernels = np.subtract(seen[phase, 2], seen[phase, 1])
        assert waits == 1, device.where  # the loss, to be told and to be found finite
        assert uploads <= 10, device.where
        assert uploaded < 16_000, device.where
        assert 0 < kernels <= MOST_KERNELS[phase]
    kept = load_checkpoint(tmp_path / "there" / CHECKPOINT).state["scaler"]
    assert kept["scale"] == 2**16
    assert kept["_growth_tracker"] == 4, "steps since it last changed"
    seen.clear()
    there = made.train(
        scene, settings("fp16", 3), out=tmp_path / "there", device=NAME, listener=listen
    )
    assert list(seen) == [(2, 3)]
    here = made.run(scene, settings("bf16", 3), tmp_path / "here")
    assert worst(made.numbers(there), made.numbers(here)) < TOLERANCES["bf16"]
