from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from lora_scene.adapters.folder import save_adapter
from lora_scene.adapters.layers import lora_layers
from lora_scene.backbones.backbone import Backbone
from lora_scene.creating.choices import AdapterChoice
from lora_scene.creating.generation import draw
from lora_scene.creating.records import differences, parse_record, provenance
from lora_scene.creating.requests import Control, Place, Request, Sampling
from lora_scene.creating.studio import open_studio
from lora_scene.errors import BackboneError, CreationError
from lora_scene.recipe import dump_recipe, load_recipe
from tests import tiny
from tests.adapters import made
from tests.creating.studios import assemble_studio, studio

QUICK = Sampling(2, 3.0)


def trained_on(adapter, **info):
    return dataclasses.replace(adapter, info=dataclasses.replace(adapter.info, **info))


def test_the_base_that_an_adapter_names_is_loaded_unless_another_is_given(tmp_path):
    folder = tiny.folder("sd1", str(tmp_path), seed=48)  # of whose weights no other test takes note
    pipeline = tiny.pipeline("sd1", seed=48)
    adapter = trained_on(
        made.adapter(pipeline, "sd1"),
        base_model=folder,
        base_hash=Backbone(pipeline, name="x").content_hash(),
    )
    one = open_studio([save_adapter(adapter, tmp_path / "scene")], device="cpu")
    assert one.backbone.name == folder
    assert one.notices == ()
    assert provenance(one)["base"]["name"] == "sd1-48"
    with pytest.raises(BackboneError, match="no such base"):
        open_studio([tmp_path / "scene"], base=tmp_path / "other", device="cpu")


def test_a_fully_trained_base_beside_the_adapter_is_taken(tmp_path):
    adapter = made.adapter(tiny.pipeline("sd1"), "sd1")
    save_adapter(adapter, tmp_path / "scene")
    tiny.pipeline("sd1", seed=4).save_pretrained(tmp_path / "scene" / "pipeline")
    one = open_studio([tmp_path / "scene"], device="cpu")
    assert one.backbone.name == str(tmp_path / "scene" / "pipeline")
    assert one.notices == ()


def test_rows_whose_whole_model_is_gone_are_not_drawn_on_another(tmp_path):
    rows = made.adapter(tiny.pipeline("sd1"), "sd1", unet=False)
    whole = trained_on(rows, recipe_toml=dump_recipe(load_recipe("full")))
    save_adapter(whole, tmp_path / "scene")
    other = made.adapter(tiny.pipeline("sd1"), "sd1", handles=("<cat>",))
    for adapters in ([tmp_path / "scene"], [whole], [other, tmp_path / "scene"]):
        with pytest.raises(CreationError, match="whole model that its run trained is not there"):
            open_studio(adapters, device="cpu")
    tiny.pipeline("sd1", seed=4).save_pretrained(tmp_path / "model")
    one = open_studio([tmp_path / "scene"], base=tmp_path / "model", device="cpu")
    assert one.backbone.name == str(tmp_path / "model")


@pytest.mark.parametrize("name", ["tiny", "someone/tiny-base"])
def test_a_base_of_other_weights_is_told_whatever_it_is_called(name):
    pipeline = tiny.pipeline("sd1")
    choice = AdapterChoice(made.adapter(pipeline, "sd1"))
    one = assemble_studio(pipeline, [choice], name=name)
    (notice,) = one.notices
    for told in ("someone/tiny-base", "sha256 abababababab", name, one.base_hash[:12]):
        assert told in notice
    assert "may look different" in notice


def test_without_a_base_or_an_adapter_there_is_nothing_to_open():
    with pytest.raises(CreationError, match="neither an adapter nor a base"):
        open_studio([])


def test_handles_are_found_by_their_stem_in_any_case():
    assert studio().find_handle("BEAR") == "<bear>"
    assert studio().handles_in("a <BOWL> and a <bear> on a <bowl>") == ("<bowl>", "<bear>")
    assert studio().without_handles("a <Bear> < 3") == "a noun 0 < 3"
    assert studio().background == "<bowl>"
    assert studio().things == ("<bear>",)


def test_weights_are_put_back_after_an_error_too():
    one = studio()
    before = [dict(layer.scaling) for layer in lora_layers(one.pipeline, "unet")]
    with one.weighted(0.0):
        scalings = [set(layer.scaling.values()) for layer in lora_layers(one.pipeline, "unet")]
        assert all(scaling == {0.0} for scaling in scalings)
    with pytest.raises(RuntimeError), one.weighted(0.0):
        raise RuntimeError
    assert [dict(layer.scaling) for layer in lora_layers(one.pipeline, "unet")] == before


def test_two_adapters_are_weighed_one_by_one():
    pipeline = tiny.pipeline("sd1")
    pair = [
        AdapterChoice(made.adapter(pipeline, "sd1", handles=(handle,), seed=seed), weight)
        for handle, seed, weight in (("<cup>", 1, 0.5), ("<hat>", 2, 2.0))
    ]
    one = assemble_studio(pipeline, pair)
    layer = lora_layers(pipeline, "unet")[0]
    assert layer.scaling == {"cup": 0.5, "hat": 2.0}
    with one.weighted({"hat": 0.25}):
        assert layer.scaling == {"cup": 0.5, "hat": 0.5}


def test_adapters_whose_folders_have_no_latin_letter_get_names_of_their_own(tmp_path):
    pipeline = tiny.pipeline("sd1")
    folders = [tmp_path / "медведь", tmp_path / "чаша"]
    for folder, handle in zip(folders, ("<cup>", "<hat>"), strict=True):
        save_adapter(made.adapter(pipeline, "sd1", handles=(handle,)), folder)
    one = assemble_studio(tiny.pipeline("sd1"), [AdapterChoice(folder) for folder in folders])
    assert [adapter.name for adapter in one.adapters] == ["adapter", "adapter_2"]


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_half_precision_draws_and_places_too(family):
    pipeline = tiny.pipeline(family).to(torch.bfloat16)
    adapter = made.adapter(tiny.pipeline(family), family)
    one = assemble_studio(pipeline, [AdapterChoice(adapter)])
    control = Control((Place("<bear>", (0, 0, 0.5, 1)),), (("<bear>", 0.5),), (("<bear>", 2.0),))
    picture = next(draw(one, [Request("a <bear>", sampling=QUICK, control=control)]))[1]
    assert picture.pixels.std() > 0
    assert picture.record["dtype"] == "bfloat16"


def test_a_base_in_low_bits_draws_nearly_the_same(tmp_path):
    folder = tiny.folder("sd1", str(tmp_path))
    whole, low = (
        open_studio([], base=folder, device="cpu", quantization=kind) for kind in ("none", "int8")
    )
    pictures = [next(draw(one, [Request("a bear", sampling=QUICK)]))[1] for one in (whole, low)]
    assert np.abs(pictures[0].pixels.astype(int) - pictures[1].pixels).mean() < 3
    assert pictures[1].record["base"]["hash"] == ""
    notices = differences(low, parse_record(pictures[0].record))
    assert "made with quantization none, now int8" in notices[0]
