from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.mini_world.base import new_denoiser
from benchmarks.mini_world.compose import Sprites
from benchmarks.mini_world.export import build_pipeline
from benchmarks.mini_world.latents import to_pictures
from benchmarks.mini_world.nouns import noun_set
from benchmarks.mini_world.tokens import build_tokenizer, world_words
from benchmarks.mini_world.unseen import TIMESTEPS, errors, scenes_of
from benchmarks.mini_world.vae import new_vae
from tests.benchmarks import made


def test_the_error_is_the_velocity_s_over_the_drawing_s_own_cells() -> None:
    torch.manual_seed(0)
    words = build_tokenizer(world_words())
    pipeline = build_pipeline(new_denoiser(len(words), (8, 16, 16)), new_vae((4, 4, 4)), words)
    asked = []

    def blind(z_t: torch.Tensor, t: int, states: torch.Tensor) -> SimpleNamespace:
        asked.append(states.shape)
        return SimpleNamespace(sample=torch.zeros_like(z_t))

    pipeline.unet = blind
    scenes = scenes_of(Sprites(made.drawings(), noun_set("mini16")[:3]), 2)
    found = errors(pipeline, scenes)
    assert list(found) == list(TIMESTEPS)
    assert asked[0] == (6, 32, 128)
    with torch.no_grad():
        z = pipeline.vae.encode(to_pictures(scenes)).latent_dist.mean.numpy()
    squares = (z.astype(np.float64) ** 2).mean(1)
    cover = np.stack([one.masks[0].reshape(16, 4, 16, 4).mean((1, 3)) for one in scenes])
    # no signal is left at the last timestep, so that the velocity is -z_0
    assert found[999] == pytest.approx((squares * cover).sum() / cover.sum(), abs=2e-3)
    signal = float(pipeline.scheduler.alphas_cumprod[150])  # noise of deviation 1 has mean square 1
    assert found[150] == pytest.approx(signal + (1 - signal) * found[999], rel=0.1)


def test_every_noun_is_shown_as_often() -> None:
    scenes = scenes_of(Sprites(made.drawings(), noun_set("mini16")), 2)
    assert [one.nouns for one in scenes[:4]] == [("cat",), ("cat",), ("dog",), ("dog",)]
    assert len(scenes) == 32
