from __future__ import annotations

import dataclasses
import datetime
import json
import math
import re
import weakref

import pytest
import torch
from click.testing import CliRunner
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from benchmarks.full_size import clip_tokenizer
from lora_scene.adapters import stated, verification
from lora_scene.adapters.adapter import LoraModule
from lora_scene.adapters.exports import LAYOUTS, export_adapter
from lora_scene.adapters.folder import read_adapter, save_adapter
from lora_scene.adapters.formats.metadata import fingerprint
from lora_scene.adapters.formats.modelspec import Title
from lora_scene.adapters.gallery import SamplePicture, last_samples
from lora_scene.adapters.verification import refuse_failures, verify_path
from lora_scene.adapters.whole_pipeline import export_pipeline
from lora_scene.backbones.backbone import Backbone
from lora_scene.cli.main import root
from lora_scene.errors import AdapterError, FileError, VerificationError
from tests import tiny
from tests.adapters import made
from tests.backbones import ldm

TITLE = Title("scene", "someone", "openrail++", datetime.date(2026, 11, 22))


def exported(adapter, out, **kwargs):
    return export_adapter(adapter, out, title=TITLE, **kwargs)


def metadata_of(path):
    with safe_open(path, "pt") as file:
        return file.metadata()


@pytest.mark.parametrize(
    ("family", "kind", "text", "n_vectors", "dtype"),
    [
        ("sd1", "lora", True, 1, "fp32"),
        ("sd1", "ranks", True, 3, "fp16"),
        ("sd2", "lora", True, 2, "bf16"),
        ("sdxl", "ranks", True, 2, "fp32"),
        ("sdxl", "lora", False, 1, "fp16"),
        ("sd1", "conv", True, 1, "fp16"),
        ("sdxl", "conv", False, 1, "fp32"),
    ],
)
def test_every_exported_file_is_verified_against_the_trained_adapter(
    family, kind, text, n_vectors, dtype, tmp_path
):
    pipe = tiny.pipeline(family)
    adapter = made.adapter(pipe, family, kind=kind, text=text, n_vectors=n_vectors)
    exported(adapter, tmp_path, dtype=dtype)
    checks = verify_path(tmp_path, lambda: tiny.pipeline(family), reference=adapter)
    refuse_failures(checks)
    assert len(checks) == 3 + len(adapter.concepts)
    for check in checks:
        assert check.n_matched == check.n_expected > 0
        assert check.effect > 1e-3
    assert read_adapter(tmp_path).modules.keys() == adapter.modules.keys()


def test_verifying_holds_one_base_at_a_time_and_few_updates(tmp_path, monkeypatch):
    """Of SDXL a base takes 14 GB in float32, and the updates of its adapted layers 4."""
    adapter = made.adapter(tiny.pipeline("sd1"), "sd1", kind="ranks", text=True)
    exported(adapter, tmp_path)
    bases, updates, most = [], [], [0]

    def open_base():
        assert [base() for base in bases if base() is not None] == []
        pipeline = tiny.pipeline("sd1")
        bases.append(weakref.ref(pipeline.unet))
        return pipeline

    def counted(make):
        def update(*given):
            made_of = make(*given)
            updates.append(weakref.ref(made_of))
            most[0] = max(most[0], sum(each() is not None for each in updates))
            return made_of

        return update

    monkeypatch.setattr(verification, "_loaded_update", counted(verification._loaded_update))
    monkeypatch.setattr(verification, "_flat_update", counted(verification._flat_update))
    monkeypatch.setattr(stated, "_update", counted(stated._update))
    refuse_failures(verify_path(tmp_path, open_base, reference=adapter))
    assert len(bases) == 1 + 3 + len(adapter.concepts)
    assert len(updates) > 6 * len(adapter.modules)
    assert most == [2], "one that is found, beside the one that is wanted"


