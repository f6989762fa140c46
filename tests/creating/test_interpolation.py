from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from lora_scene.creating.generation import draw
from lora_scene.creating.interpolation import interpolate, make_ends, save_frames, slerp
from lora_scene.creating.picture_files import read_record
from lora_scene.creating.requests import Request, Sampling
from lora_scene.errors import CreationError, LoraSceneWarning
from tests import tiny
from tests.creating.studios import QUIET, studio

QUICK = Sampling(2, 3.0)
BEAR = Request("a photo of <bear>", 1, sampling=QUICK)
BOWL = Request("a photo of <bowl>", 1, sampling=QUICK)


def picture(one, **asked):
    return next(draw(one, [Request(sampling=QUICK, **asked)]))[1].pixels


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_both_ends_are_the_pictures_that_generate_draws(family):
    one = studio(family)
    frames = list(interpolate(one, BEAR, BOWL, n_frames=3))
    np.testing.assert_array_equal(frames[0], picture(one, prompt=BEAR.prompt, seed=1))
    np.testing.assert_array_equal(frames[2], picture(one, prompt=BOWL.prompt, seed=1))
    assert not np.array_equal(frames[1], frames[0])
    assert not np.array_equal(frames[1], frames[2])


def test_weights_move_from_one_end_to_the_other():
    one = studio()
    (name,) = [loaded.name for loaded in one.adapters]
    ends = [replace(BEAR, weight=((name, weight),)) for weight in (0.0, 1.0)]
    frames = list(interpolate(one, *ends, n_frames=3))
    for frame, weight in zip(frames, (0.0, 0.5, 1.0), strict=True):
        expected = picture(one, prompt=BEAR.prompt, seed=1, weight=weight)
        np.testing.assert_array_equal(frame, expected)


def test_two_seeds_are_joined_on_the_sphere():
    """By a solver that draws noise on the way too, from the nearer end's generator."""
    one, noisy = studio(), replace(QUICK, scheduler="ddpm")
    ends = [Request(BEAR.prompt, seed, sampling=noisy) for seed in (1, 2)]
    with pytest.warns(LoraSceneWarning, match="jump in the middle"):
        frames = list(interpolate(one, *ends, n_frames=3))
    for frame, end in zip(frames[::2], ends, strict=True):
        np.testing.assert_array_equal(frame, next(draw(one, [end]))[1].pixels)
    assert not np.array_equal(frames[1], frames[0])


@pytest.mark.filterwarnings(QUIET)
@pytest.mark.parametrize("scheduler", ["euler-a", "ddpm", "dpm++-sde"])
def test_a_jump_between_seeds_is_told_where_the_solver_draws_noise(scheduler):
    ends = [
        replace(BEAR, seed=seed, sampling=replace(QUICK, scheduler=scheduler)) for seed in (1, 2)
    ]
    with pytest.warns(LoraSceneWarning, match="seeds 1 and 2: .* jump in the middle"):
        list(interpolate(studio(), *ends, n_frames=2))
    list(interpolate(studio(), ends[0], ends[0], n_frames=2))


def test_slerp_keeps_the_norm_and_divides_the_angle():
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    third = slerp(a, b, 1 / 3)
    torch.testing.assert_close(third, torch.tensor([math.cos(math.pi / 6), math.sin(math.pi / 6)]))
    assert slerp(a, b, 0.0) is a
    assert slerp(a, b, 1.0) is b
    torch.testing.assert_close(slerp(a, a * (1 + 1e-7), 0.5), a)


def test_frames_a_strip_and_a_gif_are_written(tmp_path):
    one = studio()
    frames = list(interpolate(one, BEAR, BOWL, n_frames=4))
    paths = save_frames(one, frames, (BEAR, BOWL), n_frames=4, out=tmp_path)
    names = ["000.png", "001.png", "002.png", "003.png", "strip.png", "interpolation.gif"]
    assert [path.name for path in paths] == names
    told = read_record(paths[3])
    assert told["share"] == 1.0
    assert (told["width"], told["height"]) == (64, 64)
    assert read_record(paths[0])["ends"][1]["prompt"] == BOWL.prompt
    with Image.open(paths[-1]) as gif:
        assert gif.n_frames == 6
        assert gif.size == (64, 64)


def test_a_frame_says_how_much_its_ends_weigh(tmp_path):
    one = studio()
    (name,) = [loaded.name for loaded in one.adapters]
    ends = (replace(BEAR, weight=0.25), replace(BEAR, weight=((name, 0.75),), is_base=True))
    frames = [np.zeros((64, 64, 3), np.uint8)] * 2
    first, last = read_record(save_frames(one, frames, ends, n_frames=2, out=tmp_path)[0])["ends"]
    assert (first["weight"], first.get("is_base")) == (0.25, None)
    assert (last["weights"], last["is_base"]) == ({name: 0.75}, True)


def test_what_was_drawn_before_an_interruption_is_kept_and_taken_up(tmp_path):
    one = studio()
    frames = list(interpolate(one, BEAR, BOWL, n_frames=4))

    def interrupted():
        yield from frames[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_frames(one, interrupted(), (BEAR, BOWL), n_frames=4, out=tmp_path)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.png")}
    assert sorted(path.name for path in kept) == ["000.png", "001.png"]
    paths = save_frames(one, frames, (BEAR, BOWL), n_frames=4, out=tmp_path)
    assert [path.name for path in paths[:2]] == ["000.png", "001.png"]
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert len(list(tmp_path.iterdir())) == 6


def test_ends_are_made_from_a_template():
    one = studio()
    (name,) = [loaded.name for loaded in one.adapters]
    template = Request("a {} on grass", 3)
    first, last = make_ends(one, template, ("<bear>", "<bowl>"), weights=((0.5,), ()))
    assert first == Request("a <bear> on grass", 3, weight=((name, 0.5),))
    assert last == Request("a <bowl> on grass", 3)
    assert make_ends(one, template, ("a", "b"), seed=9)[1] == Request("a b on grass", 9)


def test_mistakes_are_told():
    one = studio()
    with pytest.raises(CreationError, match="at least 2"):
        list(interpolate(one, BEAR, BOWL, n_frames=1))
    with pytest.raises(CreationError, match="no such adapter"):
        list(interpolate(one, BEAR, Request("a", weight=(("other", 1.0),)), n_frames=2))
    with pytest.raises(CreationError, match="one weight an adapter"):
        make_ends(one, Request("{}"), ("a", "b"), weights=((1.0, 0.0), ()))
    with pytest.raises(CreationError, match="no place for the ends"):
        make_ends(one, Request("a"), ("a", "b"))
