"""What the absent device cannot show: real kernels, on a card. Skipped where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lora_scene.creating.choices import AdapterChoice
from lora_scene.creating.rendering import render
from lora_scene.creating.requests import Control, Place, Request, Sampling
from lora_scene.learning.runs import SUMMARY
from lora_scene.scenes.scene import Scene
from tests import tiny
from tests.adapters import made as adapters
from tests.creating import studios
from tests.learning import made

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings(studios.QUIET),
    pytest.mark.filterwarnings("ignore:inner dimension .* is not aligned:UserWarning"),  # tiny, nf4
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning"),
]
TOLERANCE = 5e-3  # of rows and factors after two steps
LOW_BITS = ("none", "fp8", "nf4", "int8")


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_both_phases_learn_what_the_cpu_learns(
    bases: dict[str, str], scene: Scene, tmp_path: Path, family: str, dtype: str
) -> None:
    there, here = (
        made.train(
            scene,
            made.recipe(bases[family], f"base.dtype={kind}", steps=(1, 1)),
            out=tmp_path / device,
            device=device,
        )
        for device, kind in (("cuda", dtype), ("cpu", "bf16"))
    )
    ours, theirs = made.numbers(there), made.numbers(here)
    assert max(float((ours[n] - theirs[n]).abs().max()) for n in ours) < TOLERANCE


def test_nouns_and_grounds_are_drawn_there_and_things_stand_on_them(
    bases: dict[str, str], scene: Scene, tmp_path: Path
) -> None:
    asked = made.recipe(
        bases["sd1"], *made.ON_GROUNDS, "base.dtype=bf16", "grounds.far=1e-6", steps=(1, 1)
    )
    runs = {d: made.train(scene, asked, out=tmp_path / d, device=d) for d in ("cuda", "cpu")}
    ours, theirs = (made.numbers(result) for result in runs.values())
    assert max(float((ours[n] - theirs[n]).abs().max()) for n in ours) < TOLERANCE
    seen, told = (json.loads((tmp_path / d / SUMMARY).read_text())["colours"] for d in runs)
    assert seen == pytest.approx(told, abs=1.0)  # of some dozens


@pytest.mark.parametrize("kind", LOW_BITS)
def test_low_bit_bases_train_with_8_bit_states(
    bases: dict[str, str], scene: Scene, tmp_path: Path, kind: str
) -> None:
    chosen = ["base.dtype=bf16", f"base.quantization={kind}", "optimizer.name=adamw8bit"]
    settings = made.recipe(bases["sdxl"], *chosen, steps=(2, 2))
    learnt = made.numbers(made.train(scene, settings, out=tmp_path, device="cuda"))
    assert all(bool(values.isfinite().all()) for values in learnt.values())


def test_a_drawn_step_waits_for_nothing_and_the_picture_is_the_cpus() -> None:
    pipeline = tiny.pipeline("sd1")
    adapter = adapters.adapter(pipeline, "sd1", handles=studios.HANDLES)
    studio = studios.assemble_studio(pipeline.to("cuda"), [AdapterChoice(adapter)], name="tiny")
    control = Control(places=(Place("<bear>", (0, 0, 0.5, 1)),), emphases=(("<bowl>", 2.0),))
    asked = Request("a <bear> and <bowl>", 3, sampling=Sampling(4, 3.0), control=control)

    def tick(done: int, total: int) -> None:
        torch.cuda.set_sync_debug_mode("error" if done < total else "default")

    try:
        drawn = render(studio, [asked], tick=tick).pixels[0].astype(int)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert np.abs(drawn - render(studios.studio(), [asked]).pixels[0]).max() <= 4