def test_the_kohya_file_carries_what_interfaces_look_for(tmp_path):
    pipe = tiny.pipeline("sd2")
    adapter = made.adapter(pipe, "sd2", kind="ranks", text=True)
    info = dataclasses.replace(made.INFO, prediction_type="v_prediction")
    alone = exported(dataclasses.replace(adapter, info=info), tmp_path, layouts=["kohya"])
    assert "scene.safetensors holds no handles" in alone.notes[0]
    whole = exported(adapter, tmp_path / "whole")
    assert "a photo of scene_bear and scene_bowl" in whole.notes[0]
    assert "files of embeddings/" in (tmp_path / "whole" / "scene.json").read_text()
    tensors = load_file(tmp_path / "scene.safetensors")
    downs = [key for key in tensors if key.endswith(".lora_down.weight")]
    assert len(downs) == len(adapter.modules) == len(tensors) / 3
    for key in downs:
        alpha = tensors[key.replace(".lora_down.weight", ".alpha")]
        assert alpha.item() == tensors[key].shape[0] == 4
    assert "lora_te_text_model_encoder_layers_0_self_attn_q_proj.alpha" in tensors
    found = metadata_of(tmp_path / "scene.safetensors")
    assert found["modelspec.architecture"] == "stable-diffusion-v2-768-v/lora"
    assert found["modelspec.prediction_type"] == "v"
    assert found["modelspec.date"] == "2026-11-22"
    assert found["modelspec.license"] == "openrail++"
    assert (found["ss_v2"], found["ss_base_model_version"]) == ("True", "sd_v2_v")
    assert (found["ss_network_dim"], found["ss_network_alpha"]) == ("4", "4.0")
    assert found["ss_network_args"] == "{}"
    assert json.loads(found["ss_tag_frequency"]) == {"scene": {"scene_bear": 1, "scene_bowl": 1}}
    beside = json.loads((tmp_path / "scene.json").read_text())
    assert beside["activation text"] == "scene_bear, scene_bowl"
    assert "which this file has not" in beside["description"]
    assert beside["tags"] == ["scene_bear", "scene_bowl"]
    assert found["modelspec.trigger_phrase"] == "<scene_bear>, <scene_bowl>"
    assert beside["sd version"] == "SD2"


def test_the_kohya_file_states_the_rank_of_its_convolutions(tmp_path):
    adapter = made.adapter(tiny.pipeline(), "sd1", kind="conv")
    exported(adapter, tmp_path, layouts=["kohya"])
    found = metadata_of(tmp_path / "scene.safetensors")
    assert json.loads(found["ss_network_args"]) == {"conv_dim": "4", "conv_alpha": "4.0"}
    tensors = load_file(tmp_path / "scene.safetensors")
    name = "lora_unet_down_blocks_0_resnets_0_conv1"
    assert tensors[f"{name}.lora_down.weight"].shape[0] == tensors[f"{name}.alpha"] == 4
    assert tensors[f"{name}.lora_up.weight"].shape[1:] == (4, 1, 1)


def test_alphas_are_exact_whatever_the_factors_are(tmp_path):
    pipe = tiny.pipeline()
    adapter = made.adapter(pipe, "sd1")
    noise = torch.Generator().manual_seed(0)
    modules = {}
    for key, module in adapter.modules.items():
        down = torch.randn(257, module.down.shape[1], generator=noise) * 0.02
        up = torch.randn(module.up.shape[0], 257, generator=noise)
        modules[key] = LoraModule(down, up, 257.0)
    adapter = dataclasses.replace(adapter, modules=modules)
    exported(adapter, tmp_path, dtype="bf16")
    for name in ("scene.safetensors", "scene_bundle.safetensors"):
        tensors = load_file(tmp_path / name)
        alphas = [tensor for key, tensor in tensors.items() if key.endswith(".alpha")]
        assert len(alphas) == len(modules)
        assert all(alpha.dtype == torch.float32 and alpha == 257 for alpha in alphas)
    refuse_failures(verify_path(tmp_path, tiny.pipeline, reference=adapter))
    pipe.load_lora_weights(tmp_path, weight_name="scene.safetensors")
    (scaling, *_) = (module.scaling for module in pipe.unet.modules() if hasattr(module, "lora_A"))
    assert set(scaling.values()) == {1.0}


@pytest.mark.parametrize("kind", ["lora", "ranks", "conv"])
def test_an_interface_s_formula_gives_the_trained_update(kind, tmp_path):
    adapter = made.adapter(tiny.pipeline("sdxl"), "sdxl", kind=kind, text=True)
    exported(adapter, tmp_path, layouts=["kohya"], dtype="fp32")
    tensors = load_file(tmp_path / "scene.safetensors")
    prefixes = {
        "unet": "lora_unet",
        "text_encoder": "lora_te1",
        "text_encoder_2": "lora_te2",
    }
    for key, module in adapter.modules.items():
        part, _, path = key.partition(".")
        name = f"{prefixes[part]}_{path.replace('.', '_')}"
        down, up = (tensors[f"{name}.lora_{side}.weight"] for side in ("down", "up"))
        found = made.update(LoraModule(down, up, float(tensors[f"{name}.alpha"])))
        worst = (found - made.update(module)).abs().max().item()
        assert worst < 1e-6, f"{name}: largest difference {worst}"


