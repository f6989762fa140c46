from __future__ import annotations

import dataclasses
import errno
import json
import shutil
import tomllib

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

from lora_scene.adapters.exports import export_adapter
from lora_scene.adapters.folder import read_adapter, save_adapter
from lora_scene.adapters.formats.modelspec import Title
from lora_scene.adapters.model_card import CardFacts, write_card
from lora_scene.errors import AdapterError, FileError
from tests import tiny
from tests.adapters import made

LORA = "pytorch_lora_weights.safetensors"


def assert_same_adapter(one, other):
    assert one.family == other.family
    assert one.info == other.info
    assert [dataclasses.replace(c, rows=()) for c in one.concepts] == [
        dataclasses.replace(c, rows=()) for c in other.concepts
    ]
    for a, b in zip(one.concepts, other.concepts, strict=True):
        for x, y in zip(a.rows, b.rows, strict=True):
            assert torch.equal(x, y)
    assert set(one.modules) == set(other.modules)
    for key, module in one.modules.items():
        found = other.modules[key]
        assert torch.equal(module.down, found.down)
        assert torch.equal(module.up, found.up)
        assert module.alpha == found.alpha


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("kind", ["lora", "ranks", "conv"])
def test_reading_gives_back_the_folded_adapter_bit_for_bit(family, kind, tmp_path):
    pipe = tiny.pipeline(family)
    adapter = made.adapter(pipe, family, kind=kind, text=True, n_vectors=2)
    read = read_adapter(save_adapter(adapter, tmp_path))
    assert_same_adapter(read, adapter.folded())
    for key, module in adapter.modules.items():
        found, trained = made.update(read.modules[key]), made.update(module)
        assert torch.allclose(found, trained, rtol=1e-6, atol=1e-6)
        assert read.modules[key].scale == 1.0
    again = read_adapter(save_adapter(read, tmp_path / "again"))
    assert_same_adapter(again, read)


def test_rows_alone_round_trip_without_a_lora_file(tmp_path):
    adapter = made.adapter(tiny.pipeline(), "sd1", unet=False)
    read = read_adapter(save_adapter(adapter, tmp_path))
    assert_same_adapter(read, adapter)
    assert not (tmp_path / LORA).exists()


def test_the_file_has_the_keys_that_every_diffusers_reads(tmp_path):
    adapter = made.adapter(tiny.pipeline(), "sd1", text=True, kind="ranks")
    save_adapter(adapter, tmp_path)
    with safe_open(tmp_path / LORA, "pt") as file:
        metadata = file.metadata()
    assert "lora_adapter_metadata" not in metadata
    assert set(metadata) - {key for key in metadata if key.startswith("lora_scene.")} == {"format"}
    tensors = load_file(tmp_path / LORA)
    layers = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"
    assert f"unet.{layers}.lora.down.weight" in tensors
    text = "text_encoder.text_model.encoder.layers.1.self_attn.q_proj"
    assert f"{text}.lora_linear_layer.up.weight" in tensors
    downs = [value.shape[0] for key, value in tensors.items() if key.endswith(".down.weight")]
    assert set(downs) == {4}, "differing ranks must be padded to one, or old readers scale wrongly"
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def foreign_embedding():
    return save({"emb_params": torch.ones(1, 32)})


def test_saving_keeps_samples_and_replaces_an_earlier_adapter(tmp_path):
    pipe = tiny.pipeline()
    save_adapter(made.adapter(pipe, "sd1", handles=("<bear>", "<old>")), tmp_path)
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "0.png").write_bytes(b"picture")
    (tmp_path / "embeddings" / "foreign.safetensors").write_bytes(foreign_embedding())
    later = made.adapter(pipe, "sd1", unet=False, seed=3)
    assert_same_adapter(read_adapter(save_adapter(later, tmp_path)), later)
    names = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert names == [
        "embeddings/bear.safetensors",
        "embeddings/bowl.safetensors",
        "embeddings/foreign.safetensors",
        "samples/0.png",
    ]


def test_the_same_adapter_gives_the_same_bytes(tmp_path):
    adapter = made.adapter(tiny.pipeline(), "sd1", text=True)
    for name in ("one", "two"):
        save_adapter(adapter, tmp_path / name)
    for path in (tmp_path / "one").rglob("*.safetensors"):
        twin = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == twin.read_bytes()


