"""Decomposition and variations."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from lora_scene.creating.arrangements import (
    fitting_parts,
    parts_sheet,
    plan_parts,
    plan_variations,
    random_places,
    variations_sheet,
)
from lora_scene.creating.choices import AdapterChoice
from lora_scene.creating.generation import draw
from lora_scene.creating.requests import Control, Place, Request, Sampling
from lora_scene.errors import CreationError, LoraSceneWarning
from lora_scene.size import Size
from tests import tiny
from tests.adapters import made
from tests.creating.studios import assemble_studio, studio

QUICK = Request("", seed=4, sampling=Sampling(1, 3.0))


def test_a_scene_comes_apart_into_things_background_and_all_together():
    parts = plan_parts(studio(), seeds=(1, 2), default=QUICK)
    labels = [part.label for part in parts]
    assert labels == ["<bear> noun 0", "<bowl> noun 1", "<bear> and <bowl>"]
    assert [request.seed for request in parts[0].requests] == [1, 2]
    assert parts[2].requests[0].prompt == "a photo of <bear> and <bowl>"
    assert {request.negative for part in parts for request in part.requests} == {""}


def test_things_that_do_not_fit_into_one_prompt_by_the_tokenizer_are_drawn_alone():
    one = studio(n_vectors=8)  # of 22 tokens: the tiny tokenizer spells what it does not know
    fine = plan_parts(one, default=QUICK, template="a photo of {} ox")  # 3 + 8 + 1 + 8 + 2
    assert fitting_parts(one, fine) == fine
    long = plan_parts(one, default=QUICK, template="a photo of {} fur")
    with pytest.warns(LoraSceneWarning, match="<bear> and <bowl>: they do not fit into one"):
        assert fitting_parts(one, long) == long[:2]
    with pytest.raises(CreationError, match=r"too long(.|\n)*at most 22(.|\n)*got: +23; lost"):
        list(draw(one, long[2].requests))


def test_parts_and_variations_have_the_shape_of_the_photo_that_was_learnt():
    pipeline = tiny.pipeline("sd1")
    own = made.adapter(pipeline, "sd1", handles=("<bear>", "<bowl>"))
    wide = replace(own, info=replace(own.info, sizes=(Size(96, 64), Size(64, 64))))
    one = assemble_studio(pipeline, [AdapterChoice(wide)], name="tiny")
    asked = replace(QUICK, size=Size(64, 128))
    for default, size in ((QUICK, (96, 64)), (asked, (64, 128))):
        assert plan_parts(one, default=default)[0].requests[0].size == size
        assert plan_variations(one, 1, default=default)[0].size == size
    assert plan_variations(studio(), 1, default=QUICK)[0].size is None
    assert wide.info.told_sizes == "96x64, 64x64 px"
    assert replace(wide.info, sizes=()).told_sizes == "64 px"


def test_places_are_given_or_drawn_and_not_both():
    placed = replace(QUICK, control=Control((Place("<bear>", (0.0, 0.0, 0.5, 0.5)),)))
    assert plan_variations(studio(), 1, default=placed)[0].control == placed.control
    with pytest.raises(CreationError, match="<bear>: places are given, and drawn"):
        plan_variations(studio(), 1, default=placed, is_placed=True)


@pytest.mark.parametrize("asked", ["strengths", "emphases", "places"])
def test_what_is_asked_of_a_handle_that_no_variation_shows_is_refused(asked):
    bear = {"places": (Place("<bear>", (0.0, 0.0, 1.0, 1.0)),)}.get(asked, (("<bear>", 0.5),))
    default = replace(QUICK, control=Control(**{asked: bear}))
    with pytest.raises(CreationError, match="no prompt names <bear>"):
        plan_variations(studio(), 1, default=default, handles=("bowl",))
    assert plan_variations(studio(), 1, default=default, handles=("bear",))


def test_clinging_things_are_named_in_the_negative_prompt():
    default = Request("", negative="dark")
    parts = plan_parts(studio(), default=default, is_apart=True)
    told = [part.requests[0].negative for part in parts]
    assert told == ["dark", "dark, <bear>", "dark"]


def test_parts_are_shown_beside_the_photo():
    photo = np.zeros((64, 64, 3), np.uint8)
    parts = plan_parts(studio(), default=QUICK)
    sheet = parts_sheet(parts, [photo + n for n in range(3)], photo)
    assert sheet.width == 4 * (192 + 6) + 6


def test_variations_keep_the_concepts_and_change_order_noise_and_boxes():
    planned = plan_variations(studio(), 6, default=QUICK, is_placed=True)
    assert [request.seed for request in planned] == [4, 5, 6, 7, 8, 9]
    assert all("<bear>" in request.prompt for request in planned)
    assert all(request.prompt.endswith("<bowl>") for request in planned)
    assert len({request.control for request in planned}) == 6
    assert plan_variations(studio(), 3, default=QUICK, is_placed=True) == planned[:3]


def test_boxes_lie_in_the_picture_beside_each_other():
    for seed in range(20):
        places = random_places(["<a>", "<b>", "<c>"], np.random.default_rng(seed))
        for place in places:
            left, top, right, bottom = place.box
            assert 0 <= left < right <= 1
            assert 0 <= top < bottom <= 1
        for before, after in pairwise(places):
            assert before.box[2] <= after.box[0] + 1e-3


def test_variations_are_shown_on_a_sheet_with_the_photo_first():
    planned = plan_variations(studio(), 5, handles=["bear", "<Bear>"], default=QUICK)
    assert {one.prompt for one in planned} == {"a photo of <bear>"}
    assert [request.prompt for request in planned] == ["a photo of <bear>"] * 5
    photo = np.zeros((64, 64, 3), np.uint8)
    assert variations_sheet([photo] * 5, photo).height == 2 * (192 + 6)


def test_parts_are_asked_only_of_the_handles_that_they_name():
    one = studio()
    control = Control((Place("bear", (0.0, 0.0, 0.5, 1.0)),), (), (("bowl", 2.0),))
    parts = plan_parts(one, default=replace(QUICK, control=control))
    asked = [part.requests[0].control.handles for part in parts]
    assert asked == [("<bear>",), ("<bowl>",), ("<bear>", "<bowl>")]
    requests = [request for part in parts for request in part.requests]
    assert len(list(draw(one, requests))) == 3


@pytest.mark.parametrize("plan", [plan_parts, lambda one, **k: plan_variations(one, 2, **k)])
def test_mistakes_are_told(plan):
    with pytest.raises(CreationError, match="no adapter is loaded"):
        plan(assemble_studio(tiny.pipeline("sd1")))
    with pytest.raises(CreationError, match="no place for the handles"):
        plan(studio(), template="a photo")


def test_unknown_handles_cannot_be_arranged():
    with pytest.raises(CreationError, match="did you mean <bear>"):
        plan_variations(studio(), 2, handles=["baer"])