def test_the_stated_hash_is_that_of_the_tensor_bytes(tmp_path):
    import hashlib

    exported(made.adapter(tiny.pipeline(), "sd1"), tmp_path, layouts=["kohya"])
    raw = (tmp_path / "scene.safetensors").read_bytes()
    body = raw[8 + int.from_bytes(raw[:8], "little") :]
    found = metadata_of(tmp_path / "scene.safetensors")
    assert found["modelspec.hash_sha256"] == "0x" + hashlib.sha256(body).hexdigest()


def test_the_bundle_states_forges_limit(tmp_path):
    pipe = tiny.pipeline("sdxl")
    few = made.adapter(pipe, "sdxl", handles=tuple(f"<v{i}>" for i in range(6)))
    many = made.adapter(pipe, "sdxl", handles=tuple(f"<v{i}>" for i in range(7)))
    _, note = exported(few, tmp_path / "few", layouts=["bundle"]).notes
    assert "12 embedding keys" in note
    assert "Forge, whose limit is 12, ignores its embeddings" in note
    _, note = exported(many, tmp_path / "many", layouts=["bundle"]).notes
    assert "14 embedding keys" in note
    assert "refuses it" in note
    tensors = load_file(tmp_path / "few" / "scene_bundle.safetensors")
    assert tensors["bundle_emb.scene_v0.clip_g"].shape == (1, 32)


def test_rows_alone_export_as_embeddings(tmp_path):
    adapter = made.adapter(tiny.pipeline(), "sd1", unet=False)
    export = exported(adapter, tmp_path)
    assert export.files == (
        "embeddings/scene_bear.safetensors",
        "embeddings/scene_bowl.safetensors",
    )
    assert [note.split(":")[0] for note in export.notes[1:]] == [
        "kohya left out",
        "bundle left out",
    ]
    refuse_failures(verify_path(tmp_path, tiny.pipeline, reference=adapter))


def test_numbers_too_large_for_half_precision_are_refused(tmp_path):
    adapter = made.adapter(tiny.pipeline(), "sd1", strength=1e6)
    with pytest.raises(AdapterError, match=r"too large for fp16(.|\n)*use bf16"):
        exported(adapter, tmp_path, dtype="fp16")


@pytest.mark.parametrize("layouts", [LAYOUTS, ["diffusers"], ["embeddings"]])
def test_an_adapter_at_full_precision_is_not_written_over(layouts, tmp_path):
    pipe = tiny.pipeline()
    save_adapter(made.adapter(pipe, "sd1"), tmp_path)
    for adapter in (read_adapter(tmp_path), made.adapter(pipe, "sd1", kind="ranks")):
        with pytest.raises(AdapterError, match=r"at full precision(.|\n)*another folder"):
            exported(adapter, tmp_path, layouts=layouts)
    (rows,) = load_file(tmp_path / "embeddings" / "bear.safetensors").values()
    assert rows.dtype == torch.float32


def test_a_kohya_file_may_lie_beside_the_adapter_itself(tmp_path):
    save_adapter(made.adapter(tiny.pipeline(), "sd1"), tmp_path)
    adapter = read_adapter(tmp_path)
    exported(adapter, tmp_path, layouts=["kohya"])
    again = read_adapter(tmp_path)
    assert torch.equal(again.concepts[0].rows[0], adapter.concepts[0].rows[0])
    assert set(again.modules) == set(adapter.modules)


def test_an_earlier_export_is_replaced(tmp_path):
    pipe = tiny.pipeline()
    exported(made.adapter(pipe, "sd1"), tmp_path, layouts=["diffusers"])
    later = made.adapter(pipe, "sd1", unet=False)
    exported(later, tmp_path, layouts=["embeddings"])
    assert not (tmp_path / "pytorch_lora_weights.safetensors").exists()
    refuse_failures(verify_path(tmp_path, tiny.pipeline, reference=later))


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["scene", "other"])
def test_embeddings_alone_take_no_lora_away(name, tmp_path):
    exported(made.adapter(tiny.pipeline(), "sd1"), tmp_path, layouts=["diffusers"])
    before, adapter = contents(tmp_path), read_adapter(tmp_path)
    with pytest.raises(AdapterError, match=r"would stay beside(.|\n)*pytorch_lora_weights"):
        export_adapter(adapter, tmp_path, title=Title(name), layouts=["embeddings"], dtype="bf16")
    assert contents(tmp_path) == before
    exported(adapter, tmp_path, layouts=["embeddings"])  # of the same numbers
    assert read_adapter(tmp_path).modules.keys() == adapter.modules.keys()


