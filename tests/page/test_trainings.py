import os
import sys
import threading

import pytest

from lora_scene.errors import FileError, RecipeError, TrainingError
from lora_scene.files import write_json
from lora_scene.learning.run_lines import RunLines
from lora_scene.page.course import progress_of
from lora_scene.page.desk import Work
from lora_scene.page.trainings import LOG, ORDER, Order, Trainings

WAITS = "import signal, sys; signal.signal(15, lambda *a: sys.exit(143)); print('note: here', "
WAITS += "flush=True); signal.pause()"


@pytest.fixture
def works(tmp_path):
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    return [Work(folder) for folder in folders]


@pytest.fixture
def trainings(works, monkeypatch):
    """Trainings whose processes wait for a signal."""
    monkeypatch.setattr(Order, "command", lambda self, work: [sys.executable, "-c", WAITS])
    changed = threading.Event()
    queue = Trainings(lambda: works, changed.set)

    def until(is_so):
        for _ in range(200):
            if is_so():
                return
            changed.wait(0.1)
            changed.clear()
        raise AssertionError("it never came")

    yield queue, until
    queue.close()
    for work in works:
        queue.pause(work)


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in waits for a signal of POSIX")
def test_one_trains_the_next_waits_and_takes_its_place(works, trainings):
    queue, until = trainings
    first, second = works
    queue.ask(first, "mini", "mini", ["phase2.steps=3"])
    until(lambda: progress_of(first).notes == ("here",))
    queue.ask(second, "mini", "mini", [])
    assert progress_of(second).state == "waiting"
    assert queue.place(second) == 1
    with pytest.raises(TrainingError, match="in the queue already"):
        queue.ask(first, "mini", "mini", [])
    queue.pause(first)
    until(lambda: progress_of(second).notes == ("here",))
    assert progress_of(first).state == "paused"
    queue.pause(second)
    until(lambda: progress_of(second).state == "paused")


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in waits for a signal of POSIX")
def test_what_cannot_be_started_is_told_and_the_next_begins(works, trainings, monkeypatch):
    queue, until = trainings
    first, second = works
    waits = Order.command

    def command(order, work):
        return ["/no/such/python"] if work is first else waits(order, work)

    monkeypatch.setattr(Order, "command", command)
    queue.ask(first, "mini", "mini", [])
    queue.ask(second, "mini", "mini", [])
    until(lambda: progress_of(second).notes == ("here",))
    assert progress_of(first).state == "failed"
    assert "/no/such/python" in progress_of(first).error
    queue.pause(second)
    until(lambda: progress_of(second).state == "paused")


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in waits for a signal of POSIX")
def test_where_nobody_can_note_that_a_training_runs_none_begins_and_that_is_told(
    works, trainings, monkeypatch
):
    queue, until = trainings
    work, disk = works[0], {"is_full": False}

    def write(path, value):
        if disk["is_full"]:
            raise FileError("the disk is full", where=path)
        disk["is_full"] = True  # after what was asked for
        return write_json(path, value)

    monkeypatch.setattr("lora_scene.page.trainings.write_json", write)
    queue.ask(work, "mini", "mini", [])
    until(lambda: "the disk is full" in queue.fault)
    assert progress_of(work).state == "waiting"
    assert not (work.folder / LOG).exists()
    monkeypatch.setattr("lora_scene.page.trainings.write_json", write_json)
    until(lambda: progress_of(work).state == "running" and not queue.fault)
    queue.pause(work)
    until(lambda: progress_of(work).state == "paused")


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in waits for a signal of POSIX")
@pytest.mark.parametrize("damaged", ["{", '{"recipe": "mini", "base": "mini", "pid": "7"}'])
def test_a_damaged_order_stops_no_other_training(works, trainings, damaged):
    queue, until = trainings
    first, second = works
    (first.folder / ORDER).write_text(damaged)
    queue.ask(second, "mini", "mini", [])
    assert queue.place(second) == 0
    until(lambda: progress_of(second).notes == ("here",))
    with pytest.raises(TrainingError, match=ORDER):
        progress_of(first)
    (first.folder / ORDER).unlink()
    queue.pause(second)
    until(lambda: progress_of(second).state == "paused")


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in waits for a signal of POSIX")
def test_a_double_click_on_pause_sends_one_signal(works, trainings, monkeypatch):
    queue, until = trainings
    sent, kill = [], os.kill
    monkeypatch.setattr(os, "kill", lambda *signalled: sent.append(signalled))
    queue.ask(works[0], "mini", "mini", [])
    until(lambda: progress_of(works[0]).notes == ("here",))
    for _ in range(2):
        queue.pause(works[0])
    assert len(sent) == 1, "a second one would stop the step at once"
    kill(*sent[0])
    until(lambda: progress_of(works[0]).state == "paused")


def test_wrong_settings_are_refused_before_anything_waits(works, trainings):
    queue, _ = trainings
    with pytest.raises(RecipeError, match="phase2"):
        queue.ask(works[0], "mini", "mini", ["phase2.steps=many"])
    assert progress_of(works[0]).state == "none"


def test_what_stopped_a_training_is_told_in_its_own_words(works):
    work = works[0]
    order = Order("mini", "mini", steps=(10, 30), pid=2**22 + 1, started=1.0, code=1)
    write_json(work.folder / ORDER, vars(order))
    (work.folder / LOG).write_text("note: a\nerror: the disk is full\n  hint:     free some\n")
    work.adapter.mkdir()
    kept = work.adapter / "losses.jsonl"
    RunLines(kept).append({"phase": 1, "step": 10, "seconds": 9.0, "diffusion": 0.5})
    RunLines(kept).append({"phase": 2, "step": 10, "seconds": 0.5, "diffusion": 0.25})
    kept.write_text(kept.read_text() + '{"phase": 2, "st')  # as a kill leaves it
    found = progress_of(work)
    assert found.state == "failed"
    assert found.error == "the disk is full\n  hint:     free some"
    assert (found.done, found.seconds_left) == (0.5, 10.0)
