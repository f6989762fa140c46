from __future__ import annotations

import dataclasses
import html

import pytest
import torch
from click.testing import CliRunner

from lora_scene import load_adapter
from lora_scene.adapters.folder import read_adapter, save_adapter
from lora_scene.adapters.merging import merge_adapters
from lora_scene.adapters.model_card import CardFacts, write_card
from lora_scene.adapters.renaming import parse_renames
from lora_scene.cli.main import root
from lora_scene.errors import AdapterError
from lora_scene.size import Size
from tests import tiny
from tests.adapters import made


@pytest.fixture(scope="module", params=["ranks", "conv"])
def pair(request):
    pipe = tiny.pipeline()
    one = made.adapter(pipe, "sd1", handles=("<bear>",), kind=request.param, text=True)
    two = made.adapter(pipe, "sd1", handles=("<bowl>",), kind="ranks", seed=2, n_vectors=2)
    return one, two


def test_concatenation_is_the_weighted_sum(pair):
    merge = merge_adapters(pair, [0.8, 0.5])
    assert (merge.error, merge.worst_error, merge.notes) == (0.0, 0.0, ())
    one, two = pair
    assert set(merge.adapter.modules) == set(one.modules) | set(two.modules)
    for key, module in merge.adapter.modules.items():
        wanted = 0.8 * made.update(one.modules[key])
        if key in two.modules:
            wanted = wanted + 0.5 * made.update(two.modules[key])
        worst = (made.update(module) - wanted).abs().max().item()
        assert worst < 1e-6, f"{key}: largest difference {worst}"


def test_what_a_weight_of_zero_leaves_is_told(pair):
    (note,) = merge_adapters(pair, [0.8, 0.0]).notes
    assert note == "at weight 0 nothing but the row is left of <bowl>"
    assert len(merge_adapters(pair, [0.0, 0.0]).notes) == 2
    rows = made.adapter(tiny.pipeline(), "sd1", handles=("<cup>",), unet=False)
    assert merge_adapters([pair[0], rows], [0.8, 1.0]).notes == ()
    told = merge_adapters([pair[0], rows], [0.8, 0.5]).notes
    assert told == ("<cup> has no LoRA: its weight changes nothing",)


def test_the_merged_file_draws_what_both_draw_together(pair, tmp_path):
    pipe, other = tiny.pipeline(), tiny.pipeline()
    load_adapter(pipe, pair[0], name="one", weight=0.8)
    load_adapter(pipe, pair[1], name="two", weight=0.5)
    merged = save_adapter(merge_adapters(pair, [0.8, 0.5]).adapter, tmp_path / "both")
    assert load_adapter(other, merged).handles == ("<bear>", "<bowl>")
    worst = (made.draw(pipe) - made.draw(other)).abs().max().item()
    assert worst < 2e-4, f"largest difference {worst}"


def test_svd_is_the_nearest_of_its_rank_and_its_error_is_true(pair):
    exact = merge_adapters(pair, [1.0, 1.0]).adapter
    merge = merge_adapters(pair, [1.0, 1.0], rank=3)
    worst = squares = losses = 0.0
    for key, module in merge.adapter.modules.items():
        assert module.rank <= 3
        wanted = made.update(exact.modules[key])
        values = torch.linalg.svdvals(wanted.flatten(1))
        loss = (made.update(module) - wanted).norm().item()
        assert loss == pytest.approx(values[3:].norm().item(), abs=1e-5)
        worst = max(worst, loss / wanted.norm().item())
        squares += wanted.norm().item() ** 2
        losses += loss**2
    assert merge.worst_error == pytest.approx(worst, rel=1e-4)
    assert merge.error == pytest.approx((losses / squares) ** 0.5, rel=1e-4)
    assert 0 < merge.error < merge.worst_error < 1


def test_a_merge_is_told_as_one_and_not_as_its_first(pair, tmp_path):
    """Seed and steps of one run say nothing of two."""
    one, two = pair
    other = dataclasses.replace(two, info=dataclasses.replace(two.info, seed=99, steps=(3, 4)))
    merged = merge_adapters([one, other], [0.8, 0.5]).adapter
    facts = CardFacts("both", "user/both", "mit")
    card = write_card(merged, facts)
    folder = save_adapter(merged, tmp_path / "both")
    shown = CliRunner().invoke(root, ["inspect", str(folder)]).output
    for text in (html.unescape(card).replace("\\", ""), " ".join(shown.split())):
        assert "merged of" in text
        assert "weight 0.8: <bear>, recipe sd15, 400 + 300 steps, seed 7" in text
        assert "weight 0.5: <bowl>, recipe sd15, 3 + 4 steps, seed 99" in text
        assert "for the rows alone" not in text
        assert "trained " not in text
    again = merge_adapters(
        [merged, made.adapter(tiny.pipeline(), "sd1", handles=("<cat>",))], [1, 1]
    )
    assert again.adapter.info.merged[0] == "weight 1: <bear>, <bowl>, recipe merge"
    assert dataclasses.replace(made.INFO, recipe_name="merge").merged == (), "a name that is free"


