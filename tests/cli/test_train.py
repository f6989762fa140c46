from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from lora_scene.adapters.folder import read_adapter
from lora_scene.backbones.sources import find_base
from lora_scene.cli.main import main, root
from lora_scene.errors import (
    BackboneError,
    FileError,
    InterruptedRunError,
    LoraSceneError,
    TrainingError,
)
from lora_scene.learning.run_record import read_run, snapshots_of
from lora_scene.recipe import parse_recipe
from tests import tiny
from tests.backbones import ldm

SHORT = ["phase1.steps=2", "phase2.steps=2", "prior.weight=0", "optimizer.name=adamw"]
SHORT += ["run.watch=0"]


@pytest.fixture
def folder(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "img.jpg")
    for k in range(2):
        mask = np.zeros((64, 80), np.uint8)
        mask[10:50, 10 + 30 * k : 30 + 30 * k] = 255
        Image.fromarray(mask).save(tmp_path / f"mask{k}.png")
    return tmp_path


@pytest.fixture
def train(folder, bases):
    def run(*args: str, out: str = "out", place: Path = folder):
        given = {word.partition("=")[0] for word in args}
        short = (setting for setting in SHORT if setting.partition("=")[0] not in given)
        settings = [part for setting in short for part in ("--set", setting)]
        base = [] if "--base" in args else ["--base", bases["sd1"]]
        command = ["train", str(place), "--recipe", "paper", *base, *settings]
        command += ["--set", "base.resolution=64", "--out", str(folder / out), "--device", "cpu"]
        return CliRunner().invoke(root, [*command, *args], catch_exceptions=False)

    return run


def test_train_writes_an_adapter_and_says_what_to_do_next(train, folder):
    result = train("--seed", "7")
    assert result.exit_code == 0
    adapter = read_adapter(folder / "out")
    assert adapter.handles == ("<v0>", "<v1>")
    assert adapter.info.seed == 7
    assert "lora-scene generate" in result.stdout
    resolved = parse_recipe((folder / "out" / "recipe.toml").read_text())
    assert resolved.phase1.steps == 2
    public = replace(resolved.base, model=Path(resolved.base.model).name)
    assert replace(resolved, base=public) == parse_recipe(adapter.info.recipe_toml)


def test_a_setting_that_changes_nothing_is_told_before_the_work(train):
    result = train("--set", "full.text_encoder=false", "--set", "phase2.steps=0", "--dry-run")
    assert "note: full.text_encoder changes nothing: no phase trains the model" in result.stderr
    assert "phase1.steps changes" not in result.stderr


def test_a_single_file_is_trained_on_with_another_folders_configurations(train, folder, bases):
    path = ldm.write(tiny.pipeline("sd1", seed=7), folder / "checkpoint.safetensors")
    result = train("--base", str(path), "--base-config", bases["sd1"])
    assert result.exit_code == 0
    assert read_adapter(folder / "out").info.base_model == "checkpoint.safetensors"


def test_a_base_may_lie_in_a_folder_with_any_letters(train, folder, bases):
    shutil.copytree(bases["sd1"], folder / "bär🐻𠮷")
    result = train("--base", str(folder / "bär🐻𠮷"), "--set", "phase2.steps=0")
    assert result.exit_code == 0
    assert read_adapter(folder / "out").info.base_model == "bär🐻𠮷"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such name")
def test_names_that_are_no_utf8_end_no_training(train, folder, bases, monkeypatch):
    monkeypatch.setenv("LORA_SCENE_CACHE", str(folder / "cache"))
    scene = folder / os.fsdecode(b"sc\xe8ne")
    scene.mkdir()
    for path in [*folder.glob("*.jpg"), *folder.glob("mask*.png")]:
        path.rename(scene / path.name)
    with pytest.raises(FileError, match="weights cannot lie under a name that is no UTF-8"):
        train(place=scene, out=f"{scene.name}/out")
    odd = shutil.copytree(bases["sd1"], folder / os.fsdecode(b"mod\xe8le"))
    with pytest.raises(BackboneError, match="read below a name that is no UTF-8"):
        train("--base", str(odd), place=scene)
    monkeypatch.chdir(odd)
    watched = ("--set", "phase2.steps=0", "--set", "run.watch=1")
    result = train("--base", ".", *watched, place=scene)
    assert result.exit_code == 0
    run = read_run(folder / "out")
    assert run.summary is not None
    assert [run.summary.scene, run.began.scene] == [str(scene)] * 2
    info = read_adapter(folder / "out").info
    assert info.base_model == "mod?le"
    assert find_base(info.base_model, base_hash=info.base_hash) == str(Path.cwd())
    assert r"sc\udce8ne" in (folder / "out" / "run.html").read_text("utf-8")


