from __future__ import annotations

import dataclasses

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from lora_scene.adapters.folder import save_adapter
from lora_scene.adapters.merging import merge_adapters
from lora_scene.adapters.whole_model import needs_whole_model, own_model, whole_model
from lora_scene.cli.main import root
from lora_scene.errors import AdapterError, CreationError
from lora_scene.recipe import dump_recipe, load_recipe
from tests import tiny
from tests.adapters import made


def left_by(recipe: str, **kind):
    adapter = made.adapter(tiny.pipeline(), "sd1", **kind)
    info = dataclasses.replace(adapter.info, recipe_toml=recipe)
    return dataclasses.replace(adapter, info=info)


@pytest.mark.parametrize(
    ("recipe", "unet", "needs"),
    [
        (dump_recipe(load_recipe("full")), False, True),
        (dump_recipe(load_recipe("full", ["phase2.steps=0"])), False, False),
        (dump_recipe(load_recipe("sd15")), False, False),  # rows alone
        ("[learning]\nrank = 4\n", False, False),  # of another version
    ],
)
def test_rows_of_a_full_run_need_its_model(recipe, unet, needs):
    assert needs_whole_model(left_by(recipe, unet=unet)) == needs


def test_the_model_beside_the_first_is_taken_and_no_other(tmp_path):
    full = left_by(dump_recipe(load_recipe("full")), unet=False)
    other = left_by(dump_recipe(load_recipe("sd15")))
    assert whole_model(tmp_path) is None
    assert own_model({"other": other}, tmp_path) is None
    with pytest.raises(CreationError, match="full: the whole model"):
        own_model({"full": full}, None)
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    assert own_model({"full": full, "other": other}, tmp_path) == tmp_path / "pipeline"
    with pytest.raises(CreationError, match="second: the whole model"):
        own_model({"full": full, "second": full}, tmp_path)


def test_rows_of_a_full_run_are_not_merged():
    full = left_by(dump_recipe(load_recipe("full")), unet=False)
    other = left_by(dump_recipe(load_recipe("sd15")), handles=("<cat>",))
    with pytest.raises(AdapterError, match="an adapter holds the rows alone"):
        merge_adapters([other, full], [1.0, 1.0])


@pytest.fixture
def full_run(tmp_path):
    """Return the folder of a full run, its model beside the rows."""
    adapter = left_by(dump_recipe(load_recipe("full")), unet=False)
    save_adapter(adapter, tmp_path / "run")
    tiny.pipeline("sd1", seed=4).save_pretrained(tmp_path / "run" / "pipeline")
    return tmp_path / "run"


def test_a_whole_pipeline_of_a_full_run_is_the_model_that_it_trained(full_run, tmp_path):
    words = ["export", str(full_run), "--format", "pipeline", "--dtype", "fp32"]
    done = CliRunner().invoke(root, [*words, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.exception
    file = "unet/diffusion_pytorch_model.safetensors"
    found, trained = (load_file(p / file) for p in (tmp_path / "out", full_run / "pipeline"))
    assert found.keys() == trained.keys()
    assert all(torch.equal(found[key], trained[key]) for key in trained)


@pytest.mark.parametrize(
    "verb", [["export", "--out", "out"], ["push", "--repo", "me/it", "--dry-run"]]
)
def test_who_gives_rows_alone_away_is_told(full_run, tmp_path, monkeypatch, verb):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(root, [verb[0], str(full_run), *verb[1:]])
    assert done.exit_code == 0, done.exception
    assert "on that model and on no other" in " ".join(done.output.split())