def test_a_failed_save_leaves_the_earlier_adapter(tmp_path, monkeypatch):
    pipe = tiny.pipeline()
    first = made.adapter(pipe, "sd1")
    save_adapter(first, tmp_path)

    def fail(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lora_scene.adapters.folder.write_tensors", fail)
    with pytest.raises(FileError, match="the disk is full"):
        save_adapter(made.adapter(pipe, "sd1", seed=9), tmp_path)
    assert_same_adapter(read_adapter(tmp_path), first.folded())
    assert not list(tmp_path.glob(".*"))


def test_what_others_put_into_the_folder_is_never_replaced(tmp_path):
    adapter = made.adapter(tiny.pipeline(), "sd1")
    for name in (LORA, "embeddings/bear.safetensors"):
        folder = tmp_path / name.replace("/", "-")
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(foreign_embedding())
        with pytest.raises(FileError):
            save_adapter(adapter, folder)
        assert (folder / name).read_bytes() == foreign_embedding()
        assert [path for path in folder.rglob("*") if path.is_file()] == [folder / name]


def test_an_unreadable_neighbour_does_not_stop_a_save(tmp_path):
    (tmp_path / "embeddings").mkdir()
    for name in ("._bear.safetensors", "half.safetensors"):
        (tmp_path / "embeddings" / name).write_bytes(b"half a file")
    adapter = made.adapter(tiny.pipeline(), "sd1")
    assert_same_adapter(read_adapter(save_adapter(adapter, tmp_path)), adapter.folded())
    assert (tmp_path / "embeddings" / "half.safetensors").read_bytes() == b"half a file"


# What leaves the machine says nothing of the machine.


@pytest.mark.parametrize(
    "path",
    [
        "/home/jane-doe/models/base",
        "C:\\Users\\jane-doe\\base",
        "~/jane-doe/base",
        "../jane-doe/base",
    ],
)
def test_no_path_of_the_machine_is_in_any_file_or_card(path, tmp_path):
    adapter = made.adapter(tiny.pipeline(), "sd1")
    quoted = json.dumps(path)
    recipe = f"[base]\nmodel = {quoted}\n[run]\nnote = '/srv/jane-doe/prior'\n"
    info = dataclasses.replace(adapter.info, base_model=path, recipe_toml=recipe)
    adapter = dataclasses.replace(adapter, info=info)
    save_adapter(adapter, tmp_path / "saved")
    export_adapter(adapter, tmp_path / "out", title=Title("plush"))
    (tmp_path / "card.md").write_text(write_card(adapter, CardFacts("plush", "someone/plush")))
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) == 10
    for file in files:
        assert b"jane-doe" not in file.read_bytes(), file
    read = read_adapter(tmp_path / "saved").info
    assert read.base_model == "base"
    assert tomllib.loads(read.recipe_toml) == {"base": {"model": "base"}, "run": {"note": "prior"}}


def test_a_folder_that_cannot_be_written_is_said_plainly(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError, match="is a file, not a folder"):
        save_adapter(made.adapter(tiny.pipeline(), "sd1"), tmp_path / "file" / "scene")


def test_files_of_two_saves_are_not_mixed(tmp_path):
    pipe = tiny.pipeline()
    save_adapter(made.adapter(pipe, "sd1"), tmp_path / "one")
    save_adapter(made.adapter(pipe, "sd1", seed=2), tmp_path / "two")
    shutil.copy(tmp_path / "one" / "embeddings" / "bear.safetensors", tmp_path / "two/embeddings")
    with pytest.raises(AdapterError, match="do not belong together"):
        read_adapter(tmp_path / "two")


def test_magnitudes_of_dora_are_refused_not_dropped(tmp_path):
    adapter = made.adapter(tiny.pipeline(), "sd1")
    path = save_adapter(adapter, tmp_path) / LORA
    key, module = next(iter(adapter.modules.items()))
    magnitude = {f"{key}.lora_magnitude_vector": torch.ones(module.shape[0])}
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(load_file(path) | magnitude, path, metadata)
    with pytest.raises(AdapterError, match=r"a DoRA adapter: 1 of its modules"):
        read_adapter(tmp_path)


@pytest.mark.parametrize(
    "handle", ["<a/b>", "<..>", "../x", "[bear]", "< >", "<" + "a" * 150 + ">", "<CON>", "<lpt9>"]
)
def test_a_handle_that_is_no_file_name_is_refused(handle, tmp_path):
    adapter = made.adapter(tiny.pipeline(), "sd1", handles=(handle,))
    with pytest.raises(AdapterError, match=r"an illegal handle|Windows cannot hold"):
        save_adapter(adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_foreign_lora_is_not_taken_for_ours(tmp_path):
    save_file({"unet.a.lora.down.weight": torch.ones(1, 1)}, tmp_path / LORA)
    with pytest.raises(AdapterError, match="no adapter of lora_scene"):
        read_adapter(tmp_path)


@pytest.mark.parametrize("name", ["._x.safetensors", "half.safetensors", "._bear.safetensors"])
def test_foreign_and_half_files_beside_an_adapter_neither_stop_it_nor_go(name, tmp_path):
    adapter = made.adapter(tiny.pipeline(), "sd1", unet=False)
    (tmp_path / "embeddings").mkdir()
    for folder in (tmp_path, tmp_path / "embeddings"):
        (folder / name).write_bytes(b"\xf8\x04" * 9)
    save_adapter(adapter, tmp_path)
    assert_same_adapter(read_adapter(tmp_path), adapter)
    assert (tmp_path / "embeddings" / name).read_bytes() == b"\xf8\x04" * 9


def test_a_foreign_file_of_the_adapters_own_name_is_not_replaced(tmp_path):
    save_file({"unet.a.lora.down.weight": torch.ones(1, 1)}, tmp_path / LORA)
    before = (tmp_path / LORA).read_bytes()
    with pytest.raises(FileError, match="did not write"):
        save_adapter(made.adapter(tiny.pipeline(), "sd1"), tmp_path)
    assert (tmp_path / LORA).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [LORA]


def test_embeddings_that_are_a_link_are_not_followed(tmp_path):
    pipe = tiny.pipeline()
    theirs = save_adapter(made.adapter(pipe, "sd1", seed=5), tmp_path / "theirs")
    before = {path: path.read_bytes() for path in theirs.rglob("*.safetensors")}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "embeddings").symlink_to(theirs / "embeddings")
    with pytest.raises(FileError, match="symbolic link"):
        save_adapter(made.adapter(pipe, "sd1"), tmp_path / "out")
    assert {path: path.read_bytes() for path in theirs.rglob("*.safetensors")} == before