@pytest.mark.parametrize(
    ("layouts", "name", "left"),
    [
        (["kohya"], "scene", "embeddings/scene_bear.*scene_bundle"),
        (["diffusers"], "scene", r"scene\.safetensors, scene_bundle"),
        (LAYOUTS, "new", r"got: +scene\.safetensors, scene_bundle\.safetensors\n"),
    ],
)
def test_versions_of_an_adapter_are_not_mixed(layouts, name, left, tmp_path):
    pipe = tiny.pipeline()
    exported(made.adapter(pipe, "sd1"), tmp_path)
    before, later = contents(tmp_path), made.adapter(pipe, "sd1", seed=2)
    with pytest.raises(AdapterError, match=rf"would stay beside(.|\n)*{left}"):
        export_adapter(later, tmp_path, title=Title(name), layouts=layouts)
    assert contents(tmp_path) == before


def test_versions_of_a_lora_for_interfaces_lie_beside_each_other(tmp_path):
    pipe = tiny.pipeline()
    for seed, name in ((1, "one"), (2, "two"), (3, "two")):
        adapter = made.adapter(pipe, "sd1", seed=seed)
        export_adapter(adapter, tmp_path, title=Title(name), layouts=["kohya"])
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["one.json", "one.safetensors", "two.json", "two.safetensors"]


def test_a_whole_export_replaces_an_earlier_one_and_its_preview(tmp_path):
    pipe, picture = tiny.pipeline(), tmp_path / "picture.png"
    Image.new("RGB", (8, 8)).save(picture)
    out, samples = tmp_path / "out", (SamplePicture(picture, "a <bear>"),)
    exported(made.adapter(pipe, "sd1"), out, samples=samples)
    exported(made.adapter(pipe, "sd1"), out)
    assert (out / "scene.preview.png").exists(), "it shows this adapter"
    later = made.adapter(pipe, "sd1", seed=2)
    exported(later, out)
    assert not (out / "scene.preview.png").exists()
    for path in out.rglob("*.safetensors"):
        assert metadata_of(path)["lora_scene.fingerprint"] == fingerprint(later.cast(torch.half))


@pytest.mark.parametrize("name", ["scene.safetensors", "scene.json", "scene_bundle.safetensors"])
def test_a_foreign_file_of_an_exports_name_is_not_replaced(name, tmp_path):
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(FileError, match="did not write"):
        export_adapter(made.adapter(tiny.pipeline(), "sd1"), tmp_path, title=Title("scene"))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"mine"


