from dataclasses import replace
from importlib import resources

import numpy as np
import pytest

from lora_scene.errors import SceneError
from lora_scene.page.brush import ADDS, Brush
from lora_scene.page.desk import Desk
from lora_scene.page.things_step import ThingsStep
from lora_scene.recipe import load_recipe

DEMO = resources.files("lora_scene.scenes") / "demo"


@pytest.fixture
def step(tmp_path):
    """The step without the page around it."""
    step = ThingsStep.__new__(ThingsStep)
    step._desk, step._brushed, step.brush = Desk(tmp_path / "out"), None, Brush("a", takes=True)
    return step


def stroke(desk, row):
    layer = np.zeros((*desk.draft.photos[0].shape[:2], 4), dtype=np.uint8)
    layer[row] = (*ADDS, 255)
    return {"background": None, "layers": [layer], "composite": None}


def test_strokes_change_the_thing_that_they_were_painted_for(step):
    desk = step._desk
    desk.begin_scene(DEMO, "demo")
    step._load()
    desk.change(replace(desk.draft, thing=1))  # in another tab, or before the strokes are kept
    before = desk.draft
    with pytest.raises(SceneError, match="of another thing or photo"):
        step._keep(stroke(desk, 0))
    assert desk.draft is before
    desk.change(replace(desk.draft, thing=0).renamed(0, "<fir>", "tree"))
    step._keep(stroke(desk, 0))
    assert [bool((one.found[0].shown[0] == 1).all()) for one in desk.draft.things[:2]] == [
        True,
        False,
    ]
    desk.begin_scene(DEMO, "another")
    with pytest.raises(SceneError, match="of another thing or photo"):
        step._keep(stroke(desk, 1))


@pytest.mark.parametrize("click", [lambda step: step._load(), lambda step: step._keep(None)])
def test_a_brush_without_a_photo_says_so(step, click):
    with pytest.raises(SceneError, match="no photo yet"):
        click(step)


def test_a_thing_that_training_would_refuse_is_told_beside_the_photo(step):
    desk, step._recipe = step._desk, load_recipe("mini")
    desk.begin_scene(DEMO, "demo")
    assert "training refuses" not in step._report(desk.draft)
    nothing = np.zeros(desk.draft.photos[0].shape[:2], dtype=bool)
    told = step._report(desk.draft.touched(nothing))
    assert "too little of &lt;pineapple&gt; is left" in told
