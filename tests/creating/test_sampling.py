from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from lora_scene.backbones.backbone import Backbone
from lora_scene.creating.encoding import encode_prompts
from lora_scene.creating.names import unknown_handle
from lora_scene.creating.requests import Sampling
from lora_scene.creating.sampling import _begin, check_size, decode, denoise, start_noise
from lora_scene.creating.schedulers import OWN, SAMPLERS, make_scheduler
from lora_scene.errors import CreationError
from lora_scene.size import Size
from tests import tiny
from tests.creating.studios import QUIET, studio

pytestmark = pytest.mark.filterwarnings(QUIET)

PROMPT = "a photo of <bear> and <bowl>"


def drawn(one, *, seeds=(3,), prompt=PROMPT, negative="", sampling=None, size=(64, 64)):
    text = encode_prompts(one, [prompt] * len(seeds), [negative] * len(seeds))
    start = start_noise(one, seeds, size)
    return decode(one, denoise(one, text, start, sampling=sampling or Sampling(3)))


def stock(one, *, seeds=(3,), prompt=PROMPT, negative=None, sampling=None, size=(64, 64)):
    sampling = sampling or Sampling(3)
    kept = one.pipeline.scheduler
    one.pipeline.scheduler = make_scheduler(kept, sampling.scheduler)
    try:
        images = one.pipeline(
            [prompt] * len(seeds),
            negative_prompt=negative and [negative] * len(seeds),
            num_inference_steps=sampling.n_steps,
            guidance_scale=sampling.guidance or one.backbone.usual_guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            width=size[0],
            height=size[1],
        ).images
    finally:
        one.pipeline.scheduler = kept
    return [np.asarray(image) for image in images]


def assert_same(ours, theirs, *, atol=0):
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.astype(int), other.astype(int), atol=atol, rtol=0)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_picture_equals_the_stock_pipelines(family):
    one = studio(family)
    assert_same(drawn(one), stock(one))
    wide = {"size": (96, 64), "negative": "a red cat"}
    assert_same(drawn(one, **wide), stock(one, **wide))


def test_a_batch_differs_from_the_stock_pipelines_by_the_decoders_rounding_alone():
    one = studio("sdxl")
    assert_same(drawn(one, seeds=(1, 2)), stock(one, seeds=(1, 2)), atol=1)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_every_scheduler_gives_the_stock_pipelines_picture(family, name):
    sampling = Sampling(4, 3.0, name)
    one = studio(family)
    settings = {"sampling": sampling}
    assert_same(drawn(one, **settings), stock(one, **settings))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_without_guidance_only_the_prompt_is_read(family):
    one = studio(family)
    plain = Sampling(2, 1.0)
    assert_same(drawn(one, sampling=plain), stock(one, sampling=plain))
    assert_same(drawn(one, sampling=plain), drawn(one, sampling=plain, negative="a dog"))


def test_a_handle_of_several_vectors_is_expanded_as_the_stock_pipeline_does():
    one = studio("sdxl", n_vectors=3)
    assert_same(drawn(one), stock(one))


def test_noise_comes_from_the_pictures_own_seed_whatever_batch_it_is_in():
    one = studio()
    alone = start_noise(one, [7], (64, 64)).eps
    among = start_noise(one, [1, 7, 9], (64, 64)).eps
    assert torch.equal(alone[0], among[1])
    assert not torch.equal(among[0], among[1])


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not():
    one = studio()
    assert_same(drawn(one), drawn(one))
    assert not np.array_equal(drawn(one)[0], drawn(one, seeds=(4,))[0])


@pytest.mark.parametrize(("strength", "n"), [(0.5, 3), (0.95, 5), (0.01, 1)])
def test_a_strength_runs_its_share_of_the_steps_from_the_given_latents_and_never_all(strength, n):
    one = studio()
    text = encode_prompts(one, [PROMPT], [""])
    start = start_noise(one, [3], (64, 64))
    z = torch.ones_like(start.eps)
    steps = []

    def tick(done, total):
        steps.append((done, total))

    half = type(start)(start.eps, start.generators, z)
    denoise(one, text, half, sampling=Sampling(6, strength=strength), tick=tick)
    assert steps == [(k, n) for k in range(1, n + 1)]


@pytest.mark.parametrize("strength", [0.3, 0.5, 0.9])
def test_pndm_begun_in_the_middle_leaves_as_little_noise_as_from_the_start(strength):
    """With a model that knows the noise exactly, what is left at the end is the schedule's own."""
    left = []
    for share in (1.0, strength):
        scheduler = make_scheduler(studio().pipeline.scheduler, "pndm")
        timesteps = _begin(scheduler, Sampling(30, strength=share))
        z_t = scheduler.alphas_cumprod[timesteps[0]].neg().add(1).sqrt() * torch.ones(1, 1, 1, 1)
        for t in timesteps:
            z_t = scheduler.step(torch.ones(1, 1, 1, 1), t, z_t).prev_sample
        left.append(float(z_t))
    assert left[1] == pytest.approx(left[0], rel=0.05)


def test_an_unknown_handle_is_refused_with_those_that_there_are():
    with pytest.raises(CreationError, match=r"(?s)<baer>.*<bear> \(noun 0\), <bowl>.*did you mean"):
        encode_prompts(studio(), ["a photo of <baer>"], [""])
    for known in ({}, {"<dog>": "dog"}):
        with pytest.raises(CreationError, match=r"name the folder.*in a base itself"):
            raise unknown_handle("<bear>", known)


def test_a_prompt_that_would_be_cut_off_is_refused():
    with pytest.raises(
        CreationError, match=r"(?s)too long.*at most 22 tokens.*got: +24; lost: 'a a'"
    ):
        encode_prompts(studio(), ["a " * 24], [""])


def test_a_size_that_does_not_divide_is_refused_with_the_nearest_that_does():
    with pytest.raises(CreationError, match=r"(?s)multiples of 32 pixels, such as 64x96.*70x90"):
        check_size(studio(), Size(70, 90))
    assert check_size(studio(), None) == (64, 64)


@pytest.mark.parametrize(("field", "value"), [("n_steps", 0), ("strength", 0.0), ("strength", 1.5)])
def test_settings_out_of_range_are_refused(field, value):
    with pytest.raises(CreationError):
        Sampling(**{field: value})


def test_own_scheduler_is_fresh_each_time():
    base = studio().pipeline.scheduler
    made = make_scheduler(base, OWN)
    assert made is not base
    assert dict(made.config) == dict(base.config)


@pytest.mark.parametrize(("family", "guidance"), [("sd1", 7.5), ("sdxl", 5.0)])
def test_the_usual_guidance_is_the_stock_pipelines_but_for_small_bases(family, guidance):
    pipeline = tiny.pipeline(family)
    assert Backbone(pipeline, name="tiny").usual_guidance == 3.5
    assert Backbone(pipeline, name="tiny", resolution=512).usual_guidance == guidance


@pytest.mark.parametrize(
    ("config", "n_steps"),
    [
        ({"steps_offset": 1}, 1000),  # begins at timestep 1000, which there is not
        ({"timestep_spacing": "trailing"}, 499),  # ends at timestep -1, the schedule's other end
        ({"num_train_timesteps": 500}, 501),
    ],
)
def test_steps_that_leave_the_schedule_are_refused(config, n_steps):
    scheduler = DDIMScheduler(**config)
    with pytest.raises(CreationError, match="cannot take so many steps"):
        _begin(scheduler, Sampling(n_steps))
    assert len(_begin(scheduler, Sampling(30))) == 30