@pytest.mark.parametrize("layouts", [LAYOUTS, ["kohya"], ["embeddings"]])
def test_an_export_of_another_scene_is_not_written_over(layouts, tmp_path):
    pipe = tiny.pipeline()
    exported(made.adapter(pipe, "sd1", handles=("<dog>",)), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(AdapterError, match="of another scene"):
        exported(made.adapter(pipe, "sd1"), tmp_path, layouts=layouts)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_half_file_in_the_target_does_not_stop_an_export(tmp_path):
    (tmp_path / "embeddings").mkdir()
    (tmp_path / "embeddings" / "._x.safetensors").write_bytes(b"\0" * 5)
    exported(made.adapter(tiny.pipeline(), "sd1"), tmp_path)
    assert (tmp_path / "embeddings" / "._x.safetensors").read_bytes() == b"\0" * 5


def test_the_record_of_a_training_is_not_replaced_by_a_file_for_interfaces(tmp_path):
    adapter = made.adapter(tiny.pipeline(), "sd1")
    run = save_adapter(adapter, tmp_path / "training", records={"training.json": {"steps": 9}})
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for layouts, dtype in ((["kohya"], "fp16"), (LAYOUTS, "fp32")):
        with pytest.raises(AdapterError, match=r"a record of another kind(.|\n)*--name"):
            export_adapter(adapter, run, title=Title("training"), layouts=layouts, dtype=dtype)
        assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for _ in range(2):  # its own sidecar is replaced
        export_adapter(adapter, run, title=Title("scene"), layouts=["kohya"])
    assert json.loads((run / "training.json").read_text())["steps"] == 9


def test_a_name_that_leaves_the_folder_is_refused(tmp_path):
    adapter = made.adapter(tiny.pipeline(), "sd1")
    for name in ("../x", "a/b", "", "pytorch_lora_weights", "a.b", "NUL", "com1", "x "):
        with pytest.raises(AdapterError, match="not a usable name"):
            export_adapter(adapter, tmp_path / "out", title=Title(name))


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_merged_pipeline_draws_the_same_without_any_adapter(family, tmp_path):
    adapter = made.adapter(tiny.pipeline(family), family, text=True, n_vectors=2)
    export_pipeline(adapter, tiny.pipeline(family), tmp_path / "full", dtype="fp32")
    text = load_file(tmp_path / "full" / "text_encoder" / "model.safetensors")
    assert all(key.startswith("text_model.") for key in text), "or older stacks start at random"
    merged = DiffusionPipeline.from_pretrained(tmp_path / "full")
    merged.set_progress_bar_config(disable=True)
    from lora_scene import load_adapter

    pipe = tiny.pipeline(family)
    load_adapter(pipe, adapter, name="scene")
    worst = (made.draw(merged) - made.draw(pipe)).abs().max().item()
    assert worst < 2e-4, f"largest difference {worst}"
    with pytest.raises(AdapterError, match="not empty"):
        export_pipeline(adapter, tiny.pipeline(family), tmp_path / "full")


def test_no_embedding_is_called_like_a_piece_of_the_vocabulary(tmp_path):
    handles = ("<bear>", "<Cat>", "<v0>", "<t-shirt>", "<80s>")
    adapter = made.adapter(tiny.pipeline(), "sd1", handles=handles, unet=False)
    export = exported(adapter, tmp_path)
    stems = [path.stem for path in (tmp_path / "embeddings").iterdir()]
    assert sorted(stems) == sorted(f"scene_{handle.strip('<>')}" for handle in handles)
    assert "a photo of scene_bear and scene_Cat" in export.notes[0]
    for stem in stems:
        # CLIP splits a text where letters, digits and signs meet before it looks for pieces.
        pieces = re.findall(r"[A-Za-z]+|[0-9]|[^\sA-Za-z0-9]+", stem)
        assert len(pieces) >= 3, stem
    assert read_adapter(tmp_path).handles == handles
    again = tmp_path / "again"
    exported(read_adapter(tmp_path), again)
    assert sorted(path.stem for path in (again / "embeddings").iterdir()) == sorted(stems)


def test_the_true_vocabulary_has_no_such_piece():
    try:
        tokenizer = clip_tokenizer()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    pieces = {piece.removesuffix("</w>") for piece in tokenizer.get_vocab()}
    assert {"bear", "cat", "car"} <= pieces
    assert not [p for p in pieces if re.fullmatch(r"[A-Za-z0-9]+_[A-Za-z0-9_-]+", p)]
    for stem in ("plush_bear", "a_cat", "My-Scene_v0", "x_80s"):
        assert tokenizer.add_tokens([stem]) == 1, "SD.Next leaves out what is known already"
        assert len(clip_tokenizer().tokenize(stem)) > 1


def test_the_preview_is_the_last_sample(tmp_path):
    adapter = made.adapter(tiny.pipeline(), "sd1")
    folder = save_adapter(adapter, tmp_path / "scene")
    (folder / "samples").mkdir()
    for name, colour in (("00000-0", "red"), ("00700-0", "green"), ("00700-1", "blue")):
        exif = Image.Exif()
        exif[0x013B] = "Jane Doe"  # the artist
        path = folder / "samples" / f"{name}.png"
        Image.new("RGB", (900, 600), colour).save(path, exif=exif, icc_profile=b"Jane Doe")
    samples = last_samples(folder, adapter)
    assert [sample.path.name for sample in samples] == ["00700-0.png", "00700-1.png"]
    result = CliRunner().invoke(root, ["export", str(folder), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "out" / "scene.preview.png") as preview:
        assert preview.size == (512, 341)
        assert preview.getpixel((5, 5)) == (0, 0, 255)
        assert list(preview.info) == ["Software"]


def test_files_of_others_are_not_replaced_by_an_export(tmp_path):
    adapter = made.adapter(tiny.pipeline(), "sd1")
    for name in ("scene.safetensors", "scene.json", "embeddings/scene_bear.safetensors"):
        out = tmp_path / name.replace("/", "-")
        (out / name).parent.mkdir(parents=True)
        (out / name).write_bytes(b"mine")
        with pytest.raises(FileError):
            exported(adapter, out)
        assert [path for path in out.rglob("*") if path.is_file()] == [out / name]
        assert (out / name).read_bytes() == b"mine"


def test_a_checkpoint_is_refused_with_the_reason(tmp_path):
    args = ["export", str(tmp_path), "--format", "checkpoint", "--out", str(tmp_path / "x")]
    result = CliRunner().invoke(root, args)
    assert isinstance(result.exception, AdapterError)
    assert "has no writer for it" in str(result.exception)


# Verification must fail where a file loads and does nothing, or something else.


def failing(path, adapter, match):
    checks = verify_path(path, tiny.pipeline, reference=adapter)
    with pytest.raises(VerificationError, match=match):
        refuse_failures(checks)


@pytest.fixture
def scene(tmp_path):
    adapter = made.adapter(tiny.pipeline(), "sd1", text=True)
    exported(adapter, tmp_path, dtype="fp32", layouts=[*LAYOUTS])
    return tmp_path, adapter


def test_a_kohya_file_with_a_foreign_lora_key_fails(scene):
    folder, adapter = scene
    path = folder / "scene.safetensors"
    save_file({**load_file(path), "some.lora.key": torch.zeros(1)}, path, metadata_of(path))
    failing(path, adapter, r"0 of \d+ modules matched|refuses it")


def test_an_update_of_zero_fails(scene):
    folder, adapter = scene
    path = folder / "pytorch_lora_weights.safetensors"
    tensors = {key: value * (".up." not in key) for key, value in load_file(path).items()}
    save_file(tensors, path, metadata_of(path))
    failing(path, adapter, "loads and does nothing")
    failing(path, None, "loads and does nothing")


@pytest.mark.parametrize(
    ("number", "match"), [(math.nan, "NaN or an infinity"), (3e38, "numbers that are none")]
)
def test_a_stranger_s_file_that_draws_black_pictures_fails(number, match, scene):
    folder, _ = scene
    for name in ("pytorch_lora_weights.safetensors", "scene.safetensors"):
        path = folder / name
        tensors = load_file(path)
        key = next(key for key in tensors if key.endswith((".up.weight", "lora_up.weight")))
        save_file(tensors | {key: torch.full_like(tensors[key], number)}, path)
        failing(path, None, match)


def test_a_damaged_file_hides_nothing_of_the_others(scene):
    folder, adapter = scene
    path = folder / "scene.safetensors"
    tensors = load_file(path)
    save_file(tensors | {sorted(tensors)[0]: torch.tensor(math.nan)}, path, metadata_of(path))
    checks = verify_path(folder, tiny.pipeline, reference=adapter)
    assert [check.path for check in checks if check.problems] == [path]
    assert len(checks) > 2


def test_a_wrong_scale_fails(scene):
    folder, adapter = scene
    path = folder / "scene.safetensors"
    tensors = load_file(path)
    tensors = {key: v / 2 if key.endswith(".alpha") else v for key, v in tensors.items()}
    save_file(tensors, path, metadata_of(path))
    failing(path, adapter, "off by up to 5.0e-01: a wrong scale")


def test_a_missing_module_fails(scene):
    folder, adapter = scene
    path = folder / "pytorch_lora_weights.safetensors"
    tensors = load_file(path)
    first = sorted(tensors)[0]
    stem = first.split(".lora")[0]
    left = {key: value for key, value in tensors.items() if not key.startswith(stem)}
    save_file(left, path, metadata_of(path))
    counts = f"holds {len(left) // 2} of the adapter's {len(tensors) // 2} modules"
    failing(path, adapter, rf"{counts}(.|\n)*can be compared")


def test_a_file_without_metadata_that_lacks_modules_says_how_many(scene):
    folder, adapter = scene
    path = folder / "scene.safetensors"
    tensors = load_file(path)
    kept = {key: tensor for key, tensor in tensors.items() if "mid_block" not in key}
    save_file(kept, path)  # as another tool saves it again
    n, n_all = (sum(key.endswith(".alpha") for key in found) for found in (kept, tensors))
    assert n < n_all
    failing(path, adapter, f"holds {n} of the adapter's {n_all} modules(.|\\n)*can be compared")


def test_a_foreign_base_fails(scene):
    path = scene[0] / "scene.safetensors"
    checks = verify_path(path, lambda: tiny.pipeline("sdxl"), reference=None)
    with pytest.raises(VerificationError, match=r"refuses it|modules matched"):
        refuse_failures(checks)


def test_changed_rows_fail(scene):
    folder, adapter = scene
    path = folder / "embeddings" / "scene_bear.safetensors"
    save_file({"emb_params": load_file(path)["emb_params"] + 1}, path, metadata_of(path))
    failing(path, adapter, "rows of <bear> are off")


def swapped(tensors):
    names = sorted(key for key in tensors if key.endswith("to_q.lora_up.weight"))
    return tensors | {names[0]: tensors[names[1]], names[1]: tensors[names[0]]}


def transposed(tensors):
    key = next(k for k in sorted(tensors) if k.endswith("attn1_to_q.lora_up.weight"))
    up, down = tensors[key], tensors[key.replace("_up", "_down")]
    return tensors | {key: down.T.contiguous(), key.replace("_up", "_down"): up.T.contiguous()}


def without_text(tensors):
    return {key: value for key, value in tensors.items() if not key.startswith("lora_te")}


def times(factor, *endings):
    return lambda tensors: {
        key: value * (factor if key.endswith(endings) else 1) for key, value in tensors.items()
    }


@pytest.mark.parametrize(
    "change",
    [
        times(2.0, "lora_up.weight"),
        times(-1.0, "lora_up.weight"),
        times(0.5, ".alpha"),
        times(2.0, "attn2_to_k.alpha"),
        swapped,
        transposed,
        without_text,
    ],
    ids=["scaled", "negated", "alphas", "one-alpha", "swapped", "transposed", "no-text"],
)
def test_a_kohya_file_that_means_something_else_fails_with_and_without_the_adapter(scene, change):
    folder, adapter = scene
    path = folder / "scene.safetensors"
    save_file(change(load_file(path)), path, metadata_of(path))
    failing(path, None, r"its own hash differs|of the adapter's \d+ modules")
    failing(path, adapter, r"off by up to|not those of|can be compared")


def test_alphas_that_diffusers_does_not_read_fail_too(scene, monkeypatch):
    folder, adapter = scene
    path = folder / "scene.safetensors"
    tensors = load_file(path)
    halved = {key: v / 2 if key.endswith("to_k.alpha") else v for key, v in tensors.items()}
    stranger = folder / "stranger.safetensors"
    save_file(halved, stranger)
    monkeypatch.setattr(
        "lora_scene.adapters.verification._as_readers_see_it", lambda found: dict(tensors)
    )
    failing(stranger, None, "otherwise than its own alphas say")
    failing(stranger, adapter, r"off by up to 5\.0e-01")


def test_a_configuration_that_scales_a_diffusers_file_fails(scene):
    folder, adapter = scene
    path = folder / "pytorch_lora_weights.safetensors"
    layers = {f"unet.{key}": value for key, value in (("r", 4), ("lora_alpha", 8))}
    told = metadata_of(path) | {"lora_adapter_metadata": json.dumps(layers)}
    save_file(load_file(path), path, told)
    failing(path, adapter, "off by up to|refuses it")


def test_a_cut_and_a_permuted_embedding_fail_with_and_without_the_adapter(tmp_path):
    adapter = made.adapter(tiny.pipeline(), "sd1", handles=("<Bear>",), n_vectors=3, unet=False)
    exported(adapter, tmp_path, dtype="fp32")
    (path,) = (tmp_path / "embeddings").glob("*.safetensors")
    refuse_failures(verify_path(path, tiny.pipeline, reference=adapter))
    whole, told = load_file(path)["emb_params"], metadata_of(path)
    for rows, match in ((whole[:2], "holds 2 of the 3 rows"), (whole.flip(0), "own hash differs")):
        save_file({"emb_params": rows.contiguous()}, path, told)
        failing(path, None, match)
        failing(path, adapter, "rows of <Bear> are")


@pytest.mark.parametrize("there", ["sd2", "sdxl"])
def test_a_base_that_the_adapter_does_not_fit_is_told_as_that(there, tmp_path):
    """tiny SD 2.x has modules of SD 1.x's shapes, SDXL has others."""
    adapter = made.adapter(tiny.pipeline("sd1"), "sd1", text=True)
    exported(adapter, tmp_path)
    with pytest.raises(AdapterError, match=r"Stable Diffusion 1\.x does not fit this pipeline"):
        verify_path(tmp_path, lambda: tiny.pipeline(there), reference=adapter)


def test_an_effect_is_shown_in_plain_digits(scene, monkeypatch):
    folder, _ = scene
    check = verification.Check(folder / "a.safetensors", "embedding", 1, 1, 2.83, None, None, ())
    monkeypatch.setattr(verification, "verify_path", lambda *_, **__: (check,))
    shown = CliRunner().invoke(root, ["verify", str(folder), "--base", "mini"])
    said = "ok     a.safetensors: 1 of 1 rows matched; changes the output by 283 %\n"
    assert shown.stdout == said, shown.exception


def test_the_command_prints_counts_and_fails_with_the_reason(scene, tmp_path):
    folder, _ = scene
    path = folder / "scene.safetensors"
    base = str(tmp_path / "base")
    tiny.pipeline().save_pretrained(base)
    args = ["verify", str(path), "--base", base, "--adapter", str(folder)]
    shown = CliRunner().invoke(root, args)
    assert shown.exit_code == 0, f"{shown.output} {shown.exception}"
    assert re.search(r"ok +scene\.safetensors: (\d+) of \1 modules matched; changes", shown.stdout)
    tensors = {k: v * (".lora_up" not in k) for k, v in load_file(path).items()}
    save_file(tensors, path, metadata_of(path))
    failed = CliRunner().invoke(root, [*args, "--json"])
    assert isinstance(failed.exception, VerificationError)
    (check,) = json.loads(failed.stdout)
    assert check["effect"] == 0.0
    assert "it loads and does nothing" in " ".join(check["problems"])
    first = next(key for key in tensors if key.endswith("lora_up.weight"))
    save_file(tensors | {first: torch.full_like(tensors[first], 3e38)}, path)
    endless = CliRunner().invoke(root, [*args, "--json"])
    assert json.loads(endless.stdout, parse_constant=pytest.fail)[0]["effect"] is None


def test_a_pipeline_on_another_base_is_told_whatever_that_is_called(tmp_path):
    own, other = tiny.pipeline(), tiny.pipeline(seed=1)
    for name, pipe in (("own", own), ("other", other)):
        pipe.save_pretrained(tmp_path / name / "base")
    adapter = made.adapter(own, "sd1")
    base_hash = Backbone(own, name="base").content_hash()
    info = dataclasses.replace(adapter.info, base_model="base", base_hash=base_hash)
    save_adapter(dataclasses.replace(adapter, info=info), tmp_path / "adapter")
    for name, told in (("own", False), ("other", True)):
        args = ["export", str(tmp_path / "adapter"), "--format", "pipeline"]
        args += ["--base", str(tmp_path / name / "base"), "--out", str(tmp_path / f"on {name}")]
        done = CliRunner().invoke(root, args, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert ("warning: the adapter was trained on other weights" in done.stderr) == told


def test_a_whole_pipeline_tells_how_its_handles_are_written(tmp_path):
    pipe = tiny.pipeline()
    pipe.save_pretrained(tmp_path / "base")
    adapter = made.adapter(pipe, "sd1").renamed({"<bear>": "<Bear>"})
    save_adapter(adapter, tmp_path / "adapter")
    words = ["export", str(tmp_path / "adapter"), "--format", "pipeline", "--base"]
    words += [str(tmp_path / "base"), "--out", str(tmp_path / "whole")]
    done = CliRunner().invoke(root, words, catch_exceptions=False)
    assert "for stock pipelines: write <bear>" in done.stderr
    tokens = DiffusionPipeline.from_pretrained(tmp_path / "whole").tokenizer.get_added_vocab()
    assert "<bear>" in tokens
    assert "<Bear>" not in tokens


def test_a_base_in_one_file_is_read_with_another_folders_configurations(tmp_path):
    pipe = tiny.pipeline("sd1", seed=7)
    pipe.save_pretrained(tmp_path / "folder")
    file = ldm.write(pipe, tmp_path / "base.safetensors")
    save_adapter(made.adapter(pipe, "sd1"), tmp_path / "adapter")
    named = ["--base", str(file), "--base-config", str(tmp_path / "folder")]
    words = ["export", str(tmp_path / "adapter"), "--format", "pipeline", "--dtype", "fp32"]
    done = CliRunner().invoke(root, [*words, *named, "--out", str(tmp_path / "one")])
    assert done.exit_code == 0, f"{done.output} {done.exception}"
    named_folder = ["--base", str(tmp_path / "folder"), "--out", str(tmp_path / "two")]
    CliRunner().invoke(root, [*words, *named_folder], catch_exceptions=False)
    parts = ("unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors")
    for part in parts:
        one, two = (load_file(tmp_path / out / part) for out in ("one", "two"))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
    checked = CliRunner().invoke(root, ["verify", str(tmp_path / "adapter"), *named])
    assert checked.exit_code == 0, f"{checked.output} {checked.exception}"
