import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.mini_world import fit
from benchmarks.mini_world.base import new_denoiser
from benchmarks.mini_world.compose import Sprites
from benchmarks.mini_world.export import build_pipeline
from benchmarks.mini_world.nouns import noun_set
from benchmarks.mini_world.tokens import build_tokenizer, world_words
from benchmarks.mini_world.vae import new_vae
from lora_scene.backbones.backbone import Backbone
from lora_scene.creating.studio import Studio
from lora_scene.scenes.scene import load_scene
from tests.benchmarks import made

SCENE = Path(fit.__file__).parents[1] / "scenes" / "d02-2"


def studio_that_predicts_nothing():
    torch.manual_seed(0)
    words = build_tokenizer(world_words())
    pipeline = build_pipeline(new_denoiser(len(words), (8, 16, 16)), new_vae((4, 4, 4)), words)
    backbone = Backbone(pipeline, name="blind")
    asked = []
    tokenizer = pipeline.tokenizer

    def noted(prompts, **how):
        asked.extend(prompts)
        return tokenizer(prompts, **how)

    pipeline.tokenizer = noted
    pipeline.unet = lambda z_t, t, states: SimpleNamespace(sample=torch.zeros_like(z_t))
    return Studio(backbone, "", ()), asked


def test_the_photo_s_error_is_over_all_its_things():
    studio, asked = studio_that_predicts_nothing()
    scene = load_scene(SCENE)
    found = fit.fit_on_photo(studio, scene)
    assert asked == ["a photo of <pen> and <roc>"]
    pixels = torch.from_numpy(scene.photos[0].pixels.copy()).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        z = studio.pipeline.vae.encode(pixels).latent_dist.mean[0].double().numpy()
    masks = np.maximum(*scene.photos[0].masks)  # of things that do not overlap
    cover = masks.reshape(16, 4, 16, 4).mean((1, 3))
    expected = (np.square(z).mean(0) * cover).sum() / cover.sum()
    assert found[999] == pytest.approx(expected, abs=2e-3)  # the velocity is -z_0 there


def test_elsewhere_is_each_thing_alone_on_every_ground():
    studio, asked = studio_that_predicts_nothing()
    fit.fit_elsewhere(studio, load_scene(SCENE), Sprites(made.drawings(), noun_set("mini16")))
    assert len(asked) == 2 * 3 * fit.N_PLACES
    assert set(asked) == {
        f"a photo of {handle} {ground}"
        for handle in ("<pen>", "<roc>")
        for ground in ("on grass", "on snow", "by a brick wall")
    }


def test_a_scene_of_changed_drawings_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fit", "run", "scenes/dh01-2", "--cache", "world"])
    with pytest.raises(SystemExit):
        fit.main()
    assert "dh01-2: a scene d* or t* is wanted" in capsys.readouterr().err
