from __future__ import annotations

import functools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, LCMScheduler

from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.fitness import (
    check_family,
    check_prediction,
    check_trainable,
)
from lora_scene.backbones.loading import load_pipeline, peek_family
from lora_scene.backbones.pipeline_folder import StatedSizes, stated_sizes
from lora_scene.errors import BackboneError
from lora_scene.recipe.settings import Base
from tests import tiny
from tests.backbones import ldm


def backbone(family="sd1", *, name="base", resolution=64, scheduler=None):
    pipe = tiny.pipeline(family)
    if scheduler is not None:
        pipe.scheduler = scheduler
    return Backbone(pipe, name=name, resolution=resolution)


def refusal(found, **settings):
    with pytest.raises(BackboneError) as caught:
        check_trainable(found, Base(model=found.name, **settings))
    return str(caught.value)


def test_base_of_the_recipes_family_and_size_suits():
    for family in tiny.FAMILIES:
        for asked in ("", family):
            base = Base(model="base", family=asked)
            assert check_trainable(backbone(family), base) == ()


def test_base_of_another_family_is_refused_unless_forced():
    said = refusal(backbone("sd1"), family="sdxl")
    assert "base: the base is of another family than the recipe's" in said
    assert all(part in said for part in ("sdxl", "sd1", "base.force=true"))
    (notice,) = check_trainable(backbone("sd1"), Base(model="x", family="sdxl", force=True))
    assert notice == ("base: the base is of another family than the recipe's; base.force is set")


@pytest.mark.parametrize(
    ("size", "outcome"),
    [(64, "suits"), (96, "told"), (128, "told"), (32, "told"), (160, "refused"), (512, "refused")],
)
def test_size_far_from_the_bases_own_is_told_and_more_than_twice_off_refused(size, outcome):
    found = backbone(resolution=size)
    if outcome == "refused":
        said = refusal(found)
        assert "the base was made for 64 px" in said
        assert "base.resolution=64" in said
        return
    notices = check_trainable(found, Base(model="base"))
    assert len(notices) == (outcome == "told")
    assert all(f"was made for 64 px, and this recipe trains it at {size}" in n for n in notices)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("unet", "sample_size", None),
        ("unet", "sample_size", [16, 16]),
        ("unet", "sample_size", 0),
        ("vae", "block_out_channels", None),
    ],
)
def test_a_size_that_no_configuration_tells_is_left_to_the_loaded_base(
    part, key, value, bases, tmp_path
):
    for name in ("unet", "vae"):
        config = json.loads((Path(bases["sd1"]) / name / "config.json").read_text("utf-8"))
        if name == part:
            config[key] = value
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config), "utf-8")
    assert stated_sizes(tmp_path) is None
    # a VAE of 3 levels halves twice; of the UNet's 4 levels the third has the coarsest attention
    assert stated_sizes(Path(bases["sd1"])) == StatedSizes(64, 4 * 8, 4, 4 * 4)


def test_another_family_is_known_before_the_base_is_loaded(bases, tmp_path):
    file = ldm.write(tiny.pipeline("sd1"), tmp_path / "a.safetensors")
    for model in (bases["sd1"], file):
        with pytest.raises(BackboneError, match="another family than the recipe's"):
            check_family(peek_family(model), Base(family="sdxl"), where=model)
        check_family(peek_family(model), Base(family="sdxl", force=True), where=model)
    assert peek_family("someone/not-here") is None


def test_all_that_speaks_against_a_base_is_said_at_once():
    found = backbone(resolution=512, name="xl-turbo")
    assert "3 problems" in refusal(found, family="sdxl")
    assert len(check_trainable(found, Base(family="sdxl", force=True))) == 3


@pytest.mark.parametrize(
    "name",
    [
        "stabilityai/sdxl-turbo",
        "dreamshaperXL_v21TurboDPMSDE.safetensors",
        "juggernautXL_v9Rdphoto2Lightning.safetensors",
        "SimianLuo/LCM_Dreamshaper_v7",
        "x-lcm",
        "ByteDance/Hyper-SD",
        "someone/sdxl-dmd2",
        "sdxl_8step.safetensors",
        "realvis-4 steps",
    ],
)
def test_distilled_base_is_known_by_its_name(name):
    assert "seems distilled to few steps" in refusal(backbone(name=name))


