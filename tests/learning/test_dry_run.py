"""What a plan counts is what the run then does."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file

from lora_scene.adapters.folder import save_adapter
from lora_scene.errors import SceneError
from lora_scene.learning import dry_run, samples
from lora_scene.learning.beginning import read_beginning
from lora_scene.learning.dry_run import plan_run
from lora_scene.learning.events import Looked, Saved, StepDone
from lora_scene.learning.run_record import snapshots_of
from lora_scene.learning.training import train
from tests import tiny
from tests.adapters import made as adapters
from tests.learning import made


class KilledError(Exception):
    """What the listener raises in the place of a kill."""


@pytest.mark.parametrize(
    ("steps", "settings", "stopped_at"),
    [
        ((4, 4), ("run.sample_every=3", "run.watch=2"), None),
        ((2, 3), ("run.sample_every=2", "run.watch=3", "run.patience=90"), (1, 2)),
        ((0, 3), ("run.sample_every=5", "run.watch=1"), (2, 1)),
    ],
)
def test_a_plan_counts_looks_and_pictures(
    steps, settings, stopped_at, bases, scene, tmp_path, monkeypatch
):
    monkeypatch.setattr(samples, "N_STEPS", 1)
    monkeypatch.setattr(dry_run, "N_MEASURED", 1)
    recipe = made.recipe(bases["sd1"], *settings, "run.checkpoint_every=1", steps=steps)
    reached, looks, drawn = [], [], set()

    def listen(event):
        if isinstance(event, StepDone) and (event.phase, event.step) == stopped_at:
            reached.append(event)
        if reached and isinstance(event, Saved) and event.what == "checkpoint":
            raise KilledError

    if stopped_at is not None:
        with pytest.raises(KilledError):
            made.run(scene, recipe, tmp_path, listener=listen)
        drawn = set(tmp_path.glob("samples/0*"))
    plan = plan_run(scene, recipe, out=tmp_path, device="cpu")
    counted = {part.name: part.n for part in plan.parts}
    made.run(scene, recipe, tmp_path, listener=looks.append)
    assert counted["looks"] == sum(isinstance(event, Looked) for event in looks)
    assert counted["samples"] == len(set(tmp_path.glob("samples/0*")) - drawn)


def test_a_plan_counts_what_the_base_draws_before(bases, scene, tmp_path, monkeypatch):
    monkeypatch.setattr(dry_run, "N_MEASURED", 1)
    drawn = ("prior.weight=1", "prior.n_images=4", "prior.n_steps=1")
    drawn += ("grounds.prob=1", "grounds.n_images=7", "grounds.n_steps=1", "grounds.n_per_noun=5")
    short = ("handles.templates=['{}']", "grounds.prompts=['sand']", "grounds.phrases=['on sand']")
    recipe = made.recipe(bases["sd1"], *drawn, *short, steps=(0, 2))
    parts = {one.name: one for one in plan_run(scene, recipe, out=tmp_path, device="cpu").parts}
    assert (parts["prior"].n, parts["grounds"].n) == (4, 7)
    assert parts["colours"].n == 2 * 5, "of a bear and a bowl"
    assert "does not expect" in parts["grounds"].told
    assert parts["encoding"].n == 1
    assert "phase 2 steps" in parts


def test_a_plan_asks_the_base_at_each_step_and_tells_what_grounds_would_be_refused_for(
    bases, scene, tmp_path, monkeypatch
):
    """What is far is not known: the steps that cost more are measured."""
    monkeypatch.setattr(dry_run, "N_MEASURED", 1)
    drawn = ("grounds.prob=1", "grounds.n_images=1", "grounds.n_steps=1", "grounds.noise_from=0")
    long = ("grounds.prompts=['sand']", f"grounds.phrases=['{'far ' * 80}']")
    base = ("masked_loss.outside_weight=0.5", "masked_loss.outside_target=base")
    recipe = made.recipe(bases["sd1"], *drawn, *long, *base, "handles.templates=['{}']")
    measured, told = [], []
    keep = dry_run.Trainer
    monkeypatch.setattr(
        dry_run, "Trainer", lambda *a, **given: measured.append(given) or keep(*a, **given)
    )
    plan_run(scene, recipe, out=tmp_path, device="cpu", listener=told.append)
    assert [given["materials"].grounds for given in measured] == [None]
    assert any("grounds.phrases: a prompt is too long" in getattr(one, "text", "") for one in told)


PRIOR = ("prior.weight=1", "prior.n_steps=1")
GROUNDS = (
    "grounds.prob=1",
    "grounds.n_steps=1",
    "grounds.n_per_noun=1",
    "grounds.phrases=['on it', 'in it']",
)
CUT = "far " * 80


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        ((*PRIOR, f"prior.prompts=['a {{}}', 'a {{}} {CUT}']"), "refused"),
        ((*PRIOR, f"prior.prompts=['a {{}}', 'a {{}} {CUT}']", "prior.n_images=2"), "taken"),
        ((*GROUNDS, f"grounds.prompts=['sand', '{CUT}']", "grounds.far=0"), "refused"),
        ((*GROUNDS, f"grounds.prompts=['sand', '{CUT}']", "grounds.far=1"), "told"),
        ((*GROUNDS, f"grounds.prompts=['{CUT}', 'sand']", "grounds.far=1"), "told"),
        ((*GROUNDS, f"grounds.prompts=['sand', '{CUT}']", "grounds.n_images=1"), "taken"),
    ],
)
def test_a_prompt_that_training_would_refuse_is_refused_though_it_is_not_drawn_here(
    given, outcome, bases, scene, tmp_path, monkeypatch
):
    """The scene has two nouns, so two pictures of the prior are of its first prompt."""
    monkeypatch.setattr(dry_run, "N_MEASURED", 1)
    recipe = made.recipe(bases["sd1"], *given, "handles.templates=['{}']", steps=(0, 1))
    told = []
    if outcome == "refused":
        for act in (train, plan_run):
            with pytest.raises(SceneError, match=r"(prior|grounds).prompts: a prompt is too long"):
                act(scene, recipe, out=tmp_path, device="cpu")
        return
    plan_run(scene, recipe, out=tmp_path, device="cpu", listener=told.append)
    said = " ".join(getattr(one, "text", "") for one in told)
    assert ("grounds.prompts: a prompt is too long" in said) == (outcome == "told")


SINGLE = ("phase2.sampling=single", "run.watch=1", f"handles.templates=['{'a ' * 18}{{}}']")


@pytest.mark.parametrize("patience", [0, 5])
def test_held_draws_that_would_be_cut_are_refused_where_the_run_s_end_hangs_on_them(
    patience, bases, scene, tmp_path, monkeypatch
):
    """They name all things, where steps name one; without patience nothing is looked at."""
    monkeypatch.setattr(dry_run, "N_MEASURED", 1)
    recipe = made.recipe(bases["sd1"], *SINGLE, f"run.patience={patience}", steps=(0, 1))
    if patience:
        for act in (train, plan_run):
            with pytest.raises(SceneError, match="held draws: a prompt is too long"):
                act(scene, recipe, out=tmp_path, device="cpu")
        return
    parts = [part.name for part in plan_run(scene, recipe, out=tmp_path, device="cpu").parts]
    told = []
    train(scene, recipe, out=tmp_path, device="cpu", listener=told.append)
    assert any("nothing is looked at" in getattr(one, "text", "") for one in told)
    assert "looks" not in parts


def test_the_photos_encoding_counts_once(bases, scene, tmp_path, monkeypatch):
    """It was counted with each picture of the prior."""
    monkeypatch.setattr(dry_run, "N_MEASURED", 1)
    prepare = dry_run.prepare_materials
    monkeypatch.setattr(
        dry_run, "_timed", lambda work, *a: (9.0 if work is prepare else 0.5, work(*a))
    )
    drawn = ("prior.weight=1", "prior.n_images=50", "prior.n_steps=1", "handles.templates=['{}']")
    recipe = made.recipe(bases["sd1"], *drawn, steps=(0, 1))
    parts = {one.name: one for one in plan_run(scene, recipe, out=tmp_path, device="cpu").parts}
    assert [(parts[name].n, parts[name].seconds) for name in ("encoding", "prior")] == [
        (1, 9.0),
        (50, 0.5),
    ]


def test_what_lies_in_a_checkpoint_is_not_counted_again(bases, scene, tmp_path, monkeypatch):
    monkeypatch.setattr(dry_run, "N_MEASURED", 1)
    drawn = ("prior.weight=1", "prior.n_images=2", "prior.n_steps=1", "handles.templates=['{}']")
    recipe = made.recipe(bases["sd1"], *drawn, "run.checkpoint_every=1", steps=(0, 3))

    def kill(event):
        if isinstance(event, Saved) and event.what == "checkpoint":
            raise KilledError

    with pytest.raises(KilledError):
        made.run(scene, recipe, tmp_path, listener=kill)
    parts = {one.name: one.n for one in plan_run(scene, recipe, out=tmp_path, device="cpu").parts}
    assert parts == {"encoding": 1, "phase 2 steps": 2}


def test_a_plan_counts_what_is_kept_with_what_it_begins_from(bases, scene, tmp_path, monkeypatch):
    monkeypatch.setattr(dry_run, "N_MEASURED", 1)
    earlier = adapters.adapter(tiny.pipeline("sd1"), "sd1", strength=0.05)
    begin = read_beginning(save_adapter(earlier, tmp_path / "earlier"))
    recipe = made.recipe(bases["sd1"], "run.snapshots=8", steps=(0, 2))
    plan = plan_run(scene, recipe, out=tmp_path / "out", device="cpu", begin=begin)
    made.run(scene, recipe, tmp_path / "out", begin=begin)
    folders = [tmp_path / "out", *snapshots_of(tmp_path / "out").values()]
    files = [file for folder in folders for file in folder.glob("*.safetensors")]
    files += [file for folder in folders for file in folder.glob("embeddings/*.safetensors")]
    numbers = [t.numel() for file in files for t in load_file(file).values()]
    assert len(folders) == 3, "two steps have two snapshots"
    assert plan.kept_bytes == 4 * sum(numbers)
