from __future__ import annotations

import dataclasses

import pytest

from lora_scene.errors import CreationError
from lora_scene.learning.whole_model import needs_whole_model, own_model, whole_model
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
