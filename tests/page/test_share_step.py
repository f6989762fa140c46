from importlib import resources
from types import SimpleNamespace

import gradio as gr
import pytest

from lora_scene.adapters.folder import save_adapter
from lora_scene.learning.runs import SUMMARY
from lora_scene.page import share_step
from lora_scene.page.desk import Desk
from lora_scene.page.share_step import ShareStep
from tests import tiny
from tests.adapters import made

DEMO = resources.files("lora_scene.scenes") / "demo"


@pytest.fixture
def desk(tmp_path):
    """Two works with an adapter each; the second is at hand."""
    desk, adapter = Desk(tmp_path / "out"), made.adapter(tiny.pipeline(), "sd1")
    for name in ("first", "second"):
        desk.begin_scene(DEMO, name)
        save_adapter(adapter, desk.need().adapter)
        (desk.need().adapter / SUMMARY).write_text("{}")
    return desk


@pytest.fixture
def step(desk):
    """The step without the page around it, which would begin a server's loop."""
    step = ShareStep.__new__(ShareStep)
    step._desk, step._told, step._looked = desk, None, None
    for name in ("export", "verify", "files", "checks", "card", "uploads", "push"):
        setattr(step, name, gr.HTML(elem_id=name))
    return step


def test_only_what_was_shown_is_published(desk, step, monkeypatch):
    sent = []

    def publish(stage, repo, *, private):
        sent.append((repo, "first" in (stage / "README.md").read_text()))
        return SimpleNamespace(files=("a",), url="hub/a")

    monkeypatch.setattr(share_step, "publish", publish)
    said = ("", "", "mit", "me/bear")
    step._dry_run(*said)
    assert step.shown()[step.push]["interactive"]
    desk.open("first")
    assert not step.shown()[step.push]["interactive"]
    for other in (said, ("", "", "mit", "me/bowl")):
        with pytest.raises(share_step.AdapterError, match="not what was shown"):
            step._push(*other, private=True)
        step._dry_run(*said)
    step._push(*said, private=True)
    assert sent == [("me/bear", True)]
    assert not step.shown()[step.push]["interactive"]


def test_what_is_told_of_one_work_is_not_shown_beside_another(desk, step):
    assert "second" in step._preview("", "", "mit", "")[step.card]
    assert step.card not in step.shown()
    desk.open("first")
    assert step.shown()[step.card] == ""
