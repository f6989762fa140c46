"""Pictures drawn and judged on the device that is not there, beside the same on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lora_scene.adapters.attachment import load_adapter, unload_adapter
from lora_scene.creating.choices import AdapterChoice
from lora_scene.creating.editing import Region, edit
from lora_scene.creating.interpolation import interpolate
from lora_scene.creating.rendering import render
from lora_scene.creating.requests import Control, Place, Request, Sampling
from lora_scene.creating.studio import Studio
from lora_scene.judging.encoders import ClipEncoder
from lora_scene.judging.evaluation import evaluate
from lora_scene.judging.plans import Plan, cells_of
from lora_scene.workshop.guidance import draw_guided
from tests import tiny
from tests.adapters import made
from tests.creating import studios
from tests.devices.absent import NAME, Counts, absent_device
from tests.judging import fakes

pytestmark = pytest.mark.filterwarnings(studios.QUIET)
PLACED = Control(places=(Place("<bear>", (0, 0, 0.5, 1)),), emphases=(("<bowl>", 2.0),))
BOTH = "a photo of <bear> and <bowl>"
PLAN = Plan(
    prompts=("a photo of {}",), subsets="singles", seeds=(0,), sampling=Sampling(1), n_drift=1
)


def asked(n_steps: int, control: Control = PLACED) -> Request:
    return Request(BOTH, 3, sampling=Sampling(n_steps, 3.0), control=control)


@pytest.fixture(scope="module")
def there() -> Studio:
    """Return the studio of `studios.studio()`, moved to the device before adapters came in."""
    pipeline = tiny.pipeline("sd1")
    adapter = made.adapter(pipeline, "sd1", handles=studios.HANDLES)
    with absent_device():
        return studios.assemble_studio(pipeline.to(NAME), [AdapterChoice(adapter)], name="tiny")


def placed(studio: Studio) -> np.ndarray:
    return render(studio, [asked(1)]).pixels[0]


def edited(studio: Studio) -> np.ndarray:
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    mask = np.zeros((64, 64), np.float32)
    mask[16:48, 16:48] = 1
    brush = Request("a <bear>", 1, sampling=Sampling(2, 3.0, "base", 0.6))
    return edit(studio, photo, [Region(mask, brush)])


def between(studio: Studio) -> np.ndarray:
    ends = [Request(f"a {handle}", 3, sampling=Sampling(1)) for handle in studios.HANDLES]
    return np.stack(list(interpolate(studio, *ends, n_frames=2)))


@pytest.mark.parametrize("verb", [placed, edited, between])
def test_a_verb_draws_what_the_cpu_draws(
    device: Counts, there: Studio, verb: Callable[[Studio], np.ndarray]
) -> None:
    drawn = verb(there).astype(int)
    assert device.kernels > 500
    assert np.abs(drawn - verb(studios.studio())).max() <= 1


def test_an_evaluation_finds_what_the_cpu_finds(device: Counts, there: Studio) -> None:
    found, expected = (
        evaluate(studio, fakes.scene(), judge=fakes.judge(), plan=PLAN).summary
        for studio in (there, studios.studio())
    )
    assert device.kernels > 2000
    assert found == pytest.approx(expected, abs=0.01)


def test_clip_leads_a_picture_as_on_the_cpu(
    device: Counts, there: Studio, clip_folder: Path
) -> None:
    drawn = []
    cells = cells_of(PLAN, fakes.scene())[:1]
    for studio, place in ((there, NAME), (studios.studio(), "cpu")):
        eyes = ClipEncoder(clip_folder, device=place)
        (one,) = draw_guided(
            studio, cells, fakes.scene(), encoder=eyes, sampling=Sampling(1, 1.0), scale=0.3
        )
        drawn.append(one.pixels.astype(int))
    assert np.abs(drawn[0] - drawn[1]).max() <= 2


def test_an_adapter_goes_as_it_came(device: Counts, there: Studio) -> None:
    matrix = there.pipeline.text_encoder.get_input_embeddings().weight
    before = matrix.cpu()
    second = made.adapter(there.pipeline, "sd1", handles=("<cup>",))
    load_adapter(there.pipeline, second, name="second")
    assert there.pipeline.text_encoder.get_input_embeddings().weight.shape != before.shape
    unload_adapter(there.pipeline, "second")
    after = there.pipeline.text_encoder.get_input_embeddings().weight
    assert after.device.type == NAME
    assert torch.equal(after.cpu(), before)


def test_a_drawn_step_waits_for_nothing_and_copies_nothing(device: Counts, there: Studio) -> None:
    """As the counts between the ends of steps: placed and emphasised, guided and not."""
    seen: list[tuple[int, ...]] = []

    def tick(done: int, total: int) -> None:
        seen.append((device.waits, device.uploads, device.kernels))

    render(there, [asked(4)], tick=tick)
    steps = np.diff(seen, axis=0)
    assert steps[:, :2].tolist() == [[0, 0]] * 3, device.where
    seen.clear()
    render(there, [asked(2, Control())], tick=tick)
    ours = seen[1][2] - seen[0][2]
    seen.clear()
    there.pipeline(
        BOTH, num_inference_steps=2, output_type="latent",
        callback_on_step_end=lambda *args: tick(0, 0) or {},
    )  # fmt: skip
    assert ours <= seen[1][2] - seen[0][2]
    assert seen[1][0] - seen[0][0] > 0  # diffusers' own loop waits
