from __future__ import annotations

import numpy as np
import pytest
import torch

from lora_scene.creating.requests import Sampling
from lora_scene.errors import JudgingError
from lora_scene.judging.encoders import ClipEncoder, resizing
from lora_scene.judging.finding import cut_out
from lora_scene.judging.plans import Plan, cells_of
from lora_scene.workshop import guidance
from lora_scene.workshop.guidance import ClipGuide, clean_latents, draw_guided, windows
from tests import tiny
from tests.creating import studios
from tests.creating.studios import assemble_studio
from tests.judging import fakes

pytestmark = pytest.mark.filterwarnings(studios.QUIET)
SAMPLING = Sampling(n_steps=2, guidance=1.0)


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_guided_pictures_look_more_like_the_concepts(family, clip_folder) -> None:
    studio = assemble_studio(tiny.pipeline(family), name="tiny")
    scene, eyes = fakes.scene(), ClipEncoder(clip_folder)
    cells = cells_of(Plan(prompts=("a photo of {}",), subsets="singles", seeds=(0,)), scene)
    looks = eyes.embed_pictures([cut_out(scene.photos[0].pixels, m > 0.5)
                                 for m in scene.photos[0].masks])  # fmt: skip

    def likeness(scale: float) -> np.ndarray:
        drawn = draw_guided(studio, cells, scene, encoder=eyes, sampling=SAMPLING, scale=scale)
        pictures = torch.stack([torch.from_numpy(one.pixels).permute(2, 0, 1) for one in drawn])
        with torch.no_grad():
            views = [eyes.embed_tensor(view).numpy() for view in windows(pictures / 255)]
        return np.max([(view * looks).sum(axis=1) for view in views], axis=0)

    plain, led = likeness(0.0), likeness(0.3)
    assert (led > plain).all(), (plain, led)


def test_clip_leads_in_16_bits_as_in_32(clip_folder, monkeypatch) -> None:
    """The first move turns by no more than the dtype's rounding; no picture is one colour."""
    scene, eyes, moves = fakes.scene(), ClipEncoder(clip_folder), []

    class Followed(ClipGuide):
        def before(self, z_t, step):
            there = super().before(z_t, step)
            moves.append((there.float() - z_t.float()).flatten())
            return there

    monkeypatch.setattr(guidance, "ClipGuide", Followed)
    cells = cells_of(Plan(prompts=("a photo of {}",), subsets="singles", seeds=(0,)), scene)[:1]
    asked = {"encoder": eyes, "sampling": Sampling(1, 1.0), "scale": 3.0}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        studio = assemble_studio(tiny.pipeline("sd1").to(dtype), name="tiny")
        (drawn,) = draw_guided(studio, cells, scene, **asked)
        assert drawn.pixels.std() > 10
        assert np.isfinite(drawn.maps).all()
        assert torch.cosine_similarity(moves[0], moves[-1], dim=0) > 0.998


def test_the_clean_latents_come_back_from_a_right_prediction() -> None:
    z, eps = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    signal, noise = torch.tensor(0.6), torch.tensor(0.8)  # 0.36 + 0.64 = 1
    z_t = signal * z + noise * eps
    right = {"epsilon": eps, "v_prediction": signal * eps - noise * z}
    for kind, output in right.items():
        torch.testing.assert_close(clean_latents(z_t, output, signal**2, kind), z)


def test_windows_are_the_whole_the_middle_and_the_corners() -> None:
    pictures = torch.arange(100.0).view(1, 1, 10, 10)
    views = list(windows(pictures))
    assert len(views) == 6
    assert views[0] is pictures
    assert {tuple(view.shape[-2:]) for view in views[1:]} == {(6, 6)}
    assert [int(view[0, 0, 0, 0]) for view in views[1:]] == [22, 0, 4, 40, 44]


def test_a_tensor_is_embedded_as_the_processor_would(clip_folder) -> None:
    eyes = ClipEncoder(clip_folder)
    pixels = fakes.picture(fakes.RED, fakes.BLUE)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        vectors = eyes.embed_tensor(tensor).numpy()
    np.testing.assert_allclose(vectors, eyes.embed_pictures([pixels]), atol=1e-3)


def test_a_row_is_shrunk_as_torch_shrinks_it() -> None:
    rows = torch.rand(1, 1, 7, 5, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(rows, (4, 9), mode="bilinear", antialias=True)
    torch.testing.assert_close(resizing(7, 4) @ rows @ resizing(5, 9).T, expected)


def test_a_solver_of_another_schedule_is_refused(clip_folder) -> None:
    from diffusers import EulerDiscreteScheduler

    pipeline = tiny.pipeline("sd1")
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    studio = assemble_studio(pipeline, name="tiny")
    cells = cells_of(Plan(prompts=("a photo of {}",), seeds=(0,)), fakes.scene())
    with pytest.raises(JudgingError, match="cannot lead this solver"):
        next(draw_guided(studio, cells, fakes.scene(), encoder=ClipEncoder(clip_folder),
                         sampling=SAMPLING, scale=0.1))  # fmt: skip
