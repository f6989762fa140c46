from __future__ import annotations

import math

import pytest

from lora_scene.creating.choices import AdapterChoice
from lora_scene.creating.requests import Control, Place, Request, Sampling
from lora_scene.creating.studio import read_cast
from lora_scene.errors import CreationError
from tests import tiny
from tests.adapters import made


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sampling(1001),
        lambda: Sampling(0),
        lambda: Sampling(1, strength=0.9),
        lambda: Sampling(guidance=math.nan),
        lambda: Sampling(guidance=math.inf),
        lambda: Sampling(guidance=2.0**70),
        lambda: Sampling(scheduler="eular"),
        lambda: Request("", seed=-1),
        lambda: Request("", seed=2**63),
        lambda: Request("", weight=math.nan),
        lambda: Request("", weight=(("a", math.inf),)),
        lambda: Request("", weight=-1001.0),
        lambda: AdapterChoice("a", 1e4),
        lambda: Request("", size=(70, 64)),
        lambda: Request("", size=(0, 64)),
        lambda: Request("", size=(64, 10**6)),
        lambda: Control(strengths=(("<bear>", math.nan),)),
        lambda: Control(emphases=(("<bear>", math.inf),)),
        lambda: Place("<bear>", (0.0, 0.0, math.nan, 1.0)),
        lambda: Place("<bear>", (0.5, 0.0, 0.4, 1.0)),
    ],
)
def test_numbers_out_of_range_are_refused_where_they_are_given(make):
    with pytest.raises(CreationError):
        make()


def test_handles_are_looked_at_without_a_base():
    cast = read_cast([made.adapter(tiny.pipeline("sd1"), "sd1", handles=("<bear>", "<bowl>"))])
    place = Control((Place("BEAR", (0, 0, 1, 1)),))
    assert Request("a <bear>", control=place).resolved(cast).control.attended == ("<bear>",)
    for wrong in (
        Request("a <cup>"),
        Request("a <bear>", negative="a <cup>"),
        Request("a <bowl>", control=place),
        Request("a <bear>", control=Control(strengths=(("bear", 1.0), ("<bear>", 2.0)))),
    ):
        with pytest.raises(CreationError):
            wrong.resolved(cast)


def test_settings_fill_what_they_name_and_leave_the_rest():
    default = Request("a", seed=3, size=(64, 96), sampling=Sampling(9, 2.0))
    asked = default.with_settings({"width": 128, "steps": 4, "guidance": None})
    assert asked == Request("a", seed=3, size=(128, 96), sampling=Sampling(4, 2.0))
    assert Request("a").with_settings({"height": 64}).size == (64, 64)
