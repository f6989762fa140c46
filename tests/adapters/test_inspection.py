from __future__ import annotations

import json
import shutil

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from lora_scene.adapters.folder import save_adapter
from lora_scene.adapters.inspection import inspect_path
from lora_scene.cli.main import root
from lora_scene.errors import AdapterError
from tests import tiny
from tests.adapters import made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pipe = tiny.pipeline("sdxl")
    adapter = made.adapter(pipe, "sdxl", text=True, n_vectors=2)
    return save_adapter(adapter, tmp_path_factory.mktemp("scene"))


def test_each_file_of_ours_names_the_handles_the_base_and_the_recipe(folder):
    found = inspect_path(folder)
    assert [one.layout for one in found] == ["diffusers", "embedding", "embedding"] or [
        one.layout for one in found
    ] == ["embedding", "embedding", "diffusers"]
    for one in found:
        assert one.family == "sdxl"
        assert one.triggers == ("<bear>", "<bowl>")
        assert one.note.info == made.INFO
    lora = next(one for one in found if one.layout == "diffusers")
    n_text = 2 * 6
    assert lora.n_modules["text_encoder"] == lora.n_modules["text_encoder_2"] == n_text
    assert sum(lora.n_modules.values()) == lora.note.n_modules
    assert lora.ranks == {4: lora.note.n_modules}
    assert {k: v for one in found for k, v in one.n_vectors.items()} == {"bear": 2, "bowl": 2}


def test_files_that_a_mac_leaves_beside_ours_are_passed_by(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    for beside in ("._pytorch_lora_weights.safetensors", "embeddings/._bear.safetensors"):
        (copy / beside).write_bytes(b"\0\x05\x16\x07")
    assert [one.path.name for one in inspect_path(copy)] == [
        one.path.name for one in inspect_path(folder)
    ]


def test_the_command_prints_it_and_gives_json(folder):
    shown = CliRunner().invoke(root, ["inspect", str(folder), "--recipe"])
    assert shown.exit_code == 0, shown.output
    for expected in (
        "<bear>",
        "noun 1 (background)",
        "someone/tiny-base",
        "rank = 4",
        "torch 2.13",
    ):
        assert expected in shown.output
    as_json = CliRunner().invoke(root, ["inspect", str(folder), "--json"])
    fields = json.loads(as_json.stdout)
    assert fields[0]["note"]["info"]["seed"] == 7


def test_a_foreign_kohya_file_is_read(tmp_path):
    path = tmp_path / "style.safetensors"
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {
        f"{name}.lora_down.weight": torch.zeros(8, 768),
        f"{name}.lora_up.weight": torch.zeros(320, 8),
        f"{name}.alpha": torch.tensor(8.0),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.zeros(4, 768),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.zeros(3072, 4),
    }
    tags = {"ss_tag_frequency": json.dumps({"10_toy": {"toy": 3, "red": 9}})}
    save_file(tensors, path, metadata=tags)
    (one,) = inspect_path(path)
    assert (one.layout, one.family, one.note) == ("kohya", "sd1", None)
    assert one.n_modules == {"unet": 1, "text_encoder": 1}
    assert one.ranks == {8: 1, 4: 1}
    assert one.triggers == ("red", "toy")
    shown = CliRunner().invoke(root, ["inspect", str(path)])
    assert "red, toy" in shown.output


SD3 = "lora_unet_joint_blocks_0_x_block_attn_qkv"
TEXT_2 = "lora_te2_text_model_encoder_layers_0_mlp_fc1"
CROSS = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"


@pytest.mark.parametrize(
    ("tensors", "layout", "family", "modules", "ranks"),
    [
        ({f"{SD3}.lora_down.weight": (8, 1536), f"{TEXT_2}.lora_down.weight": (8, 1280)},
         "kohya", None, {"unet": 1, "text_encoder_2": 1}, {8: 2}),
        ({f"{TEXT_2}.lora_down.weight": (8, 1280)}, "kohya", None, {"text_encoder_2": 1}, {8: 1}),
        ({f"{CROSS}.hada_w1_a": (640, 4), f"{CROSS}.hada_w1_b": (4, 2048),
          f"{CROSS}.hada_w2_a": (640, 4), f"{CROSS}.hada_w2_b": (4, 2048)},
         "lycoris", "sdxl", {"unet": 1}, {4: 1}),
        ({f"{CROSS}.lokr_w1": (16, 32), f"{CROSS}.lokr_w2_a": (40, 6),
          f"{CROSS}.lokr_w2_b": (6, 64), f"{TEXT_2}.lokr_w1": (8, 8), f"{TEXT_2}.lokr_w2": (9, 9)},
         "lycoris", "sdxl", {"unet": 1, "text_encoder_2": 1}, {6: 1}),
    ],
)  # fmt: skip
def test_files_of_other_families_and_kinds_are_told_apart(
    tensors, layout, family, modules, ranks, tmp_path
):
    """Names and shapes as sd-scripts and LyCORIS write them."""
    path = tmp_path / "x.safetensors"
    save_file({key: torch.zeros(shape) for key, shape in tensors.items()}, path)
    (one,) = inspect_path(path)
    assert (one.layout, one.family, one.n_modules, one.ranks) == (layout, family, modules, ranks)


def test_foreign_embeddings_are_read(tmp_path):
    save_file({"emb_params": torch.zeros(3, 1024)}, tmp_path / "cat.safetensors")
    save_file({"<toy>": torch.zeros(2, 768)}, tmp_path / "toy.safetensors")
    cat, toy = inspect_path(tmp_path)
    assert (cat.layout, cat.family, cat.n_vectors) == ("embedding", "sd2", {"cat": 3})
    assert (toy.layout, toy.n_vectors) == ("embedding", {"<toy>": 2})


def test_hostile_trigger_words_do_not_break_it(tmp_path):
    path = tmp_path / "x.safetensors"
    for tags in ("[1, 2]", '{"a": 3}', '{"a": {"b": "c"}}', "[" * 100_000, "nonsense"):
        save_file({"a": torch.zeros(1)}, path, metadata={"ss_tag_frequency": tags})
        (one,) = inspect_path(path)
        assert one.triggers == ()


def test_trigger_words_cannot_steer_a_terminal(tmp_path):
    path = tmp_path / "x.safetensors"
    for metadata in (
        {"modelspec.trigger_phrase": "a\x1b[2J cat"},
        {"ss_tag_frequency": json.dumps({"x": {"a\x1b[2J cat": 3}})},
    ):
        save_file({"a": torch.zeros(1)}, path, metadata=metadata)
        (one,) = inspect_path(path)
        assert one.triggers == ("a[2J cat",)


def test_a_folder_without_adapters_is_an_error(tmp_path):
    with pytest.raises(AdapterError, match=r"no .safetensors file"):
        inspect_path(tmp_path)
