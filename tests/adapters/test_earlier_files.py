from __future__ import annotations

import dataclasses

import pytest

from lora_scene.adapters.exports import export_adapter
from lora_scene.adapters.folder import save_adapter
from lora_scene.adapters.formats.modelspec import Title
from lora_scene.adapters.hub import copy_adapter
from lora_scene.errors import LoraSceneWarning
from tests import tiny
from tests.adapters import made

LORA = "pytorch_lora_weights.safetensors"
TITLE = Title("scene")


def names_in(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def written(how, adapter, folder, tmp_path):
    if how == "save":
        save_adapter(adapter, folder)
    else:
        copy_adapter(save_adapter(adapter, tmp_path / "source"), folder)


@pytest.mark.parametrize("how", ["save", "pull"])
def test_files_for_interfaces_of_an_earlier_version_stay_and_are_told(how, tmp_path):
    pipe, out = tiny.pipeline(), tmp_path / "out"
    export_adapter(made.adapter(pipe, "sd1"), out, title=TITLE)
    earlier = {name: (out / name).read_bytes() for name in names_in(out) if "scene" in name}
    with pytest.warns(LoraSceneWarning) as told:
        written(how, made.adapter(pipe, "sd1", seed=2), out, tmp_path)
    assert [str(one.message) for one in told] == [
        f"{out}: embeddings/scene_bear.safetensors, embeddings/scene_bowl.safetensors:"
        " of an earlier version, taken away with it",
        f"{out}: scene.safetensors, scene_bundle.safetensors: of another version than the adapter"
        " that lies here now; export it anew, or move them away",
    ]
    stay = ["scene.json", "scene.safetensors", "scene_bundle.safetensors"]
    assert names_in(out) == [
        "embeddings/bear.safetensors",
        "embeddings/bowl.safetensors",
        LORA,
        *stay,
    ]
    assert all((out / name).read_bytes() == earlier[name] for name in stay)


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("how", ["save", "pull"])
def test_nothing_is_told_of_files_of_the_same_adapter_in_any_dtype(how, dtype, tmp_path):
    adapter, out = made.adapter(tiny.pipeline(), "sd1", kind="ranks"), tmp_path / "out"
    export_adapter(adapter, out, title=TITLE, layouts=["kohya"], dtype=dtype)
    written(how, adapter, out, tmp_path)
    assert "scene.safetensors" in names_in(out)


def test_a_version_of_a_retouched_photo_is_told_another_scene_is_not(tmp_path):
    pipe = tiny.pipeline()
    retouched = dataclasses.replace(made.INFO, image_hashes=("ef" * 32,))
    for name, handles in (("dogs", ("<dog>",)), ("bears", ("<bear>", "<bowl>"))):
        adapter = made.adapter(pipe, "sd1", handles=handles, seed=2)
        adapter = dataclasses.replace(adapter, info=retouched)
        export_adapter(adapter, tmp_path, title=Title(name), layouts=["kohya"])
    with pytest.warns(LoraSceneWarning, match=r": bears\.safetensors: of another version"):
        save_adapter(made.adapter(pipe, "sd1"), tmp_path)


def test_an_export_under_another_name_says_what_it_takes_away(tmp_path):
    pipe = tiny.pipeline()
    export_adapter(made.adapter(pipe, "sd1"), tmp_path, title=TITLE, layouts=["diffusers"])
    rows = made.adapter(pipe, "sd1", unet=False)
    done = export_adapter(rows, tmp_path, title=Title("new"), layouts=["diffusers"])
    assert [note for note in done.notes if "earlier" in note] == [
        f"embeddings/scene_bear.safetensors, embeddings/scene_bowl.safetensors, {LORA}:"
        " of an earlier version, taken away with it"
    ]
    assert names_in(tmp_path) == [f"embeddings/new_{name}.safetensors" for name in ("bear", "bowl")]
