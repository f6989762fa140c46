"""The protocols that come with the repository."""

import re
from pathlib import Path

import pytest

from lora_scene.recipe import load_recipe
from lora_scene.scenes.scene import load_scene
from lora_scene.workshop.methods import forwards_of, recipes_of
from lora_scene.workshop.protocol import Protocol, read_protocol
from lora_scene.workshop.trials import planned_work
from tests.devices.__main__ import protocol as shrunk

ROOT = Path(__file__).parents[2] / "benchmarks"
ABLATIONS = {"no-phase1", "no-mask", "no-attention", "no-union"}


@pytest.fixture(params=["mini", "gpu"])
def protocol(request: pytest.FixtureRequest, tmp_path: Path) -> Protocol:
    """Read a protocol; the GPU's scenes are not part of the repository."""
    path = ROOT / "protocols" / f"{request.param}.toml"
    text = path.read_text("utf-8").replace("../", f"{ROOT.as_posix()}/")
    text = text.replace(f"{ROOT.as_posix()}/scenes-gpu/*", "scene")
    text = text.replace(f"{ROOT.as_posix()}/scenes/", "")
    for name in ("scene", "d01", "t01", "m01"):
        (tmp_path / name).mkdir()
    (tmp_path / "protocol.toml").write_text(text, "utf-8")
    return read_protocol(tmp_path / "protocol.toml")


def test_every_method_and_ablation_is_there(protocol: Protocol) -> None:
    names = {method.name for method in protocol.methods}
    assert {"ours", "full", "ti-m", "db-m", "cd-m", "naive", "guided", "pairwise"} <= names
    assert names >= ABLATIONS


def test_trainings_see_as_many_pictures(protocol: Protocol) -> None:
    scene = load_scene(ROOT / "scenes" / "t05-3")
    for run in protocol.runs():
        parts = recipes_of(protocol, run, scene=scene)
        seen = sum(forwards_of(*part) for part in parts)
        wanted = run.method.image_forwards or protocol.image_forwards
        if run.method.kind != "guided":
            assert seen == pytest.approx(wanted, rel=0.01), run.key


def test_an_ablation_differs_from_ours_in_one_thing(protocol: Protocol) -> None:
    recipes = {m.name: load_recipe(m.recipe) for m in protocol.methods if m.name in ABLATIONS}
    assert recipes["no-phase1"].phase1.steps == 0
    assert not recipes["no-mask"].masked_loss.enabled
    assert all(phase.attention_weight == 0 for phase in recipes["no-attention"].phases)
    assert all(phase.sampling == "single" for phase in recipes["no-union"].phases)


def test_the_absent_device_is_asked_for_every_method_of_the_gpu_s_in_little_work(
    tmp_path: Path,
) -> None:
    """On two things: `naive` learns each alone (12), `guided` none; four are the course of others.

    Without phase 1 (8) seven steps ask the base once.
    """
    text = (ROOT / "protocols" / "gpu.toml").read_text("utf-8")
    small = read_protocol(shrunk(tmp_path))
    assert [method.name for method in small.methods] == re.findall(r'^name = "(.+)"', text, re.M)[
        1:
    ]
    assert planned_work(small) == {
        "runs": 17,
        "image_forwards": 8 * 10 + 12 + 8 + (4 + 2) + (6 + 4),
        "pictures": 17 * 2 + 16 * 2,  # each thing; drift's one, with the adapter and without
    }


def test_no_prompt_that_is_judged_is_trained_on(protocol: Protocol) -> None:
    for method in protocol.methods:
        if method.recipe:
            recipe = load_recipe(method.recipe)
            trained = {*recipe.handles.templates, *recipe.prior.prompts}
            assert not trained & set(protocol.drawing.prompts)


def test_tests_share_no_drawing_with_development() -> None:
    nouns = {
        kind: {
            noun
            for folder in sorted((ROOT / "scenes").glob(f"{kind}*-*"))
            for noun in load_scene(folder).nouns
        }
        for kind in ("d", "t", "m")
    }
    assert not nouns["d"] & (nouns["t"] | nouns["m"])


def test_there_are_enough_scenes_of_every_size() -> None:
    sizes = [len(load_scene(path).things) for path in sorted((ROOT / "scenes").glob("t*-*"))]
    many = [len(load_scene(path).things) for path in sorted((ROOT / "scenes").glob("m*-*"))]
    assert len(sizes) >= 12
    assert set(sizes) == {2, 3, 4}
    assert sorted(many) == [6, 6, 8, 8, 10, 10]
