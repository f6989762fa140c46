from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from lora_scene.creating.studio import open_studio
from lora_scene.errors import JudgingError, OutOfMemoryError, RecipeError
from lora_scene.judging.evaluation import evaluate
from lora_scene.judging.judge import Judge
from lora_scene.judging.mini import MiniJudge
from lora_scene.learning.events import Saved
from lora_scene.ownership import unsealed
from lora_scene.scenes.scene import load_scene
from lora_scene.workshop import fingerprints, trials
from lora_scene.workshop.fingerprints import fingerprint_of, refuse_mixed, terms_of
from lora_scene.workshop.protocol import read_protocol
from lora_scene.workshop.results import Row, folder_of, keep_row, known_rows, read_rows
from lora_scene.workshop.trials import (
    Bench,
    do_run,
    open_bench,
    planned_work,
    run_benchmark,
)
from tests.cli.test_evaluate import write_scene
from tests.creating import studios
from tests.judging import fakes

pytestmark = pytest.mark.filterwarnings(studios.QUIET)

TOML = """
name = "tiny"
base = "{base}"
image_forwards = 4
reference = "full"
[scenes]
all = ["scenes/*"]
[drawing]
prompts = ["a photo of {{}} on grass"]
seeds = [0]
steps = 1
n_drift = 1
[curve]
weights = [0, 0.5]
n_prompts = 1
"""
METHOD = """
[[methods]]
name = "{name}"
kind = "{kind}"
scenes = ["all"]
"""
TRAINED = """
recipe = "own.toml"
overrides = [{overrides}]
"""
OWN = """
extends = "sd15"
[base]
resolution = 64
[lora]
rank = 2
[masked_loss]
outside_target = "data"
[augment]
flip_prob = 0
[optimizer]
name = "adamw"
[run]
checkpoint_every = 1
"""


Method = tuple[str, str, str]  # name, kind, overrides
OURS = ("ours", "recipe", "")
FULL = ("full", "recipe", '"phase2.trains=full", "phase2.weights_lr=1e-5"')


def bench_in(folder: Path, base: str, *methods: Method, judge: Judge | None = None) -> Bench:
    (folder / "scenes").mkdir(parents=True, exist_ok=True)
    if not (folder / "scenes" / "a").exists():
        write_scene(folder / "scenes" / "a")
    (folder / "own.toml").write_text(OWN)
    text = TOML.format(base=base).replace('reference = "full"\n', "")
    for name, kind, overrides in methods:
        text += METHOD.format(name=name, kind=kind)
        text += "" if kind == "guided" else TRAINED.format(overrides=overrides)
    path = folder / "protocol.toml"
    path.write_text(text)
    protocol = read_protocol(path)
    return open_bench(protocol, folder / "out", device="cpu", judge=judge or fakes.judge())


@pytest.fixture
def make_bench(tmp_path, bases):
    return partial(bench_in, tmp_path, bases["sd1"])


@pytest.fixture(scope="module")
def only_finished(tmp_path_factory, bases) -> tuple[Bench, Row]:
    bench = bench_in(tmp_path_factory.mktemp("finished"), bases["sd1"], OURS)
    return bench, run_benchmark(bench)[0]


@pytest.fixture
def finished(only_finished, tmp_path) -> tuple[Bench, Row]:
    """Return a bench of its own whose one run is done, and its row."""
    bench, row = only_finished
    shutil.copytree(bench.out, tmp_path / "out")
    return replace(bench, out=tmp_path / "out"), row


def test_a_run_leaves_its_row_its_pictures_and_its_adapter(finished) -> None:
    bench, row = finished
    folder = bench.out / "runs" / "ours" / "all-a-s0"
    assert row["image_forwards"] == 4
    assert row["n_concepts"] == 2
    assert 0 < row["n_parameters"] < 100_000
    learnt = [*folder.glob("adapter0/*.safetensors"), *folder.glob("adapter0/embeddings/*")]
    assert row["n_bytes"] == sum(path.stat().st_size for path in learnt) > 0
    assert set(row["curve"]) == {"0", "0.5"}
    assert len(row["pictures"]) == 3
    assert all((folder / one["file"]).is_file() for one in row["pictures"])
    assert len(list((folder / "pictures-w0.5").glob("*.png"))) == 3
    lines = (bench.out / "results.jsonl").read_text().splitlines()
    assert unsealed(json.loads(lines[0])) == {
        key: row[key] for key in unsealed(row) if key != "pictures"
    }