def test_what_cannot_be_merged_is_refused(pair):
    one, two = pair
    with pytest.raises(AdapterError, match="the same handle"):
        merge_adapters([one, one], [1, 1])
    with pytest.raises(AdapterError, match="differing families"):
        merge_adapters([one, dataclasses.replace(two, family="sd2")], [1, 1])
    with pytest.raises(AdapterError, match="2 adapters, 1 weights"):
        merge_adapters(pair, [1])
    with pytest.raises(AdapterError, match="finite"):
        merge_adapters(pair, [1, float("inf")])
    with pytest.raises(AdapterError, match="overflow"):
        merge_adapters(pair, [1, 1e39])
    key, module = next(iter(two.modules.items()))
    wider = dataclasses.replace(module, down=module.down.repeat(1, 2))
    with pytest.raises(AdapterError, match=f"{key}: adapters of differently sized bases"):
        merge_adapters([one, dataclasses.replace(two, modules={**two.modules, key: wider})], [1, 1])
    info = dataclasses.replace(two.info, base_hash="00" * 32)
    other_base = dataclasses.replace(two, info=info)
    assert merge_adapters([one, other_base], [1, 1]).notes == (
        "they were trained on different bases",
    )


def test_bases_without_hashes_are_compared_by_name_and_targets_always(pair):
    def notes(**differs):
        other = dataclasses.replace(pair[1], info=dataclasses.replace(pair[1].info, **differs))
        return merge_adapters([pair[0], other], [1, 1]).notes

    told = (
        "they were trained on bases of other names (someone/tiny-base, other) and unknown weights"
    )
    assert notes(base_hash="", base_model="/home/me/other") == (told,)
    assert notes(base_hash="") == notes(base_model="other") == ()
    (told,) = notes(prediction_type="v_prediction")
    assert "epsilon and v_prediction" in told


def test_what_is_said_of_one_adapter_is_not_said_of_the_merged_one(pair):
    one, two = pair
    taken = dataclasses.replace(one.info, taken="step 3 of phase 2, weight 0.8 folded in")
    wide = dataclasses.replace(two.info, sizes=(Size(96, 64),))
    parts = [dataclasses.replace(one, info=taken), dataclasses.replace(two, info=wide)]
    info = merge_adapters(parts, [1, 1]).adapter.info
    assert info.taken == ""
    assert "weight 0.8 folded in" in info.recipe_toml.splitlines()[0]
    side = one.info.resolution
    assert info.sizes == (Size(side, side), Size(96, 64))
    assert info.first_size == one.info.first_size
    assert merge_adapters(pair, [1, 1]).adapter.info.sizes == ()


def test_the_command_writes_the_folder_and_prints_the_error(pair, tmp_path):
    folders = [str(save_adapter(a, tmp_path / n)) for a, n in zip(pair, "ab", strict=True)]
    out = tmp_path / "ab"
    args = ["merge", *folders, "--weights", "0.8,0.5", "--rank", "2", "--out", str(out)]
    result = CliRunner().invoke(root, args)
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    assert f"wrote {out}: <bear>, <bowl>; rank 2\nerror of the updates: " in result.stdout
    assert read_adapter(out).handles == ("<bear>", "<bowl>")
    wrong = CliRunner().invoke(root, [*args[:3], "--weights", "a,b", "--out", str(out)])
    assert wrong.exit_code == 2


def test_a_shared_handle_is_renamed_in_a_merge(tmp_path):
    pipe = tiny.pipeline()
    one = made.adapter(pipe, "sd1", handles=("<cup>", "<ground>"), unet=False)
    two = made.adapter(pipe, "sd1", handles=("<dog>", "<ground>"), unet=False, seed=2)
    folders = [str(save_adapter(a, tmp_path / n)) for a, n in zip((one, two), "ab", strict=True)]
    args = ["merge", *folders, "--weights", "1,1", "--out", str(tmp_path / "ab")]
    refused = CliRunner().invoke(root, args)
    assert refused.exit_code == 1
    merged = CliRunner().invoke(root, [*args, "--rename", "ground=lawn"])
    assert merged.exit_code == 0, f"{merged.output} {merged.exception}"
    found = read_adapter(tmp_path / "ab")
    assert found.handles == ("<cup>", "<ground>", "<dog>", "<lawn>")
    assert torch.equal(found.concepts[3].rows[0], two.concepts[1].rows[0])
    assert (tmp_path / "ab" / "embeddings" / "lawn.safetensors").is_file()


def test_renamings_name_the_adapter_that_they_mean():
    pipe = tiny.pipeline()
    two = [made.adapter(pipe, "sd1", unet=False) for _ in range(2)]  # <bear> and <bowl> both
    assert parse_renames(["bear=lion"], two) == ({}, {"<bear>": "<lion>"})
    assert parse_renames(["1:<bear>=<lion>", "bowl=cup"], two) == (
        {"<bear>": "<lion>"},
        {"<bowl>": "<cup>"},
    )
    for text, match in (
        ("bear", "not a renaming"),
        ("3:bear=x", "no such adapter"),
        ("0:bear=x", "no such adapter"),
        ("bera=x", "did you mean <bear>"),
    ):
        with pytest.raises(AdapterError, match=match):
            parse_renames([text], two)
    with pytest.raises(AdapterError, match=r"(?s)<bear> gets two names.*<cub> too.*N:OLD=NEW"):
        parse_renames(["bear=cub", "bear=lion"], two)