def test_train_tells_scripts_every_event_and_auto_makes_a_pick_the_adapter(
    train, folder, monkeypatch
):
    asked = {}

    def picked(out, **options):
        asked.update(options, kept=list(snapshots_of(out)))
        return SimpleNamespace(chosen=SimpleNamespace(step=1, weight=0.5), why="it is the first")

    monkeypatch.setattr("lora_scene.judging.run_picking.pick_run", picked)
    monkeypatch.setattr("lora_scene.learning.samples.N_STEPS", 1)
    plan = json.loads(train("--dry-run", "--auto", "--json").stdout)
    picking = {part["name"]: part["n"] for part in plan["parts"]}["picking"]
    own = 2 * 3 * 2 + 4  # prompts, subsets, seeds; the drift's
    assert picking == 2 * (5 * own + 4), "snapshots, weights; the untouched base's once a snapshot"
    done = train("--json", "--auto")
    assert done.exit_code == 0
    assert asked["kept"] == [1, 2]
    assert "took step 1 at weight 0.5: it is the first" in done.stderr
    assert read_adapter(folder / "out").info.taken == "step 1 of phase 2, weight 0.5 folded in"
    again = json.loads(train("--dry-run", "--auto", "--json").stdout)
    assert again["parts"] == [], "its adapter is a pick already"
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    steps = [line for line in lines if line["event"] == "StepDone"]
    assert [(step["phase"], step["step"]) for step in steps] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert steps[0]["losses"].keys() >= {"diffusion", "attention", "total"}
    ended = [line for line in lines if line["event"] == "PhaseEnded"]
    assert all(line["peak_bytes"] > 0 for line in ended)
    nothing = train("--auto", "--set", "phase2.steps=0", out="other")
    assert nothing.exit_code == 2
    assert "no steps to choose from" in nothing.stderr


def test_the_same_command_again_finds_it_finished_and_another_is_refused(train, folder):
    train()
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    plan = train("--dry-run", "--set", "phase2.steps=4").stdout
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert "goes on after step 2 of phase 2" in plan
    assert re.search(r"phase 2 steps +2 x +[\d.]+ s = .* numbers, 2 pictures", plan)
    assert "phase 1 steps" not in plan
    assert "nothing was written" in plan
    again = train("--json")
    assert "finished already" in again.stdout
    assert "StepDone" not in again.stdout
    begun = parse_recipe((folder / "out" / "recipe.toml").read_text()).run.seed
    match = rf"(?s)another recipe, scene or base.*begun with --seed {begun}, which may go on"
    with pytest.raises(TrainingError, match=match):
        train("--seed", "8")
    assert "StepDone" in train("--seed", "8", "--restart", "--json").stdout


def call(words):
    sys.argv = ["lora-scene", *words]
    main()


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize(("sent", "code"), [("HUP", 129), ("INT TERM", 143)])
def test_a_signal_ends_a_run_with_a_checkpoint_and_a_second_one_at_once(
    sent, code, folder, bases, processes
):
    words = ["train", str(folder), "--recipe", "paper", "--base", bases["sd1"], "--json"]
    for setting in (
        *SHORT[1:],
        "phase1.steps=5000",
        "base.resolution=64",
        "run.checkpoint_every=0",
    ):
        words += ["--set", setting]
    words += ["--device", "cpu", "--out", str(folder / "out")]
    told = folder / "told"
    process = processes.start(partial(call, words), told)
    while not (folder / "out" / "losses.jsonl").is_file() and not processes.ended():
        time.sleep(0.05)
    for name in sent.split():
        with suppress(ProcessLookupError):  # one that ended by itself is told below
            os.kill(process, getattr(signal, f"SIG{name}"))
    returned = processes.wait()
    said, is_second = told.read_text(), " " in sent
    assert returned == code, said
    assert ("stopped at once" if is_second else "a checkpoint is saved") in said
    assert "the same command again goes on" in said
    assert "Traceback" not in said
    assert (folder / "out" / "checkpoint" / "state.safetensors").is_file() != is_second
    assert not list((folder / "out").rglob(".lora_scene*")), "neither debris nor a lock"


@pytest.mark.parametrize("error", [BrokenPipeError, SystemExit])
def test_a_run_whose_output_nobody_reads_ends_after_its_step(error, train, folder, monkeypatch):
    def unread(event):
        raise error

    monkeypatch.setattr("lora_scene.cli.training_view.echo_json", unread)
    with pytest.raises(InterruptedRunError, match="a checkpoint is saved"):
        train("--json")
    assert (folder / "out" / "checkpoint" / "state.safetensors").is_file()
    assert len((folder / "out" / "losses.jsonl").read_text().splitlines()) == 1


def test_the_embedded_base_says_that_it_knows_drawings_alone(folder):
    """The device is not there: the note comes before the base is looked for."""
    command = ["train", str(folder), "--base", "mini", "--out", str(folder / "o"), "--device", "x"]
    done = CliRunner().invoke(root, command)
    assert done.exit_code == 1
    assert "knows drawings of 16 nouns" in done.stderr
    assert "has never seen object;" in done.stderr


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["run.sample_prompts=['a <v0> and <v7>']"], "the scene has no <v7>"),
        (["phase1.steps=0", "phase2.steps=0"], "nothing would be trained"),
        ([], "the checkpoint cannot be read"),
    ],
)
def test_what_cannot_end_well_is_told_before_the_base_is_loaded(
    train, folder, monkeypatch, settings, told
):
    if not settings:
        (folder / "out" / "checkpoint").mkdir(parents=True)
        (folder / "out" / "checkpoint" / "state.safetensors").write_bytes(b"half")
    monkeypatch.setattr("lora_scene.learning.preparation.load_pipeline", None)
    with pytest.raises(LoraSceneError, match=told):
        train(*(part for setting in settings for part in ("--set", setting)))
