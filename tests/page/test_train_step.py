from dataclasses import replace
from importlib import resources

import gradio as gr
import numpy as np
import pytest

from lora_scene.errors import SceneError
from lora_scene.files import write_json
from lora_scene.learning.runs import CHECKPOINT, SUMMARY
from lora_scene.page.asked import table_of
from lora_scene.page.desk import Desk
from lora_scene.page.train_step import TrainStep
from lora_scene.page.trainings import ORDER, Order
from lora_scene.recipe import load_recipe
from lora_scene.scenes.scene import load_scene

DEMO = resources.files("lora_scene.scenes") / "demo"
ASKED = ("mini", "mini", 2, 4, 0, 0, table_of(load_recipe("mini")))


class Queue:
    """Trainings that are asked for, and never begin."""

    def __init__(self):
        self.asked = []

    def ask(self, work, recipe, base, settings):
        self.asked.append(work.name)
        write_json(work.folder / ORDER, vars(Order(recipe, base, tuple(settings))))

    def place(self, work):
        return 0


@pytest.fixture
def step(tmp_path):
    """The step without the page around it, at the demo's scene."""
    step = TrainStep.__new__(TrainStep)
    step._desk, step._trainings = Desk(tmp_path / "out"), Queue()
    step._weighed, step._plotted, step._trainings.fault = None, ("", ""), ""
    step.wishes = [gr.Button(), gr.Button()]
    for name in ("estimate", "status", "start", "pause", "resume", "plot", "maps", "samples", "go"):
        setattr(step, name, gr.HTML(elem_id=name))
    step._desk.begin_scene(DEMO, "demo")
    return step


def covered_up(draft):
    """Return a draft whose first thing is painted out."""
    nothing = np.zeros(draft.photos[0].shape[:2], dtype=bool)
    return replace(draft, thing=0).touched(nothing)


def test_a_thing_that_covers_nothing_is_refused_before_it_is_trained(step):
    (step._desk.need().adapter).mkdir()
    (step._desk.need().adapter / SUMMARY).write_text("{}")
    step._desk.change(covered_up(step._desk.draft))
    with pytest.raises(SceneError, match="too little of <pineapple> is left"):
        step._start(*ASKED)
    assert step._trainings.asked == []
    assert step._desk.names() == ["demo"], "nothing new begins either"


@pytest.mark.parametrize("has_checkpoint", [False, True])
def test_a_training_that_learnt_nothing_yet_goes_on_with_the_mended_scene(step, has_checkpoint):
    step._start(*ASKED)
    desk = step._desk
    if has_checkpoint:
        (desk.need().adapter / CHECKPOINT).parent.mkdir(parents=True)
        (desk.need().adapter / CHECKPOINT).write_bytes(b"")
    desk.change(covered_up(desk.draft))
    if not has_checkpoint:
        with pytest.raises(SceneError, match="too little of <pineapple> is left"):
            step._resume()
    desk.change(desk.draft.without(0))
    step._resume()
    assert step._trainings.asked == ["demo", "demo"]
    handles = load_scene(desk.need().scene).handles
    assert ("<pineapple>" in handles) == has_checkpoint


def test_an_estimate_of_other_things_does_not_stay(step):
    assert "GB at most" in step._weigh(*ASKED)
    assert step.estimate not in step.shown()
    step._desk.change(step._desk.draft.without(0))
    assert step.shown()[step.estimate] == ""
    step._weigh(*ASKED)
    assert step.estimate not in step.shown()
