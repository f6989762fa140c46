from __future__ import annotations

import numpy as np
import pytest
import torch

from lora_scene.creating import steering
from lora_scene.creating.choices import AdapterChoice
from lora_scene.creating.encoding import encode_prompts
from lora_scene.creating.generation import draw
from lora_scene.creating.records import parse_record
from lora_scene.creating.rendering import render
from lora_scene.creating.requests import Control, Place, Request, Sampling
from lora_scene.creating.sampling import denoise, start_noise
from lora_scene.creating.steering import (
    MOVE,
    PlaceGuide,
    attention_bias,
    box_cells,
    inside_share,
    moved,
    steered,
)
from lora_scene.errors import CreationError
from lora_scene.size import Size
from tests import tiny
from tests.adapters import made
from tests.creating.studios import HANDLES, QUIET, assemble_studio, studio

pytestmark = pytest.mark.filterwarnings(QUIET)

PROMPT = "a photo of <bear> and <bowl>"
LEFT = Place("<bear>", (0.0, 0.0, 0.5, 1.0))


def test_a_place_is_read_with_or_without_brackets():
    assert Place.parse("bear=0.1,0.5,0.5,1.0") == Place("<bear>", (0.1, 0.5, 0.5, 1.0))
    assert Place.parse("<my-mug>=0,0,.5,1") == Place("<my-mug>", (0.0, 0.0, 0.5, 1.0))


@pytest.mark.parametrize(
    "text", ["bear", "bear=0,0,1", "bear=0.5,0,0.5,1", "bear=0,0,1,1.2", "bear=0.1.2,0,1,1"]
)
def test_what_is_no_box_is_refused(text):
    with pytest.raises(CreationError, match=r"bear=0.1,0.5,0.5,1.0"):
        Place.parse(text)


def test_a_box_holds_the_cells_whose_centres_it_holds_and_at_least_one():
    cells = box_cells(Place("<bear>", (0.25, 0.5, 0.75, 1.0)), Size(8, 4))
    expected = torch.zeros(4, 8)
    expected[2:, 2:6] = 1
    assert torch.equal(cells, expected)
    assert box_cells(Place("<bear>", (0.30, 0.30, 0.31, 0.31)), Size(4, 4)).sum() == 1


def test_the_share_inside_is_the_maps_sum_in_the_box_over_its_whole():
    maps = torch.arange(16.0).view(1, 4, 4)
    share = inside_share(maps, box_cells(LEFT, Size(4, 4)))
    assert share.item() == pytest.approx((0 + 1 + 4 + 5 + 8 + 9 + 12 + 13) / 120)


def test_a_handle_is_gated_out_of_its_box_and_an_emphasis_multiplies_its_attention():
    control = Control(places=(LEFT,), emphases=(("<bowl>", 2.0), ("<cup>", 0.0)))
    factors = attention_bias(control, [[[1], [2, 3], [4]]], 6, Size(2, 1)).exp()
    expected = torch.tensor([[[1.0, 1.0, 2.0, 2.0, 0.0, 1.0], [1.0, 0.0, 2.0, 2.0, 0.0, 1.0]]])
    torch.testing.assert_close(factors, expected, atol=1e-3, rtol=1e-6)


def test_a_move_goes_against_the_gradient_and_keeps_the_norm():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 4, 8, 8, generator=generator)
    gradient = torch.randn(2, 4, 8, 8, generator=generator) * 1e-6
    there = moved(z, gradient)
    torch.testing.assert_close(there.flatten(1).norm(dim=1), z.flatten(1).norm(dim=1))
    assert ((there - z) * gradient).sum() < 0
    step = (there - z).pow(2).mean().sqrt().item()
    assert step == pytest.approx(MOVE, rel=0.1)