def test_planned_work_counts_what_a_run_does(make_bench) -> None:
    work = planned_work(make_bench(OURS, FULL).protocol)
    drawn, drift, curve = 3, 2, 2 * 3
    assert work == {"runs": 2, "image_forwards": 8, "pictures": 2 * (drawn + drift) + curve}


def test_full_training_is_measured_against_the_untouched_base_and_not_kept(
    make_bench, bases, monkeypatch
) -> None:
    bench = make_bench(FULL)
    sides = []

    def watched(studio, *args, base, **kwargs):
        sides.extend(dict(one.backbone.unet.state_dict()) for one in (studio, base))
        return evaluate(studio, *args, base=base, **kwargs)

    monkeypatch.setattr(trials, "evaluate", watched)
    [row] = run_benchmark(bench)
    trained, base = sides
    untouched = open_studio([], base=bases["sd1"], device="cpu").backbone.unet.state_dict()
    assert all(torch.equal(base[key], untouched[key]) for key in untouched)
    assert any(not torch.equal(trained[key], untouched[key]) for key in untouched)
    assert row["n_parameters"] > 50_000
    assert row["n_bytes"] > 4 * row["n_parameters"]
    assert row["curve"] == {}
    assert not list(bench.out.rglob("model_index.json"))


def test_a_whole_model_stays_until_its_row_is_kept(make_bench, monkeypatch) -> None:
    bench = make_bench(FULL)
    with monkeypatch.context() as patch:
        patch.setattr(trials, "keep_row", lambda row, folder: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_benchmark(bench)
    assert list(bench.out.rglob("model_index.json"))
    names = []
    evaluate_it = trials.evaluate

    def watched(studio, *args, **kwargs):
        names.append(studio.backbone.name)
        return evaluate_it(studio, *args, **kwargs)

    monkeypatch.setattr(trials, "evaluate", watched)
    run_benchmark(bench)
    assert [Path(name).name for name in names] == ["pipeline"]


def test_a_row_tells_what_others_must_share_with_it(finished, bases) -> None:
    bench, row = finished
    again, other = read_rows(bench.out)[0], replace(bench.protocol, image_forwards=8)
    refuse_mixed([again, {**row, "method": "another"}], "out")
    [run] = bench.protocol.runs()
    told = terms_of(other, run, scene=load_scene(run.scene))
    with pytest.raises(JudgingError, match=r"out: image_forwards: [\s\S]*4 in ours; 8 in another"):
        refuse_mixed([row, {**row, "method": "another", "terms": told}], "out")
    terms = dict(row["terms"])
    shown = terms.pop("scene all/a")
    assert terms == {
        "base": bases["sd1"],
        "image_forwards": 4,
        "drawing.prompts": ["a photo of {} on grass"],
        "drawing.subsets": "edges",
        "drawing.seeds": [0],
        "drawing.steps": 1,
        "drawing.guidance": 7.5,
        "drawing.scheduler": "base",
    }
    assert told["scene all/a"] == shown != _scene_of_another(bench)


def _scene_of_another(bench) -> str:
    [run] = bench.protocol.runs()
    scene = load_scene(run.scene)
    told = terms_of(bench.protocol, run, scene=replace(scene, concepts=scene.concepts[::-1]))
    return told["scene all/a"]


def test_separate_adapters_are_drawn_together(make_bench) -> None:
    bench = make_bench(("naive", "separate", ""))
    [row] = run_benchmark(bench)
    folder = bench.out / "runs" / "naive" / "all-a-s0"
    assert sorted(path.name for path in folder.glob("adapter*")) == ["adapter0", "adapter1"]
    assert set(row["concepts"]) == {"<bear>", "<bowl>"}
    assert row["image_forwards"] == 4


def test_guided_sampling_is_judged_like_the_others(make_bench, clip_folder) -> None:
    eyes = MiniJudge(clip_folder)
    judge = replace(fakes.judge(), captions=eyes)
    bench = make_bench(("guided", "guided", ""), judge=judge)
    [row] = run_benchmark(bench)
    assert (row["image_forwards"], row["n_parameters"], row["n_bytes"]) == (0, 0, 0)
    assert len(row["pictures"]) == 3
    assert row["fingerprint"] != _made_of_another_scene(bench)
    assert np.isfinite(row["summary"]["prompt_similarity"])


def _made_of_another_scene(bench) -> str:
    [run] = bench.protocol.runs()
    scene = load_scene(run.scene)
    other = replace(scene, concepts=scene.concepts[::-1])
    return fingerprint_of(bench.protocol, run, scene=other)


def test_another_version_of_the_embedded_weights_makes_another_run(make_bench, monkeypatch) -> None:
    """Its name stays `mini`: rows of the version before must not pass for those of this one."""
    embedded = read_protocol(Path(__file__).parents[2] / "benchmarks" / "protocols" / "hard.toml")
    foreign = make_bench(("ours", "recipe", "")).protocol

    def made_of(protocol) -> str:
        run = next(protocol.runs())
        return fingerprint_of(protocol, run, scene=load_scene(run.scene))

    before = made_of(embedded), made_of(foreign)
    read = fingerprints.embedded_hashes
    for changed in ("mini", "mini_judge"):
        monkeypatch.setattr(
            fingerprints,
            "embedded_hashes",
            lambda p, name, c=changed: read(p, name) + (name == c) * "x",
        )
        after = made_of(embedded), made_of(foreign)
        assert after[0] != before[0], changed
        assert (after[1] != before[1]) == (changed == "mini_judge"), "the judge alone is embedded"


def test_guided_sampling_needs_a_clip(make_bench) -> None:
    with pytest.raises(JudgingError, match="needs a CLIP"):
        run_benchmark(make_bench(("guided", "guided", "")))


def test_a_finished_run_is_not_done_again(finished) -> None:
    bench, row = finished
    told = []
    [again] = run_benchmark(replace(bench, tell=told.append))
    assert unsealed(again) == unsealed(row)
    assert told == []


def test_a_run_killed_while_it_was_judged_keeps_the_costs_of_its_training(finished) -> None:
    bench, row = finished
    (bench.out / "runs" / row["key"] / "row.json").unlink()
    [again] = run_benchmark(bench)
    costs = ("n_parameters", "seconds", "peak_bytes", "n_bytes")
    assert [again[name] for name in costs] == [row[name] for name in costs]


def test_a_row_from_elsewhere_stands_for_its_run(finished) -> None:
    bench, row = finished
    known = known_rows(bench.out / "results.jsonl")
    told = []
    elsewhere = replace(bench, out=bench.out.with_name("elsewhere"), tell=told.append)
    [carried] = run_benchmark(elsewhere, known=known)
    assert unsealed(carried) == {**unsealed(row), "pictures": []}
    assert told == ["1 of 1 known rows are taken up"]


def test_a_carried_row_has_no_pictures_though_it_came_with_some(finished) -> None:
    bench, row = finished
    assert row["pictures"]  # as `--json` prints them
    elsewhere = replace(bench, out=bench.out.with_name("elsewhere"))
    [carried] = run_benchmark(elsewhere, known={(row["key"], row["fingerprint"]): row})
    assert carried["pictures"] == []


def test_a_row_of_another_drawing_does_not_stand_for_a_run(finished) -> None:
    bench, _ = finished
    known = known_rows(bench.out / "results.jsonl")
    drawing = replace(bench.protocol.drawing, seeds=(1,))
    other = replace(bench.protocol, drawing=drawing)
    told = []
    out = bench.out.with_name("elsewhere")
    bench = replace(bench, protocol=other, out=out, tell=told.append)
    assert run_benchmark(bench, known=known, max_runs=0) == []
    assert told == [
        "0 of 1 known rows are taken up; "
        "those of 1 runs are of another recipe, scene, drawing or version"
    ]


def test_a_killed_run_goes_on_where_it_stood(make_bench, finished) -> None:
    bench = make_bench(OURS)
    shutil.rmtree(bench.out)

    def kill(event) -> None:
        if isinstance(event, Saved) and event.what == "checkpoint":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_benchmark(replace(bench, listener=kill))
    assert read_rows(bench.out) == []
    seen = []
    [row] = run_benchmark(replace(bench, listener=seen.append))
    starts = [event.first_step for event in seen if hasattr(event, "first_step")]
    assert starts == [1, 0]
    assert row["summary"] == finished[1]["summary"]


@pytest.fixture
def quick_runs(monkeypatch):
    """Let a run leave a row and do nothing else."""

    def do_run(bench, run, *, scene, made_of):
        folder = folder_of(bench.out, run)
        summary: dict = {"summary": {}, "curve": {}, "nouns": [], "n_concepts": 2, "seed": run.seed}
        words = ("method", "judge", "course_of")
        counts = ("seconds", "judging_seconds", "n_parameters", "n_bytes", "peak_bytes")
        keep_row(
            {
                **dict.fromkeys(words, ""),
                **dict.fromkeys(counts, 0),
                "image_forwards": 0,
                **summary,
                "group": run.group,
                "scene": "a",
                "key": run.key,
                "fingerprint": made_of,
            },
            folder,
        )

    monkeypatch.setattr(trials, "do_run", do_run)


def test_parts_share_the_runs_without_overlap(make_bench, quick_runs) -> None:
    bench = make_bench(OURS, ("other", "recipe", '"lora.rank=1"'))
    told: list[str] = []
    bench = replace(bench, tell=told.append)
    assert len(run_benchmark(bench, part=(1, 2))) == 1
    assert len(run_benchmark(bench, part=(2, 2))) == 2
    assert len(told) == 2
    with pytest.raises(JudgingError, match="no such part"):
        run_benchmark(bench, part=(3, 2))


def test_rows_of_another_recipe_are_refused(make_bench, quick_runs) -> None:
    run_benchmark(make_bench(OURS))
    with pytest.raises(JudgingError, match="other recipes"):
        run_benchmark(make_bench(("ours", "recipe", '"lora.rank=1"')))


def test_no_more_runs_are_begun_than_allowed(make_bench, quick_runs) -> None:
    bench = make_bench(OURS, ("other", "recipe", '"lora.rank=1"'))
    assert len(run_benchmark(bench, max_runs=1)) == 1
    assert len(run_benchmark(bench)) == 2


def test_a_wrong_recipe_of_a_later_run_is_told_before_the_first(make_bench, quick_runs) -> None:
    bench = make_bench(OURS, ("other", "recipe", '"lora.rank=0"'))
    with pytest.raises(RecipeError, match=r"lora\.rank"):
        run_benchmark(bench)
    assert read_rows(bench.out) == []


def test_things_that_the_judge_cannot_tell_apart_are_refused_before_training(
    make_bench, monkeypatch
) -> None:
    bench = make_bench(OURS)
    [run] = bench.protocol.runs()
    text = (run.scene / "scene.toml").read_text()
    (run.scene / "scene.toml").write_text(text.replace('"bowl"', '"bear"'))
    monkeypatch.setattr(trials, "train_method", None)
    with pytest.raises(JudgingError, match="two things of one noun"):
        run_benchmark(bench)
    with pytest.raises(JudgingError, match="two things of one noun"):
        do_run(bench, run, scene=load_scene(run.scene), made_of="")
    assert run_benchmark(bench, max_runs=0) == []


def test_a_run_that_is_too_large_for_memory_does_not_stop_the_others(
    make_bench, quick_runs, monkeypatch
) -> None:
    bench = make_bench(OURS, ("other", "recipe", '"lora.rank=1"'))
    quick, errors = trials.do_run, [OutOfMemoryError("out of memory", hint="try --set x=1")]

    def large_once(bench, run, *, scene, made_of):
        if errors:
            raise errors.pop()
        quick(bench, run, scene=scene, made_of=made_of)

    monkeypatch.setattr(trials, "do_run", large_once)
    told: list[str] = []
    bench = replace(bench, tell=told.append)
    assert [row["key"] for row in run_benchmark(bench)] == ["other/all-a-s0"]
    assert any(
        "ours/all-a-s0 ran out of memory and is left undone; try --set x=1" in one for one in told
    )
    assert len(run_benchmark(bench)) == 2, "the same command again does it"


def test_another_error_of_a_run_is_raised(make_bench, quick_runs, monkeypatch) -> None:
    def broken(*args, **kwargs):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(trials, "do_run", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        run_benchmark(make_bench(OURS))
