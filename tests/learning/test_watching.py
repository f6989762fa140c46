"""A run that is watched: what it keeps on the way, what it can be asked, when it ends early."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from accelerate.tracking import GeneralTracker

from lora_scene.adapters.folder import read_adapter
from lora_scene.errors import (
    FileError,
    InterruptedRunError,
    LoraSceneError,
    RecipeError,
    TrainingError,
)
from lora_scene.folder_lock import locked
from lora_scene.learning import asking, run_charts, run_page, samples, training
from lora_scene.learning.events import Looked, Notice, PhaseStarted, Saved, StepDone
from lora_scene.learning.held import map_iou, telling_photos
from lora_scene.learning.interruption import Interruption
from lora_scene.learning.leftovers import forget_tries
from lora_scene.learning.run_charts import draw_losses
from lora_scene.learning.run_lines import RunLines
from lora_scene.learning.run_log import RunLog
from lora_scene.learning.run_page import write_run_page
from lora_scene.learning.run_record import read_run, snapshots_of
from lora_scene.learning.tracking import tracked
from lora_scene.learning.watching import evenly
from tests.learning import made
from tests.prepared import PLOT

WATCHED = ("run.watch=2", "run.snapshots=2", "run.checkpoint_every=1", "run.patience=90")
STEPS = (2, 4)


class KilledError(Exception):
    """What the listener raises in the place of a kill."""


class Spy(GeneralTracker):
    """A tracker that remembers."""

    name = "spy"
    requires_logging_directory = False

    def __init__(self, breaks_at=10**9):
        self.settings, self.values, self.pictures, self.breaks_at = None, {}, {}, breaks_at

    @property
    def tracker(self):
        return self

    def store_init_configuration(self, values):
        self.settings = values

    def log(self, values, step=None, **options):
        if step == self.breaks_at:
            raise OSError("no route to host")
        self.values.setdefault(step, {}).update(values)

    def log_images(self, values, step=None, **options):
        self.pictures.setdefault(step, {}).update(values)


def run_tracked(scene, settings, out, tracker, listen):
    with tracked([tracker], listen, out=out, recipe=settings) as listener:
        return made.run(scene, settings, out, listener=listener)


SPY = Spy()


@pytest.fixture(scope="module")
def watched(bases, scene, tmp_path_factory):
    """Return the folder of a watched and tracked run, its result, and its events."""
    out, events = tmp_path_factory.mktemp("watched"), []
    settings = made.recipe(bases["sd1"], *WATCHED, steps=STEPS)
    with mock.patch.object(run_charts, "_draw", PLOT):
        return out, run_tracked(scene, settings, out, SPY, events.append), events


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_watched_run_ends_bit_for_bit_as_one_that_is_not(watched, bases, scene, tmp_path):
    alone = made.run(scene, made.recipe(bases["sd1"], steps=STEPS), tmp_path)
    made.assert_equal(made.numbers(watched[1]), made.numbers(alone))
    kept = {path.name for path in tmp_path.iterdir()}
    assert not kept & {"run.html", "run.jsonl", "held.jsonl", "maps", "snapshots"}


def test_looks_are_made_at_equal_distances_of_draws_never_trained_on(watched):
    out, _, events = watched
    looks = [(e.phase, e.step) for e in events if isinstance(e, Looked)]
    assert looks == [(1, 0), (1, 1), (1, 2), (2, 2), (2, 4)]
    assert [(line["phase"], line["step"]) for line in lines(out / "held.jsonl")] == looks
    assert all(0 <= iou <= 1 for e in events if isinstance(e, Looked) for iou in e.ious.values())
    assert set(lines(out / "held.jsonl")[0]["ious"]) == {"<bear>", "<bowl>"}


def test_the_last_snapshot_is_what_is_delivered(watched):
    out, result, _ = watched
    kept = snapshots_of(out)
    assert list(kept) == [2, 4]
    last = read_adapter(kept[4])
    made.assert_equal(made.numbers(replace(result, adapter=last)), made.numbers(result))
    assert read_adapter(kept[2]).info.steps == (2, 2)


def test_a_tracker_is_told_what_the_folder_holds(watched):
    out, _, events = watched
    assert SPY.settings["phase2.steps"] == 4
    assert "/" not in SPY.settings["base.model"], "no path of this machine"
    for line in lines(out / "losses.jsonl"):
        told = SPY.values[line["step"] + 2 * (line["phase"] - 1)]
        assert told["loss/diffusion"] == line["diffusion"]
        assert (told["rate/rows"], told["gradient norm"]) == (line["rows_lr"], line["norm"])
        assert told["seconds"] == line["seconds"]
    last = [e for e in events if isinstance(e, Looked)][-1]
    assert SPY.values[6]["held/loss"] == last.loss
    assert SPY.values[6]["held/iou/bear"] == last.ious["<bear>"]
    assert SPY.values[6]["memory/GB"] > 0
    assert list(SPY.pictures) == [0, 1, 2, 4, 6]
    assert {"attention/bear", "attention/bowl"} <= SPY.pictures[6].keys()
    assert SPY.pictures[6]["attention/bear"][0].shape[2] == 3


def test_what_cannot_be_tracked_with_is_refused_before_the_work(tmp_path):
    for name, match in (("mlflow", "pip install mlflow"), ("tensorbord", "did you mean")):
        recipe = made.recipe("nowhere")
        with pytest.raises(TrainingError, match=match):
            run_tracked(None, recipe, tmp_path, name, lambda event: None)


def test_a_signal_that_is_heard_in_a_tracker_stops_the_run(tmp_path):
    class Stopped(Spy):
        def log(self, values, step=None, **options):
            raise InterruptedRunError(2, "the run was stopped at once", "go on")

    told = []
    recipe = made.recipe("nowhere")
    with tracked([Stopped()], told.append, out=tmp_path, recipe=recipe) as listener:
        listener(PhaseStarted(1, 0, 1, 1, 1))
        with pytest.raises(InterruptedRunError):
            listener(StepDone(1, 1, {}, 0.0, 1))
    assert not [event for event in told if isinstance(event, Notice)]


def test_a_killed_run_keeps_the_same_looks_and_snapshots_whatever_its_tracker_does(
    watched, bases, scene, tmp_path
):
    def listen(event):
        is_it = isinstance(event, Saved) and event.what == "checkpoint"
        reached.extend([event] if isinstance(event, StepDone) and event.phase == 2 else [])
        if is_it and len(reached) == 2:
            raise KilledError

    reached: list[StepDone] = []
    settings = made.recipe(bases["sd1"], *WATCHED, steps=STEPS)
    with pytest.raises(KilledError):
        run_tracked(scene, settings, tmp_path, Spy(), listen)
    spy, told = Spy(breaks_at=6), []
    result = run_tracked(scene, settings, tmp_path, spy, told.append)
    assert set(spy.values) == {4, 5}, "a look that the kill left out, and the steps from there on"
    texts = [e.text for e in told if isinstance(e, Notice)]
    assert "spy fails, and is told no more: no route to host" in texts
    made.assert_equal(made.numbers(result), made.numbers(watched[1]))
    assert (tmp_path / "held.jsonl").read_bytes() == (watched[0] / "held.jsonl").read_bytes()
    assert list(snapshots_of(tmp_path)) == [2, 4]
    for step, folder in snapshots_of(watched[0]).items():
        name = "pytorch_lora_weights.safetensors"
        assert (snapshots_of(tmp_path)[step] / name).read_bytes() == (folder / name).read_bytes()


def test_the_page_needs_nothing_else_tells_no_place_and_escapes(
    watched, bases, tmp_path, monkeypatch
):
    monkeypatch.setattr(run_charts, "_draw", PLOT)
    page = (watched[0] / "run.html").read_text("utf-8")
    assert f"{watched[0].name}/checkpoint" in page
    for place in (watched[0], bases["sd1"]):
        assert str(Path(place).parent) not in page
    assert "&lt;bear&gt;" in page
    assert "<bear>" not in page
    for outside in ("http://", "https://", 'src="/', "url("):
        assert outside not in page.replace("http://www.w3.org", ""), outside
    assert "masked loss" in page
    assert 'type="range"' in page
    charts = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)
    assert all(b"<path" in base64.b64decode(chart) for chart in charts)
    assert all(b"mathdefault" not in base64.b64decode(chart) for chart in charts)
    assert len(charts) >= 4
    both = write_run_page(watched[0], watched[0], to=tmp_path / "both.html").read_text("utf-8")
    assert "Side by side" in both
    losses = draw_losses(read_run(watched[0]))
    assert losses.title.startswith("masked loss ")
    assert "<path" in losses.svg


def test_records_that_hold_what_no_run_writes_are_left_out_or_told(tmp_path, monkeypatch):
    """Sealed, as a stranger can; a picture of a broken disk is left out too."""
    monkeypatch.setattr(run_charts, "_draw", PLOT)
    steps, told = RunLines(tmp_path / "losses.jsonl"), RunLines(tmp_path / "run.jsonl")
    steps.append({"phase": 1, "step": 1, "diffusion": 0.5})
    for wrong in ({"phase": 9, "step": 1}, {"phase": 1, "step": 10**400}, {"phase": 1}):
        steps.append(wrong)
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "00001-0.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    run = read_run(tmp_path)
    assert [line["step"] for line in run.steps] == [1]
    assert not run.samples
    write_run_page(tmp_path)
    told.append({"time": "2026-01-01T00:00:00+00:00", "event": "Began", "handles": "<bear>"})
    with pytest.raises(TrainingError, match=r"run\.jsonl: handles: wrong value"):
        write_run_page(tmp_path)


def test_runs_of_one_name_are_told_apart_by_the_folder_above(tmp_path):
    runs = [tmp_path / parent / "adapter" for parent in ("demo-2", "demo-4")]
    for run in runs:
        run.mkdir(parents=True)
        RunLines(run / "losses.jsonl").append({"phase": 1, "step": 1, "diffusion": 0.5})
    page = write_run_page(*runs, to=tmp_path / "both.html").read_text("utf-8")
    assert "<title>demo-2/adapter, demo-4/adapter</title>" in page
    assert page.count("demo-2/adapter</") == 2, "in the table and above its run"
    alone = write_run_page(runs[0]).read_text("utf-8")
    assert "<title>adapter</title>" in alone


def test_a_page_of_somebody_elses_is_refused_before_anything_is_done(bases, scene, tmp_path):
    (tmp_path / "run.html").write_text("mine")
    with pytest.raises(LoraSceneError, match=r"run\.html"):
        made.run(scene, made.recipe(bases["sd1"]), tmp_path)
    assert (tmp_path / "run.html").read_text() == "mine"


def test_a_log_of_somebody_elses_is_not_written_on(bases, scene, tmp_path):
    (tmp_path / "run.jsonl").write_text('{"distance": 5.2}\n')
    with pytest.raises(FileError, match=r"run\.jsonl"):
        made.run(scene, made.recipe(bases["sd1"], "run.watch=1"), tmp_path)
    assert (tmp_path / "run.jsonl").read_text() == '{"distance": 5.2}\n'
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("rest", ['{"time": "2026', '{"phase": 1, "st', '{"ti'])
def test_a_log_whose_first_line_a_kill_cut_is_ours(rest, tmp_path):
    (tmp_path / "run.jsonl").write_text(rest)
    RunLines(tmp_path / "run.jsonl").refuse_foreign()


@pytest.mark.parametrize("anew", [True, False])
def test_what_a_refused_run_told_is_not_told_of_the_next(anew, tmp_path):
    told = tmp_path / "run.jsonl"
    for text in ("20 concepts", "14 concepts"):
        if anew:
            forget_tries(tmp_path)
        log = RunLog(told, lambda event: None)
        log(Notice(text))
        log.open({"scene": "s"})
    assert read_run(tmp_path).notices == ["20 concepts", "14 concepts"][anew:]


def test_a_try_that_left_no_checkpoint_leaves_nothing_to_a_run_of_another_scene(
    bases, scene, tmp_path, monkeypatch
):
    monkeypatch.setattr(samples, "N_STEPS", 1)
    shown = ("run.watch=1", "run.sample_every=1", "run.checkpoint_every=0")
    photos = tuple(replace(one, pixels=255 - one.pixels) for one in scene.photos)
    settings = made.recipe(bases["sd1"], *shown, "run.seed=1", steps=(3, 1))
    with pytest.raises(KilledError):
        made.run(replace(scene, photos=photos), settings, tmp_path / "used", listener=kill_at_3)
    with (tmp_path / "used" / "held.jsonl").open("a") as file:
        file.write('{"phase": 1, "st')  # as a kill leaves it
    settings = made.recipe(bases["sd1"], *shown, steps=(0, 1))
    for name in ("used", "fresh"):
        made.run(scene, settings, tmp_path / name)
    used, fresh = (made_at(tmp_path / name) for name in ("used", "fresh"))
    assert used == fresh
    assert len(fresh) == 2 + (1 + 2 * 3) + (4 + 1), "logs; masks, maps; samples, sheet"
    assert {line["phase"] for line in read_run(tmp_path / "used").steps} == {2}


def kill_at_3(event):
    if isinstance(event, StepDone) and event.step == 3:
        raise KilledError


def made_at(out):
    """Return what a run measured and drew, by name; of its steps all but their seconds."""
    steps = [{**line, "seconds": 0, "written_by": ""} for line in lines(out / "losses.jsonl")]
    pictures = {
        p.name: p.read_bytes() for place in ("maps", "samples") for p in out.glob(f"{place}/*")
    }
    return {"steps": steps, "held": (out / "held.jsonl").read_bytes(), **pictures}


def test_a_run_does_not_begin_among_snapshots_of_another(bases, scene, tmp_path):
    kept = ("run.snapshots=2", "run.checkpoint_every=0")
    with pytest.raises(KilledError):
        made.run(
            scene, made.recipe(bases["sd1"], *kept, steps=(0, 4)), tmp_path, listener=kill_at_3
        )
    assert list(snapshots_of(tmp_path)) == [2]
    other = made.recipe(bases["sd1"], *kept, "run.seed=1", steps=(0, 1))
    with pytest.raises(TrainingError, match="snapshots of a run that left nothing to go on from"):
        made.run(scene, other, tmp_path)
    assert list(snapshots_of(tmp_path)) == [2]
    made.run(scene, other, tmp_path, restart=True)
    assert list(snapshots_of(tmp_path)) == [1]
    assert made.run(scene, other, tmp_path).n_trained, "it is finished, and keeps its own"


def test_a_folder_without_a_run_has_no_page(tmp_path):
    with pytest.raises(TrainingError, match="no run in this folder"):
        read_run(tmp_path)


def ask_at(out, wish, phase, step):
    """Return a listener that asks while a step is made, and what it heard."""
    heard = []

    def listen(event):
        heard.append(event)
        if isinstance(event, StepDone) and (event.phase, event.step) == (phase, step):
            assert not asking.ask(out, wish)

    return listen, heard


def test_a_run_that_is_asked_to_stop_keeps_its_adapter_as_finished(bases, scene, tmp_path):
    settings = made.recipe(bases["sd1"], steps=(1, 4))
    listen, heard = ask_at(tmp_path, "stop", 2, 2)
    result = made.run(scene, settings, tmp_path, listener=listen)
    assert result.ended == "asked"
    assert result.adapter.info.steps == (1, 2)
    assert any("ended after step 2 of 4" in e.text for e in heard if isinstance(e, Notice))
    assert not (tmp_path / "ask-stop.json").exists()
    short = made.run(scene, made.recipe(bases["sd1"], steps=(1, 2)), tmp_path / "s")
    made.assert_equal(made.numbers(result), made.numbers(short))
    assert made.run(scene, settings, tmp_path).ended == "asked", "the same command: it is finished"
    more = made.run(scene, made.recipe(bases["sd1"], steps=(1, 3)), tmp_path)
    whole = made.run(scene, made.recipe(bases["sd1"], steps=(1, 3)), tmp_path / "w")
    made.assert_equal(made.numbers(more), made.numbers(whole))


def test_a_run_that_is_asked_while_its_base_loads_ends_in_phase_1_with_its_rows(
    bases, scene, tmp_path, monkeypatch
):
    def load(*args):
        asking.ask(tmp_path, "stop")
        return load_base(*args)

    load_base = training.load_base
    monkeypatch.setattr(training, "load_base", load)
    result = made.run(scene, made.recipe(bases["sd1"], steps=(3, 3)), tmp_path)
    assert result.adapter.info.steps == (1, 0)
    assert not result.adapter.modules


@pytest.mark.parametrize(
    ("wish", "left"), [("sample", "samples/00002-0.png"), ("save", "snapshots/phase2-00001")]
)
def test_a_run_answers_and_goes_on(wish, left, bases, scene, tmp_path):
    settings = made.recipe(bases["sd1"], 'run.sample_prompts=["a"]', steps=(1, 2))
    listen, _ = ask_at(tmp_path, wish, 2, 1)
    assert made.run(scene, settings, tmp_path, listener=listen).ended == ""
    assert (tmp_path / left).exists()


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signal")
def test_a_signal_asks_for_pictures_and_a_snapshot(bases, scene, tmp_path):
    def listen(event):
        if isinstance(event, StepDone) and (event.phase, event.step) == (2, 1):
            os.kill(os.getpid(), signal.SIGUSR1)

    heard = Interruption()
    settings = made.recipe(bases["sd1"], 'run.sample_prompts=["a"]', steps=(1, 2))
    with heard.heard():
        made.run(scene, settings, tmp_path, listener=listen, interruption=heard)
    assert (tmp_path / "samples" / "00002-0.png").exists()
    assert list(snapshots_of(tmp_path)) == [1]


def test_nobody_is_asked_where_nothing_runs(tmp_path):
    with pytest.raises(TrainingError, match="no training runs"):
        asking.ask(tmp_path, "stop")
    with locked(tmp_path), pytest.raises(TrainingError, match="no training runs"):
        asking.ask(tmp_path, "save", wait=60)  # a pick holds it, and would never answer
    with locked(tmp_path), pytest.raises(TrainingError, match="stop") as told:
        asking.ask(tmp_path, "stpo")
    assert "did you mean" in str(told.value).lower() or "sample, save, stop" in str(told.value)
    assert not list(tmp_path.glob("ask-*"))


def test_a_wish_of_a_run_before_is_not_taken_up(bases, scene, tmp_path):
    with locked(tmp_path, purpose=asking.TRAINING):
        asking.ask(tmp_path, "stop")
    settings = made.recipe(bases["sd1"], steps=(1, 1))
    assert made.run(scene, settings, tmp_path).ended == ""


def test_patience_ends_a_phase_that_learns_nothing_and_resumes_as_unbroken(bases, scene, tmp_path):
    still = ("phase2.rows_lr=0", "phase2.weights_lr=1e-12", "run.watch=1", "run.patience=2")
    settings = made.recipe(bases["sd1"], *still, steps=(1, 9))
    result = made.run(scene, settings, tmp_path)
    assert result.ended == "patience"
    assert result.adapter.info.steps == (1, 3), "two steps without a gain upon the first look"
    assert made.run(scene, settings, tmp_path).ended == "patience"
    told = []
    more = made.recipe(bases["sd1"], *still, steps=(1, 10))
    assert made.run(scene, more, tmp_path, listener=told.append).adapter.info.steps == (1, 3)
    notices = [event.text for event in told if isinstance(event, Notice)]
    assert any("run.patience=0 goes on with it" in text for text in notices)
    on = made.run(
        scene, made.recipe(bases["sd1"], *still, "run.patience=0", steps=(1, 9)), tmp_path
    )
    assert (on.ended, on.adapter.info.steps) == ("", (1, 9)), "it is not finished, nor trained anew"


def test_patience_that_ends_at_the_last_step_ended_nothing(bases, scene, tmp_path):
    still = ("phase2.rows_lr=0", "phase2.weights_lr=1e-12", "run.watch=1", "run.patience=2")
    result = made.run(scene, made.recipe(bases["sd1"], *still, steps=(1, 3)), tmp_path)
    assert (result.ended, result.adapter.info.steps) == ("", (1, 3))


@pytest.mark.parametrize(("at", "ended"), [((1, 2), "asked"), ((2, 1), "")])
def test_what_is_left_out_is_told_at_the_end_of_a_phase_too(at, ended, bases, scene, tmp_path):
    listen, heard = ask_at(tmp_path, "stop", *at)
    settings = made.recipe(bases["sd1"], steps=(2, 1))
    assert made.run(scene, settings, tmp_path, listener=listen).ended == ended
    notices = [event.text for event in heard if isinstance(event, Notice)]
    assert any("ended after step 2 of 2 of phase 1" in text for text in notices) == bool(ended)


def test_a_whole_model_keeps_no_snapshot_and_says_so(bases, scene, tmp_path):
    listen, heard = ask_at(tmp_path, "save", 2, 1)
    settings = made.recipe(bases["sd1"], "phase2.trains=full", steps=(0, 2))
    made.run(scene, settings, tmp_path, listener=listen)
    assert not snapshots_of(tmp_path)
    assert any("no snapshot" in event.text for event in heard if isinstance(event, Notice))


def test_the_page_of_a_run_that_is_made_longer_does_not_call_it_finished(bases, scene, tmp_path):
    def look_and_die(event):
        if isinstance(event, PhaseStarted):
            seen.append(page._state(read_run(tmp_path)))
        if isinstance(event, StepDone) and event.step == 3:
            raise KilledError

    seen, page = [], run_page
    made.run(scene, made.recipe(bases["sd1"], *WATCHED, steps=(1, 2)), tmp_path)
    assert page._state(read_run(tmp_path)) == "finished, 3 steps"
    longer = made.recipe(bases["sd1"], *WATCHED, steps=(1, 5))
    with pytest.raises(KilledError):
        made.run(scene, longer, tmp_path, listener=look_and_die)
    assert seen == ["running: step 3 of 6"]
    assert page._state(read_run(tmp_path)).startswith("stopped: step")
    made.run(scene, longer, tmp_path)
    assert page._state(read_run(tmp_path)) == "finished, 6 steps"


def test_held_draws_look_at_each_thing_that_some_photo_shows(scene):
    """Five photos, of which the last alone shows more than the first thing."""
    photo = scene.photos[0]
    one = replace(photo, masks=photo.masks * (np.arange(len(photo.masks)) < 1)[:, None, None])
    photos = (*(replace(one, source=str(i)) for i in range(4)), replace(photo, source="4"))
    chosen = telling_photos(replace(scene, photos=photos))
    assert [photo.source for photo in chosen] == ["0", "1", "2", "4"]
    plain = tuple(replace(photo, source=str(i)) for i in range(5))
    chosen = telling_photos(replace(scene, photos=plain))
    assert [photo.source for photo in chosen] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("n_steps", "n", "expected"),
    [(400, 4, {100, 200, 300, 400}), (3, 8, {1, 2, 3}), (5, 0, set()), (0, 3, set())],
)
def test_snapshots_lie_at_equal_distances_and_the_last_step_is_one(n_steps, n, expected):
    assert evenly(n_steps, n) == expected


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (("run.snapshots=2", "phase2.trains=full"), "snapshots are adapters"),
        (("run.patience=5",), "patience looks at held draws"),
        (("run.watch=-1",), "watch"),
    ],
)
def test_settings_that_cannot_be_watched_are_refused(settings, match):
    with pytest.raises(RecipeError, match=match):
        made.recipe("mini", *settings)


def test_map_iou_takes_the_cells_above_half_of_the_maximum() -> None:
    attention = np.array([[0.4, 0.3], [0.1, 0.0]], np.float32)
    mask = np.array([[1, 0], [0, 0]], np.float32)
    assert map_iou(attention, mask) == 1 / 2
    assert map_iou(attention * 0, mask) == 0