def test_places_are_found_in_16_bits_as_in_32(monkeypatch):
    gradients = []

    def follow(z_t, gradient):
        gradients.append(gradient.float().flatten())
        return moved(z_t, gradient)

    monkeypatch.setattr(steering, "moved", follow)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        pipeline = tiny.pipeline("sd1").to(dtype)
        adapter = made.adapter(pipeline, "sd1", handles=HANDLES)
        one = assemble_studio(pipeline, [AdapterChoice(adapter)])
        asked = Request(
            PROMPT, 3, size=Size(32, 32), sampling=Sampling(1), control=Control(places=(LEFT,))
        )
        done = render(one, [asked])
        assert done.pixels[0].std() > 10
        assert torch.cosine_similarity(gradients[0], gradients[-steering.N_MOVES], dim=0) > 0.998


@pytest.mark.parametrize(
    ("family", "scheduler", "size"),
    [
        *((family, "base", Size(64, 64)) for family in tiny.FAMILIES),
        ("sd1", "euler", Size(96, 64)),
        ("sdxl", "base", Size(48, 80)),
    ],
)
def test_guiding_raises_the_share_of_the_handles_attention_in_its_box(family, scheduler, size):
    one = studio(family)
    text = encode_prompts(one, [PROMPT] * 2, [""] * 2)
    sampling = Sampling(2, 3.0, scheduler)
    shares = {}
    for n_moves in (0, 8):
        start = start_noise(one, (1, 2), size)
        control = Control(places=(LEFT,))
        prompts, cells = [PROMPT] * 2, size.cells(4)
        with steered(one, prompts, control, text=text, latents=cells) as (guide,):
            guide.n_moves = n_moves
            denoise(one, text, start, sampling=sampling, guides=[guide])
            shares[n_moves] = guide.shares[0].mean().item()
    assert shares[8] > shares[0] + 0.01, shares


def test_only_the_first_third_of_the_steps_is_moved(monkeypatch):
    steps = []

    def gradient(self, z_t, step):
        steps.append(step.index)
        return z_t

    monkeypatch.setattr(PlaceGuide, "gradient", gradient)
    one, size = studio(), Size(32, 32)
    text, control = encode_prompts(one, [PROMPT], [""]), Control(places=(LEFT,))
    with steered(one, [PROMPT], control, text=text, latents=size.cells(4)) as (guide,):
        start = start_noise(one, (1,), size)
        denoise(one, text, start, sampling=Sampling(7, 1.0), guides=[guide])
    assert steps == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_a_placed_picture_can_be_drawn_by_name_and_is_deterministic():
    one = studio("sdxl")
    control = Control(places=(Place.parse("BEAR=0,0,0.5,0.5"),))
    request = Request(PROMPT, sampling=Sampling(3), control=control)
    (first,) = [picture for _, picture in draw(one, [request])]
    (again,) = [picture for _, picture in draw(one, [request])]
    (free,) = [picture for _, picture in draw(one, [Request(PROMPT, sampling=Sampling(3))])]
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert not np.array_equal(first.pixels, free.pixels)
    assert first.record["places"] == {"<bear>": [0.0, 0.0, 0.5, 0.5]}
    assert 0 < first.record["inside"]["<bear>"] < 1
    assert parse_record(first.record).request.control == Control(
        places=(Place("<bear>", (0.0, 0.0, 0.5, 0.5)),)
    )


def test_placing_leaves_no_gradient_on_the_base():
    one = studio()
    control = Control(places=(LEFT,))
    list(draw(one, [Request(PROMPT, sampling=Sampling(2), control=control)]))
    assert all(parameter.grad is None for parameter in one.backbone.unet.parameters())


def test_a_handle_that_the_prompt_leaves_out_cannot_be_placed():
    control = Control(places=(LEFT,))
    with pytest.raises(CreationError, match="does not name <bear>"):
        list(draw(studio(), [Request("a photo of <bowl>", control=control)]))
    stranger = Control(places=(Place("<cup>", (0, 0, 1, 1)),))
    with pytest.raises(CreationError, match="no adapter knows the handle"):
        list(draw(studio(), [Request(PROMPT, control=stranger)]))
