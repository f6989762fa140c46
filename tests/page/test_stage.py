"""What goes wrong is said on the page as the command line says it, and nothing is lost."""

import sys
from importlib import resources

import gradio as gr
import pytest

from lora_scene.adapters.folder import read_adapter, save_adapter
from lora_scene.cli.main import main
from lora_scene.files import write_json
from lora_scene.page.course import progress_of
from lora_scene.page.desk import Desk
from lora_scene.page.stage import Stage
from lora_scene.page.trainings import LOG, ORDER, Order
from tests import tiny
from tests.adapters import made
from tests.test_full_disk import contents, disk_of

DEMO = resources.files("lora_scene.scenes") / "demo"


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path / "out")
    desk.begin_scene(DEMO, "demo")
    return desk


def said_of(desk, work):
    """Return what the page says after a click that does work."""
    clicks = []
    stage = Stage(desk)
    stage.on(lambda click, *rest, **how: clicks.append(click), work)
    return clicks[0]()[stage.said]


def test_memory_that_ran_out_is_told_as_that_whoever_says_it(desk, capsys):
    def draw():
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    assert "the memory ran out" in said_of(desk, draw)
    assert said_of(desk, desk.undo) == ""


@pytest.mark.parametrize("work", ["begin", "change", "undo", "start"])
def test_a_full_disk_is_told_and_what_was_there_stays(desk, tmp_path, work):
    def start():
        desk.write_scene()

    desk.change(desk.draft.renamed(0, "<fir>", "tree"))
    before, draft, folder = contents(desk.out), desk.draft, desk.need()
    works = {
        "begin": lambda: desk.begin([DEMO / "img.png"]),
        "change": lambda: desk.change(draft.without(0)),
        "undo": desk.undo,
        "start": start,
    }
    with disk_of(300):
        assert "larger than a file may become here" in said_of(desk, works[work])
    assert (desk.work, desk.draft) == (folder, draft)
    assert contents(desk.out) == before
    assert said_of(desk, works[work]) == "", "the same click works once there is space"


def test_a_base_that_is_missing_is_told_in_the_words_of_the_command_line(
    desk, tmp_path, monkeypatch, capsys
):
    work = desk.write_scene()
    order = Order("mini", str(tmp_path / "nowhere"), pid=2**22 + 1, started=1.0, code=1)
    words = ["lora-scene", *order.command(work)[3:]]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    told = capsys.readouterr().err
    (work.folder / LOG).write_text(told)
    write_json(work.folder / ORDER, vars(order))
    found = progress_of(work)
    assert found.state == "failed"
    assert "nowhere" in found.error
    assert told.strip().endswith(found.error)


@pytest.mark.parametrize(
    ("name", "mode"),
    [("click", "once"), ("submit", "once"), ("input", "multiple"), ("", "multiple")],
)
def test_a_double_click_is_one_click_and_every_choice_counts(desk, name, mode):
    modes = []

    def event(*given, **how):
        modes.append(how["trigger_mode"])

    event.event_name = name
    Stage(desk).on(event, desk.undo)
    assert modes == [mode]


class HandlesStep:
    """A step that shows the handles of the work at hand, as that of pictures does."""

    def __init__(self, desk):
        self.desk, self.chips = desk, gr.HTML("")
        self.outputs = [self.chips]

    def shown(self):
        return {self.chips: " ".join(read_adapter(self.desk.need().adapter).handles)}


def test_a_work_whose_adapter_is_damaged_is_told_and_another_can_be_opened(desk):
    adapter = made.adapter(tiny.pipeline(), "sd1")
    for name in ("good", "bad"):
        desk.begin_scene(DEMO, name)
        save_adapter(adapter, desk.need().adapter)
    (desk.need().adapter / "embeddings" / "bowl.safetensors").unlink()
    clicks, stage, step = [], Stage(desk), HandlesStep(desk)
    stage.steps = [step]
    for work in (lambda: desk.open("bad"), lambda: desk.open("good")):
        stage.on(lambda click, *rest, **how: clicks.append(click), work)
    told = clicks[0]()
    assert "embedding of &lt;bowl&gt; is missing" in told[stage.said]
    assert told[step.chips]["value"] is None, "nothing of another work stays"
    assert "bad" in told[stage.masthead]
    assert stage.shown()[stage.said] == told[stage.said], "also as the page opens"
    told = clicks[1]()
    assert told[stage.said] == ""
    assert told[step.chips] == "<bear> <bowl>"
