"""A run that was stopped and taken up again ends bit for bit where an unbroken one does."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
from functools import partial
from pathlib import Path

import bitsandbytes as bnb
import pytest

from lora_scene.errors import (
    CheckpointError,
    InterruptedRunError,
    LoraSceneError,
    TrainingError,
)
from lora_scene.files import write_text
from lora_scene.learning import preparation
from lora_scene.learning.checkpoints import load_checkpoint, save_checkpoint
from lora_scene.learning.events import Saved, StepDone
from lora_scene.learning.interruption import Interruption
from lora_scene.learning.lineage import lineages
from lora_scene.recipe import dump_recipe
from tests.learning import made
from tests.mapped_files import MAPS, mapped_below

STEPS = (2, 2)
STOPS = {
    "inside phase 1": (1, 1),
    "at the boundary": (1, 2),
    "inside phase 2": (2, 1),
    "after the last step": (2, 2),
}
RECIPES = {
    "adamw": ["optimizer.name=adamw"],
    "adamw8bit": ["optimizer.name=adamw8bit"],
    "dropout": ["lora.dropout=0.5", "base.gradient_checkpointing=true"],
    "everything": [
        "run.batch_size=2",
        "run.accumulation=2",
        "handles.n_vectors=2",
        'handles.templates=["{}"]',  # the tiny tokenizers' prompts are short
        "handles.norm=vocabulary",
        "handles.init=random",
        "lora.text_encoder_rank=2",
        "lora.conv_rank=1",
        "augment.recompose_prob=0.3",
        "augment.n_variants=2",
        "masked_loss.outside_weight=0.2",
        "masked_loss.outside_target=base",
        "prior.weight=1",
        "prior.n_images=2",
        "prior.n_steps=1",
        "grounds.prob=0.7",
        "grounds.noise_from=0.1",
        "grounds.n_images=2",
        "grounds.n_steps=1",
        "grounds.prompts=['sand']",
        "grounds.phrases=['on sand']",
        "phase2.schedule=cosine",
        "phase2.timesteps=clean",
        "phase2.draws=1",
    ],
    "schedulefree": ["optimizer.name=schedulefree"],
    "prodigy": ["optimizer.name=prodigy"],
    "adafactor": ["optimizer.name=adafactor"],
    "full": ["phase2.trains=full"],
}
STOPPED_AT = {
    "adamw": tuple(STOPS),
    "schedulefree": ("inside phase 2", "after the last step"),
}
CASES = [(name, stop) for name in RECIPES for stop in STOPPED_AT.get(name, ("inside phase 2",))]


class StoppedError(Exception):
    """What the listener raises."""


def stop_after(phase, step):
    """Return a listener that raises once the checkpoint of a step is written."""
    reached = []

    def listen(event):
        if isinstance(event, StepDone) and (event.phase, event.step) == (phase, step):
            reached.append(event)
        if isinstance(event, Saved) and event.what == "checkpoint" and reached:
            raise StoppedError

    return listen


@pytest.fixture(scope="module")
def unbroken(bases, scene, tmp_path_factory):
    """Return what unbroken runs learn, each made once; beside them lies what a stop had left."""
    results = {}

    def result(name):
        out, stops = tmp_path_factory.mktemp(name) / "whole", iter(STOPS)

        def keep(event):
            if isinstance(event, Saved) and event.what == "checkpoint":
                shutil.copytree(out, out.with_name(next(stops)))

        if name not in results:
            results[name] = made.run(scene, settings(bases, name), out, listener=keep)
        return results[name]

    return result


def settings(bases, name):
    base = bases["sdxl" if name == "adamw" else "sd1"]
    return made.recipe(base, *RECIPES[name], "run.checkpoint_every=1", steps=STEPS)


@pytest.mark.parametrize(("name", "stop"), CASES)
def test_stopped_and_resumed_run_equals_an_unbroken_one(name, stop, bases, scene, unbroken):
    whole, events = unbroken(name), []
    out = whole.folder.with_name(stop)
    resumed = made.run(scene, settings(bases, name), out, listener=events.append)

    made.assert_equal(made.numbers(resumed), made.numbers(whole))
    steps = [event for event in events if isinstance(event, StepDone)]
    assert len(steps) == sum(STEPS) - 1 - list(STOPS).index(stop)
    assert not MAPS.exists() or mapped_below(str(out)) == [], "Windows could not write it"


def test_eight_bit_state_travels_in_the_checkpoint(bases, scene, tmp_path):
    with pytest.raises(StoppedError):
        made.run(scene, settings(bases, "adamw8bit"), tmp_path, listener=stop_after(2, 1))
    checkpoint = load_checkpoint(tmp_path / "checkpoint" / "state.safetensors")
    rows, weights = checkpoint.state["optimizers"]
    nested = bnb.optim.AdamW8bit._FSDP_WRAPPED_QUANT_STATE_KEY
    kinds = {str(state[nested]["state1"].dtype) for state in weights["state"].values()}
    assert kinds == {"torch.uint8"}, "the test would not test 8-bit state"
    assert {str(state["exp_avg"].dtype) for state in rows["state"].values()} == {"torch.float32"}


def test_finished_run_is_not_made_again(bases, scene, tmp_path):
    first = made.run(scene, settings(bases, "adamw8bit"), tmp_path)
    events = []
    second = made.run(scene, settings(bases, "adamw8bit"), tmp_path, listener=events.append)
    made.assert_equal(made.numbers(first), made.numbers(second))
    assert not [event for event in events if isinstance(event, StepDone)]
    assert [f.name for f in (tmp_path / "checkpoint").iterdir()] == ["state.safetensors"]


def test_finished_run_goes_on_with_more_steps_as_if_it_had_had_them(bases, scene, tmp_path):
    """Under a constant rate; the name of the recipe's file is nobody's business."""
    made.run(scene, made.recipe(bases["sd1"], steps=(1, 1)), tmp_path / "grown")
    longer = dataclasses.replace(made.recipe(bases["sd1"], steps=(1, 3)), name="renamed")
    events = []
    grown = made.run(scene, longer, tmp_path / "grown", listener=events.append)
    at_once = made.run(scene, made.recipe(bases["sd1"], steps=(1, 3)), tmp_path / "at_once")
    made.assert_equal(made.numbers(grown), made.numbers(at_once))
    assert [e.step for e in events if isinstance(e, StepDone)] == [2, 3]
    lines = (tmp_path / "grown" / "losses.jsonl").read_text("utf-8").splitlines()
    read = [(line["phase"], line["step"]) for line in map(json.loads, lines)]
    assert read == [(1, 1), (2, 1), (2, 2), (2, 3)]
    with pytest.raises(TrainingError, match="holds a longer run"):
        made.run(scene, made.recipe(bases["sd1"], steps=(1, 2)), tmp_path / "grown")


def test_damaged_record_of_a_finished_run_is_told(bases, scene, tmp_path):
    settings = made.recipe(bases["sd1"], steps=(1, 0))
    made.run(scene, settings, tmp_path)
    path = tmp_path / "training.json"
    good = path.read_text("utf-8")
    for content in (
        "{",
        '{"fingerprint": 3}',
        "[]",
        good.replace('"n_trained": ', '"n_trained": 1'),
    ):
        path.write_text(content, "utf-8")
        with pytest.raises(LoraSceneError, match=r"training\.json"):
            made.run(scene, settings, tmp_path)


@pytest.mark.parametrize("content", ["{", '{"written_by": "lora_scene 0", "seconds": 1}'])
def test_damaged_record_does_not_block_a_restart(content, bases, scene, tmp_path):
    settings = made.recipe(bases["sd1"], steps=(1, 0))
    first = made.run(scene, settings, tmp_path)
    (tmp_path / "training.json").write_text(content, "utf-8")
    again = made.run(scene, settings, tmp_path, restart=True)
    made.assert_equal(made.numbers(again), made.numbers(first))
    (tmp_path / "training.json").write_text('{"mine": 1}', "utf-8")
    with pytest.raises(LoraSceneError, match="did not write"):
        made.run(scene, settings, tmp_path, restart=True)


def test_flipped_bit_is_refused_and_the_last_good_one_goes_on(bases, scene, tmp_path, unbroken):
    with pytest.raises(StoppedError):
        made.run(scene, settings(bases, "adamw"), tmp_path, listener=stop_after(2, 1))
    path = tmp_path / "checkpoint" / "state.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        CheckpointError, match=r"checksum(.|\n)*last good one is .*previous"
    ) as told:
        made.run(scene, settings(bases, "adamw"), tmp_path)
    assert "after step 2 of phase 1" in str(told.value)
    path.unlink()
    resumed = made.run(scene, settings(bases, "adamw"), tmp_path)
    made.assert_equal(made.numbers(resumed), made.numbers(unbroken("adamw")))


@pytest.mark.parametrize(("phase", "step"), [(3, 0), (1, -1), (2, 99)])
def test_checkpoint_of_no_step_of_the_run_is_refused(phase, step, bases, scene, tmp_path):
    with pytest.raises(StoppedError):
        made.run(scene, settings(bases, "adamw"), tmp_path, listener=stop_after(1, 1))
    path = tmp_path / "checkpoint" / "state.safetensors"
    save_checkpoint(dataclasses.replace(load_checkpoint(path), phase=phase, step=step), path)
    with pytest.raises(CheckpointError, match="--restart"):
        made.run(scene, settings(bases, "adamw"), tmp_path)


def test_checkpoint_of_another_shape_is_refused(bases, scene, tmp_path):
    with pytest.raises(StoppedError):
        made.run(scene, settings(bases, "adamw"), tmp_path, listener=stop_after(1, 1))
    path = tmp_path / "checkpoint" / "state.safetensors"
    found = load_checkpoint(path)
    state = {**found.state, "parameters": [p[:1] for p in found.state["parameters"]]}
    save_checkpoint(dataclasses.replace(found, state=state), path)
    with pytest.raises(CheckpointError, match=r"another shape(.|\n)*--restart"):
        made.run(scene, settings(bases, "adamw"), tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signal_ends_a_step_with_a_checkpoint_and_goes_on(
    name, bases, scene, tmp_path, unbroken, request
):
    number, interruption = getattr(signal, name), Interruption()
    inherited = signal.signal(number, signal.default_int_handler)  # a background job ignores some
    request.addfinalizer(lambda: signal.signal(number, inherited))
    often = settings(bases, "adamw")
    seldom = dataclasses.replace(often, run=dataclasses.replace(often.run, checkpoint_every=0))

    def listen(event):
        if isinstance(event, StepDone) and (event.phase, event.step) == (1, 1):
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with interruption.heard(), pytest.raises(InterruptedRunError, match="after step 1") as told:
        made.run(scene, seldom, tmp_path, listener=listen, interruption=interruption)
    assert told.value.exit_code == 128 + number
    assert signal.getsignal(number) is before
    resumed = made.run(scene, settings(bases, "adamw"), tmp_path)
    made.assert_equal(made.numbers(resumed), made.numbers(unbroken("adamw")))


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("is_told", [True, False])
def test_a_signal_is_no_fault_of_a_library_that_it_met(is_told, request):
    inherited = signal.signal(signal.SIGTERM, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGTERM, inherited))

    def load(interruption):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception as error:
            if is_told:
                raise RuntimeError("Failed to import a module") from error
        with interruption.waiting():
            raise AssertionError("a step was begun")

    interruption = Interruption()
    with (
        pytest.raises(InterruptedRunError, match="stopped at once") as told,
        interruption.heard(),
    ):
        load(interruption)
    assert told.value.__cause__ is None, "the library's error came from this one: a ring"


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_a_second_signal_that_a_library_swallows_keeps_nothing_half_done(
    bases, scene, tmp_path, request
):
    inherited = signal.signal(signal.SIGTERM, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGTERM, inherited))
    interruption, often = Interruption(), settings(bases, "adamw")
    seldom = dataclasses.replace(often, run=dataclasses.replace(often.run, checkpoint_every=0))

    def listen(event):
        if isinstance(event, StepDone):
            os.kill(os.getpid(), signal.SIGTERM)
            with contextlib.suppress(Exception):
                os.kill(os.getpid(), signal.SIGTERM)

    with interruption.heard(), pytest.raises(InterruptedRunError, match="stopped at once"):
        made.run(scene, seldom, tmp_path, listener=listen, interruption=interruption)
    assert not (tmp_path / "checkpoint").exists()


def test_a_system_without_some_signals_is_asked_by_those_it_has(monkeypatch):
    """As on Windows: no SIGHUP, no SIGUSR1, but a Ctrl-Break, here SIGWINCH."""
    for name in ("SIGHUP", "SIGUSR1"):
        monkeypatch.delattr(signal, name, raising=False)
    number = getattr(signal, "SIGWINCH", None) or signal.SIGBREAK
    monkeypatch.setattr(signal, "SIGBREAK", number, raising=False)
    interruption = Interruption()
    with interruption.heard(), interruption.waiting():
        signal.raise_signal(number)
    assert interruption.number == number


@pytest.mark.parametrize("stop", ["inside phase 1", None])
def test_another_recipe_in_the_same_folder_is_refused_until_restart(stop, bases, scene, tmp_path):
    if stop:
        with pytest.raises(StoppedError):
            made.run(scene, settings(bases, "adamw"), tmp_path, listener=stop_after(*STOPS[stop]))
    else:
        made.run(scene, settings(bases, "adamw"), tmp_path)
    other = made.recipe(bases["sdxl"], "run.seed=5", steps=(1, 0))
    with pytest.raises(TrainingError, match="holds a run with another recipe"):
        made.run(scene, other, tmp_path)
    scaled = made.recipe(bases["sdxl"], *RECIPES["adamw"], "lora.alpha=3", "run.watch=3")
    with pytest.raises(
        TrainingError, match=r"it was begun with lora\.alpha=0\.0; take another --out"
    ):
        made.run(scene, scaled, tmp_path)
    events = []
    made.run(scene, other, tmp_path, listener=events.append, restart=True)
    assert len([event for event in events if isinstance(event, StepDone)]) == 1


def test_a_run_from_before_there_were_shapes_goes_on_as_a_square_or_is_told_so(
    bases, scene, tmp_path
):
    with pytest.raises(StoppedError):
        made.run(scene, settings(bases, "adamw"), tmp_path, listener=stop_after(1, 1))
    old = dump_recipe(settings(bases, "adamw")).replace('shape = "square"\n', "")
    write_text(tmp_path / "recipe.toml", old)
    shaped = made.recipe(bases["sd1"], "base.shape=photo", *RECIPES["adamw"], steps=STEPS)
    with pytest.raises(TrainingError, match=r"begun as base\.shape=square"):
        made.run(scene, shaped, tmp_path)
    made.run(scene, settings(bases, "adamw"), tmp_path)


@pytest.mark.parametrize("is_earlier", [False, True])
def test_a_run_goes_on_wherever_its_base_lies_and_whatever_it_recomputes(
    is_earlier, bases, scene, unbroken, tmp_path, monkeypatch
):
    """The earlier ones kept a hash in which both counted: these go on as they were begun."""
    first, whole = settings(bases, "adamw8bit"), unbroken("adamw8bit")
    with monkeypatch.context() as patched:
        if is_earlier:
            patched.setattr(preparation, "lineages", lambda *run: (lineages(*run)[1],) * 2)
        with pytest.raises(StoppedError):
            made.run(scene, first, tmp_path / "out", listener=stop_after(1, 1))
    moved = shutil.copytree(bases["sd1"], tmp_path / Path(bases["sd1"]).name)
    other = {} if is_earlier else {"model": str(moved), "gradient_checkpointing": True}
    changed = dataclasses.replace(first, base=dataclasses.replace(first.base, **other))
    events = []
    on = made.run(scene, changed, tmp_path / "out", listener=events.append)
    assert len([event for event in events if isinstance(event, StepDone)]) == sum(STEPS) - 1
    made.assert_equal(made.numbers(on), made.numbers(whole))
    assert made.run(scene, changed, tmp_path / "out").n_trained, "it is finished"


def test_how_often_a_run_is_saved_does_not_part_it_from_its_checkpoint(bases, scene, tmp_path):
    with pytest.raises(StoppedError):
        made.run(scene, settings(bases, "adamw8bit"), tmp_path, listener=stop_after(1, 1))
    seldom = made.recipe(
        bases["sd1"], *RECIPES["adamw8bit"], "run.checkpoint_every=50", steps=STEPS
    )
    events = []
    made.run(scene, seldom, tmp_path, listener=events.append)
    assert len([event for event in events if isinstance(event, StepDone)]) == sum(STEPS) - 1


def test_damaged_checkpoint_is_named(bases, scene, tmp_path):
    with pytest.raises(StoppedError):
        made.run(scene, settings(bases, "adamw8bit"), tmp_path, listener=stop_after(1, 1))
    path = tmp_path / "checkpoint" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"state\.safetensors.*cannot be read"):
        made.run(scene, settings(bases, "adamw8bit"), tmp_path)


def kill_itself(event):
    if isinstance(event, StepDone) and (event.phase, event.step) == (2, 2):
        os.kill(os.getpid(), signal.SIGKILL)


def be_killed(scene, bases, out):
    made.run(scene, settings(bases, "adamw8bit"), out, listener=kill_itself)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends SIGKILL")
def test_killed_process_resumes_bit_for_bit(bases, scene, tmp_path, unbroken, processes):
    processes.start(partial(be_killed, scene, bases, tmp_path), tmp_path / "told")
    assert processes.wait() == -signal.SIGKILL, (tmp_path / "told").read_text()
    assert not (tmp_path / "embeddings").exists()
    resumed = made.run(scene, settings(bases, "adamw8bit"), tmp_path)
    made.assert_equal(made.numbers(resumed), made.numbers(unbroken("adamw8bit")))