@pytest.mark.parametrize(
    "name",
    ["hyperrealism-v3.safetensors", "calcmodel", "dmdx", "v1-5-pruned", "21-steps", "step"],
)
def test_ordinary_base_is_not_taken_for_a_distilled_one(name):
    assert check_trainable(backbone(name=name), Base(model=name)) == ()


BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
VELOCITY = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}


@pytest.mark.parametrize(
    ("scheduler", "is_distilled"),
    [
        (LCMScheduler(**BETAS), True),
        (EulerDiscreteScheduler(**BETAS, timestep_spacing="trailing"), True),
        (EulerDiscreteScheduler(**BETAS, timestep_spacing="leading"), False),
        (EulerDiscreteScheduler(**BETAS, **VELOCITY, timestep_spacing="trailing"), False),
        (DDIMScheduler(**BETAS, timestep_spacing="trailing"), False),
    ],
)
def test_distilled_base_is_known_by_its_scheduler(scheduler, is_distilled):
    found = backbone(scheduler=scheduler)
    if is_distilled:
        assert type(scheduler).__name__ in refusal(found)
    else:
        assert check_trainable(found, Base(model="base")) == ()


def test_distilled_file_is_known_by_its_title(tmp_path):
    title = {"modelspec.title": "Dream XL Lightning"}
    path = ldm.write(tiny.pipeline("sd1"), tmp_path / "dream.safetensors", metadata=title)
    with pytest.raises(BackboneError, match="distilled") as caught:
        check_trainable(backbone(name="dream.safetensors"), Base(model=str(path)))
    assert "Dream XL Lightning" in str(caught.value)


@functools.cache
def mini():
    return load_pipeline("mini")


class NoisePredictor(torch.nn.Module):
    """mini, which predicts v = sqrt(abar) eps - sqrt(1 - abar) z, made to predict the noise.

    From z_t = sqrt(abar) z + sqrt(1 - abar) eps follows eps = sqrt(abar) v + sqrt(1 - abar) z_t.
    """

    def __init__(self, unet, alphas):
        super().__init__()
        self.unet, self.alphas, self.config = unet, alphas, unet.config

    def forward(self, z_t, t, **options):
        (velocity,) = self.unet(z_t, t, **options)
        abar = self.alphas[t].view(-1, 1, 1, 1)
        return (abar.sqrt() * velocity + (1 - abar).sqrt() * z_t,)


def trained(predicts: str, says: str):
    """Return mini, or mini made to predict the noise, under what its files say."""
    own = mini()
    parts = {key: getattr(own, key) for key in ("vae", "text_encoder", "tokenizer")}
    plain = {"rescale_betas_zero_snr": False, "prediction_type": says}
    keeps = says == predicts == "v_prediction"
    scheduler = own.scheduler if keeps else DDIMScheduler.from_config(own.scheduler.config, **plain)
    unet = own.unet
    if predicts == "epsilon":
        unet = NoisePredictor(unet, own.scheduler.alphas_cumprod)
    pipe = SimpleNamespace(unet=unet, scheduler=scheduler, **parts)
    return Backbone(pipe, name="base", resolution=64)


def latents(found):
    pixels = np.full((64, 64, 3), 200, dtype=np.uint8)
    pixels[16:48, 16:48] = (220, 40, 40)
    return found.encode_picture(pixels).mean


@pytest.mark.parametrize("predicts", ["v_prediction", "epsilon"])
def test_target_that_the_weights_predict_is_accepted_and_the_other_refused(predicts):
    other = {"v_prediction": "epsilon", "epsilon": "v_prediction"}[predicts]
    for seed in range(3):
        right, wrong = trained(predicts, predicts), trained(predicts, other)
        check_prediction(right, latents(right), torch.Generator().manual_seed(seed))
        with pytest.raises(BackboneError, match="predict another target") as caught:
            check_prediction(wrong, latents(wrong), torch.Generator().manual_seed(seed))
        assert f"{other}, as they say" in str(caught.value)


def test_untrained_base_predicts_neither_and_is_left_alone():
    for family in tiny.FAMILIES:
        found = backbone(family)
        check_prediction(found, latents(found), torch.Generator().manual_seed(0))
