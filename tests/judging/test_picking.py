"""Picking a snapshot and a weight: on the scores, on a run, and into its adapter."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from lora_scene.adapters.folder import read_adapter, save_adapter
from lora_scene.adapters.inspection import inspect_path
from lora_scene.cli.main import root
from lora_scene.creating.requests import Sampling
from lora_scene.creating.studio import open_studio
from lora_scene.errors import AdapterError, FileError, JudgingError
from lora_scene.judging import run_picking, watched_drawing
from lora_scene.judging.base_features import base_judge
from lora_scene.judging.comparison import compare, reference_looks
from lora_scene.judging.pick_sheet import draw_pick
from lora_scene.judging.picking import WEIGHTS, Pick, Tried, choose, n_drawn, pick, usual_plan
from lora_scene.judging.run_picking import pick_run
from lora_scene.judging.taking import take
from lora_scene.learning.run_record import snapshots_of
from tests.judging import fakes
from tests.learning import made

STEPS, TRIED = (100, 200, 300), (0.5, 1.0)


def tried(scores):
    """Return a table of scores {(step, weight): mean}; the others are 0.5."""
    noise = np.array([-0.02, 0.02, -0.01, 0.01])
    picture = np.zeros((64, 64, 3), np.uint8)
    return [
        Tried(s, w, noise + scores.get((s, w), 0.5), {"identity": 0.5}, picture)
        for s in STEPS
        for w in TRIED
    ]


def test_a_clearly_better_pair_is_recommended_with_its_reason():
    best, why = choose(tried({(200, 0.5): 0.9, (100, 0.5): 0.8, (300, 0.5): 0.8}))
    assert (best.step, best.weight) == (200, 0.5)
    assert "above the last step at weight 1" in why


def test_the_last_step_at_weight_1_stays_where_nothing_is_clearly_better():
    noisy = tried({})
    noisy[0] = Tried(100, 0.5, np.array([0.1, 1.0, 0.2, 0.9]), {}, noisy[0].picture)
    best, why = choose(noisy)
    assert (best.step, best.weight) == (300, 1.0)
    assert "stays" in why or "nothing scores higher" in why


def test_a_lone_peak_loses_to_a_plateau():
    """Its neighbours draw nearly the same pictures, so a peak among low ones is luck."""
    scores = {(100, 0.5): 0.85, (300, 0.5): 0.8, (300, 1.0): 0.5, (200, 0.5): 0.3}
    best, _ = choose(tried({**scores, (300, 1.0): 0.79, (200, 1.0): 0.8}))
    assert best.step == 300


def test_the_sheet_frames_the_chosen_pair():
    table = tried({(200, 0.5): 0.9})
    pick = Pick(tuple(table), table[2], "it is so", "nobody", ("<a>",))
    pixels = np.asarray(draw_pick(pick)).reshape(-1, 3)
    framed = (pixels == (217, 89, 61)).all(axis=1).sum()
    assert framed > 1000
    assert pick.steps == STEPS
    assert pick.weights == TRIED


@pytest.fixture(scope="module")
def run(bases, scene, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    settings = made.recipe(bases["sd1"], "run.snapshots=2", steps=(1, 2))
    made.run(scene, settings, out)
    return out


def test_a_run_is_picked_from_by_the_bases_own_features_and_says_so(run, scene, monkeypatch):
    told, drawn, ends = [], [], [None, None, KeyboardInterrupt]
    render = watched_drawing.render

    def draws(studio, batch, **how):
        if ends and (end := ends.pop(0)):
            raise end
        drawn.extend(batch)
        return render(studio, batch, **how)

    monkeypatch.setattr(watched_drawing, "render", draws)
    asked = {"scene": scene, "weights": (1.0,), "n_seeds": 1, "n_steps": 1, "device": "cpu"}
    with pytest.raises(KeyboardInterrupt):
        pick_run(run, **asked)
    assert len(list((run / "unfinished").iterdir())) == len(drawn) > 0
    found = pick_run(run, **asked, tell=told.append)
    assert not (run / "unfinished").exists()
    assert [(one.step, one.weight) for one in found.tried] == [(1, 1), (2, 1)]
    assert "base's own features" in told[0]
    kept = json.loads((run / "pick.json").read_text("utf-8"))
    assert kept["chosen"]["step"] in (1, 2)
    assert (run / "pick.png").is_file()
    assert all(np.isfinite(one.scores).all() for one in found.tried)
    plan = usual_plan(found.judge, Sampling(1), n_seeds=1)
    assert len(drawn) == 2 * n_drawn(plan, scene, n_weights=1), "what a dry run counts"
    monkeypatch.setattr(run_picking, "pick", lambda *asked, **how: found)
    monkeypatch.setattr(run_picking, "draw_pick", _full_disk)
    with pytest.raises(FileError):
        pick_run(run, **asked, tell=told.append)
    assert told[-1] == found.told, "what took minutes is not lost with the disk"


def _full_disk(pick):
    raise FileError("the disk is full")


def test_what_is_taken_is_the_snapshot_with_its_weight_folded_in(run):
    last = read_adapter(run)
    take(run, 1, 0.5)
    taken, kept = read_adapter(run), read_adapter(snapshots_of(run)[1])
    for key, module in taken.modules.items():
        torch.testing.assert_close(module.update, 0.5 * kept.modules[key].update)
    assert taken.info.taken == "step 1 of phase 2, weight 0.5 folded in"
    note = inspect_path(run)[0].note
    assert note is not None
    assert note.info.taken == taken.info.taken
    shown = CliRunner().invoke(root, ["inspect", str(run)])
    assert "weight 0.5 folded in" in shown.output
    done = CliRunner().invoke(root, ["pick", str(run), "--take", "2"], catch_exceptions=False)
    assert done.exit_code == 0
    again = read_adapter(run)
    assert all(torch.equal(again.modules[key].up, m.up) for key, m in last.modules.items())


def test_what_cannot_be_taken_is_told(run, tmp_path):
    with pytest.raises(AdapterError, match="no snapshot of that step"):
        take(run, 7)
    for wrong in ("7:x", "x", "1:0", "1:9", "1:nan", ":0.5"):
        assert CliRunner().invoke(root, ["pick", str(run), "--take", wrong]).exit_code == 2
    shown = CliRunner().invoke(root, ["pick", str(run), "--take", "1:0.5", "--json"])
    assert "leave out --json" in shown.stderr, "it would tell no figures"


def test_a_picture_in_which_nothing_was_found_has_no_likeness(scene):
    studio = open_studio([], base="mini", device="cpu")
    judge = base_judge(studio, Sampling(1))
    references = reference_looks(scene, judge.identity)
    found = compare(
        np.zeros((64, 64, 3), np.uint8),
        [],
        references,
        encoder=judge.identity,
        named=[0],
        floor=judge.same_floor,
    )
    assert found.missing == (0,)
    assert found.identity(0) == 0


@pytest.mark.parametrize(
    "other", [{"base_hash": "f" * 64}, {"image_hashes": ("e" * 64,)}, {"seed": 77}]
)
def test_a_strangers_snapshot_is_refused_before_any_picture(run, scene, monkeypatch, other):
    stranger = snapshots_of(run)[1].with_name("phase2-00003")
    last = read_adapter(snapshots_of(run)[2])
    save_adapter(replace(last, info=replace(last.info, **other)), stranger)
    monkeypatch.setattr(run_picking, "open_studio", None)
    with pytest.raises(AdapterError, match="snapshots of different runs"):
        pick_run(run, scene=scene, device="cpu")
    with pytest.raises(AdapterError, match="snapshots of different runs"):
        take(run, 3)
    shutil.rmtree(stranger)


def test_another_scene_and_a_run_without_snapshots_are_refused(run, scene, bases, tmp_path):
    with pytest.raises(JudgingError, match="not where the training found it"):
        pick_run(run, device="cpu")
    with pytest.raises(JudgingError, match="weights are above 0"):
        pick_run(run, scene=scene, weights=(0.0,), device="cpu")
    made.run(scene, made.recipe(bases["sd1"], steps=(1, 0)), tmp_path)
    with pytest.raises(JudgingError, match="no snapshots"):
        pick_run(tmp_path, scene=scene, device="cpu")


def test_things_that_the_judge_cannot_tell_apart_are_refused_before_any_picture(
    run, scene, bases, monkeypatch
):
    twins = replace(scene, concepts=tuple(replace(one, noun="cat") for one in scene.concepts))
    monkeypatch.setattr(watched_drawing, "render", None)
    studio = open_studio([], base=bases["sd1"], device="cpu")
    plan = usual_plan("fake", Sampling(1), n_seeds=1)
    with pytest.raises(JudgingError, match="two things of one noun"):
        pick(studio, snapshots_of(run), twins, judge=fakes.judge(), plan=plan)


def test_the_usual_choice_is_among_what_is_tried():
    assert 1.0 in WEIGHTS
