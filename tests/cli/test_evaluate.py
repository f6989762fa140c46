from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from lora_scene.adapters.folder import save_adapter
from lora_scene.cli.evaluation_view import MEANINGS
from lora_scene.cli.main import root
from lora_scene.errors import FileError, JudgingError
from lora_scene.scenes.scene import load_scene
from tests import tiny
from tests.adapters import made
from tests.creating import studios
from tests.judging import fakes

pytestmark = pytest.mark.filterwarnings(studios.QUIET)

SCENE = """
images = ["img.png"]
[[concepts]]
handle = "<bear>"
noun = "bear"
masks = ["mask0.png"]
[[concepts]]
handle = "<bowl>"
noun = "bowl"
masks = ["mask1.png"]
"""


def write_scene(folder: Path) -> Path:
    photo = fakes.scene().photos[0]
    folder.mkdir()
    Image.fromarray(photo.pixels).save(folder / "img.png")
    for k, mask in enumerate(photo.masks):
        Image.fromarray((mask * 255).astype(np.uint8)).save(folder / f"mask{k}.png")
    (folder / "scene.toml").write_text(SCENE)
    return folder


@pytest.fixture
def evaluate(bases, tmp_path, monkeypatch):
    pipeline = tiny.pipeline("sd1")
    save_adapter(made.adapter(pipeline, "sd1"), tmp_path / "adapter")
    write_scene(tmp_path / "scene")
    monkeypatch.setattr("lora_scene.judging.judge.load_judge", lambda *a, **k: fakes.judge())

    def run(*extra: str, seeds: int = 1):
        command = ["evaluate", str(tmp_path / "adapter"), "--scene", str(tmp_path / "scene")]
        command += ["--prompt", "a photo of {} on grass", "--steps", "1", "--seeds", str(seeds)]
        command += ["--device", "cpu", "--base", bases["sd1"]]  # no adapter keeps a path
        return CliRunner().invoke(root, [*command, *extra], catch_exceptions=False)

    return run


def test_evaluate_shows_what_was_measured_and_keeps_the_pictures(evaluate, tmp_path):
    result = evaluate("--out", str(tmp_path / "kept"))
    assert result.exit_code == 0, result.output
    assert "missing rate" in result.stdout
    assert "<bowl>" in result.stdout
    assert len(list((tmp_path / "kept").glob("*.png"))) == 3


def test_every_metric_that_is_shown_is_explained_under_the_name_that_it_has_there():
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8").lower()
    assert [key for key in MEANINGS if key not in page.replace(" ", "_")] == []


def test_the_embedded_judge_is_taken_for_its_own_base_alone(evaluate, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "lora_scene.judging.judge.load_judge", lambda name, **_: asked.append(name) or fakes.judge()
    )
    assert "has never seen" not in evaluate().stderr
    assert "has never seen bear or bowl" in evaluate("--judge", "mini").stderr
    assert asked == ["clip+dino", "mini"]


def test_the_parts_of_a_judge_that_is_not_asked_are_refused(evaluate):
    done = evaluate("--judge", "mini", "--clip", "some/clip", "--finder", "clipseg")
    assert done.exit_code == 2
    assert "--judge clip+dino; leave out --clip, --finder" in done.stderr


def test_a_photo_that_the_adapter_was_not_learnt_from_is_told(evaluate, tmp_path):
    assert "img.png: not what the adapter was learnt from" in evaluate().stderr
    told = load_scene(tmp_path / "scene").photos[0].digest
    own = made.adapter(tiny.pipeline("sd1"), "sd1")
    own = replace(own, info=replace(own.info, image_hashes=(told,)))
    shutil.rmtree(tmp_path / "adapter")
    save_adapter(own, tmp_path / "adapter")
    assert "not what the adapter was learnt from" not in evaluate().stderr


def test_evaluate_prints_json_alone(evaluate):
    report = json.loads(evaluate("--json", "--subsets", "singles").stdout)
    assert report["judge"] == "fake"
    assert len(report["pictures"]) == 2
    assert set(report["concepts"]) == {"<bear>", "<bowl>"}


def test_evaluate_compares_whole_sets_and_warns_of_small_ones(evaluate, tmp_path):
    reference = tmp_path / "reference"
    reference.mkdir()
    for n in range(5):
        Image.fromarray(fakes.picture((250, 50 * n, 10), None)).save(reference / f"{n}.png")
    options = ("--against", str(reference))
    shown = " ".join(evaluate(*options, seeds=2).stdout.split())
    assert "FID" in shown
    assert "5 pictures are few" in shown
    kept = tmp_path / "kept"
    told = json.loads(evaluate(*options, "--json", "--out", str(kept), seeds=2).stdout)
    assert told["sets"]["n_generated"] == 6
    assert json.loads((kept / "evaluation.json").read_text("utf-8"))["sets"] == told["sets"]


def test_what_was_measured_is_told_though_it_cannot_be_written(evaluate, tmp_path, monkeypatch):
    def full(*_):
        raise FileError("the disk is full")

    monkeypatch.setattr("lora_scene.judging.evaluation.save_evaluation", full)
    printed = []
    monkeypatch.setattr("lora_scene.cli.evaluation_view.show_evaluation", printed.append)
    with pytest.raises(FileError, match="the disk is full"):
        evaluate("--out", str(tmp_path / "kept"))
    assert printed[0].summary["exact_set"] is not None


def test_what_cannot_be_evaluated_is_told_before_the_base_is_loaded(
    evaluate, tmp_path, monkeypatch
):
    monkeypatch.setattr("lora_scene.creating.studio.load_pipeline", None)
    with pytest.raises(JudgingError, match="nothing to draw"):
        evaluate("--prompt", "a photo")
    (tmp_path / "few").mkdir()
    for n, seeds in ((3, 2), (5, 1)):  # three pictures a seed: one thing, the other, both
        for k in range(n):
            Image.fromarray(fakes.picture(fakes.RED, None)).save(tmp_path / "few" / f"{k}.png")
        told = rf"too few pictures(.|\n)*{n} reference pictures, {3 * seeds} drawn"
        with pytest.raises(JudgingError, match=told):
            evaluate("--against", str(tmp_path / "few"), seeds=seeds)
    (tmp_path / "scene" / "scene.toml").write_text(SCENE.replace("<bowl>", "<cup>"))
    with pytest.raises(JudgingError, match="from another scene"):
        evaluate()


def test_a_target_that_is_somebody_elses_is_refused_before_the_work(evaluate, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "evaluation.json").write_text("mine")
    with pytest.raises(FileError, match="did not write"):
        evaluate("--out", str(tmp_path / "kept"))
    assert (tmp_path / "kept" / "evaluation.json").read_text() == "mine"
