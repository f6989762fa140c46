"""The verbs that draw, beside `generate`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from lora_scene.adapters.folder import read_adapter, save_adapter
from lora_scene.adapters.gallery import last_samples, save_samples
from lora_scene.cli.main import root
from lora_scene.creating.picture_files import read_record, save_picture
from lora_scene.errors import CreationError, FileError, LoraSceneWarning
from tests import tiny
from tests.adapters import made


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return a folder with an adapter, a photo and a mask."""
    home = tmp_path_factory.mktemp("creating")
    tiny.folder("sd1", str(home))
    save_adapter(made.adapter(tiny.pipeline("sd1"), "sd1"), home / "scene")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(home / "photo.png")
    mask = np.zeros((64, 80), np.uint8)
    mask[20:50, 20:50] = 255
    Image.fromarray(mask).save(home / "mask.png")
    return home


@pytest.fixture
def run(home, tmp_path, monkeypatch):
    monkeypatch.chdir(home)
    fixed = ["--base", str(home / "sd1-0"), "--steps", "2", "--device", "cpu"]
    runner = CliRunner()

    def call(verb, *args, out="out"):
        arguments = [verb, "scene", *map(str, args), "--out", str(tmp_path / out), *fixed]
        return runner.invoke(root, arguments, catch_exceptions=False)

    return call


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_edit_changes_the_region_alone_and_says_how_it_was_made(run, home, tmp_path):
    done = run(
        "edit", "--photo", "photo.png", "--mask", "mask.png", "--prompt", "a <bear>", out="e.png"
    )
    assert done.stdout.split() == [str(tmp_path / "e.png")]
    before, after, mask = (
        read(home / "photo.png"),
        read(tmp_path / "e.png"),
        read(home / "mask.png"),
    )
    np.testing.assert_array_equal(before[mask == 0], after[mask == 0])
    assert (before != after).any()
    assert read_record(tmp_path / "e.png")["regions"][0]["prompt"] == "a <bear>"


def test_edit_wants_a_prompt_for_each_mask(run):
    two = ("--mask", "mask.png", "--mask", "mask.png", "--prompt", "a")
    assert run("edit", "--photo", "photo.png", *two, out="e.png").exit_code == 2


def test_complete_grows_the_canvas_with_the_scenes_background(run, home, tmp_path):
    done = run("complete", "--photo", "photo.png", "--grow", "right=16", "--json", out="c.png")
    assert json.loads(done.stdout)["regions"][0]["prompt"] == "a photo of <bowl>"
    after = read(tmp_path / "c.png")
    assert after.shape == (64, 96, 3)
    np.testing.assert_array_equal(after[:, :80], read(home / "photo.png"))


def test_complete_spreads_a_growth_into_the_photo(run, home, tmp_path):
    grow = ("--grow", "right=16", "--spread", "8")
    run("complete", "--photo", "photo.png", *grow, out="c.png")
    before, after = read(home / "photo.png"), read(tmp_path / "c.png")[:, :80]
    changed = np.flatnonzero((before != after).any(axis=(0, 2)))
    assert changed.tolist() == list(range(72, 80))


def test_complete_fills_a_hole_and_wants_one(run, home, tmp_path):
    run("complete", "--photo", "photo.png", "--mask", "mask.png", "--spread", "2", out="c.png")
    assert (read(home / "photo.png") != read(tmp_path / "c.png")).any()
    assert run("complete", "--photo", "photo.png", out="c.png").exit_code == 2


@pytest.mark.parametrize("verb", ["edit", "complete"])
def test_a_picture_too_large_for_its_format_is_refused_before_it_is_drawn(run, home, verb):
    long = Image.new("RGB", (16_384, 8))
    long.save(home / "long.png")
    long.paste((255, 255, 255), (0, 0, 4, 4))
    long.save(home / "start.png")
    told = ("--photo", "long.png", "--mask", "start.png", "--prompt", "a <bear>")
    with pytest.raises(FileError, match=r"too large(.|\n)*at most 16383(.|\n)*16384 x 8"):
        run(verb, *told, out="e.webp")


@pytest.mark.parametrize("verb", ["edit", "complete"])
def test_a_picture_of_another_verb_is_refused_before_the_base_is_loaded(
    run, tmp_path, monkeypatch, verb
):
    other = save_picture(tmp_path / "x.png", np.zeros((8, 8, 3), np.uint8), {"verb": "generate"})
    kept = other.read_bytes()
    monkeypatch.setattr("lora_scene.creating.studio.load_pipeline", None)
    told = ("--photo", "photo.png", "--mask", "mask.png", "--prompt", "a <bear>")
    with pytest.raises(FileError, match="a picture of another verb"):
        run(verb, *told, out="x.png")
    assert other.read_bytes() == kept


def test_complete_draws_no_prompt_where_an_empty_one_is_asked_for(run, tmp_path):
    run("complete", "--photo", "photo.png", "--mask", "mask.png", "--prompt", "", out="c.png")
    assert read_record(tmp_path / "c.png")["regions"][0]["prompt"] == ""


@pytest.mark.parametrize("verb", ["edit", "complete"])
@pytest.mark.parametrize(("size", "told"), [((9, 9), "the photo's size"), ((80, 64), "an empty")])
def test_a_mask_without_use_is_told_before_the_base_is_loaded(
    run, tmp_path, monkeypatch, verb, size, told
):
    Image.new("L", size).save(tmp_path / "m.png")
    monkeypatch.setattr("lora_scene.creating.studio.load_pipeline", None)
    with pytest.raises(CreationError, match=told):
        run(
            verb, "--photo", "photo.png", "--mask", tmp_path / "m.png", "--prompt", "a", out="e.png"
        )


@pytest.mark.parametrize(
    ("words", "told"),
    [("edit --photo photo.png --mask white.png --prompt a --out e.png", "white.png: all of the"),
     ("complete --photo photo.png --mask white.png --prompt a --out e.png", "drawn anew"),
     ("interpolate --from a --to a --out f", "both ends are the same")],
)  # fmt: skip
def test_what_leaves_nothing_of_the_photo_or_to_draw_between_is_told(
    home, tmp_path, monkeypatch, words, told
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lora_scene.creating.studio.load_pipeline", None)
    Image.open(home / "photo.png").save("photo.png")
    Image.new("L", (80, 64), 255).save("white.png")
    verb, *rest = words.split()
    assert told in CliRunner().invoke(root, [verb, str(home / "scene"), *rest]).stderr


def test_a_whole_pipeline_goes_into_a_new_folder_alone_which_needs_no_base_to_see(home):
    command = ["export", str(home / "scene"), "--format", "pipeline", "--out", str(home)]
    done = CliRunner().invoke(root, [*command, "--base", "nowhere"])
    assert "the folder is not empty" in str(done.exception)


def test_interpolate_writes_frames_a_strip_and_a_gif(run, tmp_path):
    ends = ("--from", "<bear>", "--to", "<bowl>", "--prompt", "a {}", "--frames", "3")
    done = run("interpolate", *ends, "--to-weight", "0.5", "--json")
    paths = json.loads(done.stdout)["paths"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        Path(path).name for path in paths
    )
    assert read_record(tmp_path / "out" / "000.png")["ends"][1]["weights"] == {"scene": 0.5}


def test_decompose_lists_every_part_and_the_sheet(run, tmp_path):
    done = run("decompose", "--photo", "photo.png", "--apart")
    assert len(done.stdout.split()) == 4
    assert (tmp_path / "out" / "parts.png").is_file()


def test_things_that_do_not_fit_into_one_prompt_are_drawn_and_shown_alone(home, tmp_path):
    own = made.adapter(tiny.pipeline("sd1"), "sd1", unet=False, n_vectors=10)  # 22 tokens fit
    folder = save_adapter(own, tmp_path / "scene")
    there = ["--base", str(home / "sd1-0"), "--device", "cpu"]
    call = ["decompose", str(folder), "--out", str(tmp_path / "parts"), "--steps", "1", *there]
    with pytest.warns(LoraSceneWarning, match="<bear> and <bowl>: they do not fit into one"):
        done = CliRunner().invoke(root, call, catch_exceptions=False)
    names = [Path(line).name for line in done.stdout.split()]
    alone = ["000_a_photo_of_bear_s0.png", "001_a_photo_of_bowl_s0.png"]
    assert names == [*alone, "parts.png"]
    with pytest.warns(LoraSceneWarning, match="not drawn together"):
        CliRunner().invoke(root, ["card", str(folder), "--draw", *there], catch_exceptions=False)
    assert len(last_samples(folder, read_adapter(folder))) == 2


def test_variations_are_placed_and_numbered_by_seed(run, tmp_path):
    done = run("variations", "--n", "2", "--seed", "7", "--place", "--json")
    records = json.loads(done.stdout)
    assert [record["seed"] for record in records] == [7, 8]
    assert all("<bear>" in record["places"] for record in records)
    assert {record["sheet"] for record in records} == {str(tmp_path / "out" / "variations.png")}


def test_a_background_alone_has_no_place_and_that_is_told(run):
    done = run("variations", "--n", "1", "--handle", "bowl", "--place")
    assert "--place: only a background is shown" in done.stderr
    assert "--place" not in run("variations", "--n", "1", "--place").stderr


def test_generate_places_and_weighs_single_concepts(run):
    asked = ("--at", "bear=0,0,0.5,1", "--strength", "bowl=0.5", "--emphasis", "bowl=2")
    (record,) = json.loads(run("generate", "--prompt", "<bear> <bowl>", *asked, "--json").stdout)
    assert record["places"] == {"<bear>": [0.0, 0.0, 0.5, 1.0]}
    assert record["strengths"] == {"<bowl>": 0.5}
    assert record["emphases"] == {"<bowl>": 2.0}


def test_a_card_s_gallery_is_drawn_with_the_adapter_as_it_is(home, tmp_path, monkeypatch):
    monkeypatch.setattr("lora_scene.learning.samples.N_STEPS", 2)
    folder = tmp_path / "scene"
    save_adapter(made.adapter(tiny.pipeline("sd1"), "sd1"), folder)
    Image.new("RGB", (8, 8)).save(tmp_path / "old.png")
    (folder / "samples").mkdir()
    (tmp_path / "old.png").rename(folder / "samples" / "00009-0.png")  # of an earlier stop
    call = ["card", str(folder), "--base", str(home / "sd1-0"), "--device", "cpu"]
    bare = CliRunner().invoke(root, call, catch_exceptions=False)
    assert "no pictures; --draw draws some" in bare.stderr
    assert "![" not in (folder / "README.md").read_text("utf-8")
    CliRunner().invoke(root, [*call, "--draw"], catch_exceptions=False)
    step = sum(read_adapter(folder).info.steps)
    named = sorted(p.name for p in (folder / "samples").iterdir() if p.name != "00009-0.png")
    assert named == [*(f"{step:05}-{n}.png" for n in range(len(named) - 1)), "sheet.png"]
    card = (folder / "README.md").read_text("utf-8")
    assert "(samples/sheet.png)" in card
    assert f"url: samples/{step:05}-0.png" in card
    with Image.open(folder / "samples" / f"{step:05}-0.png") as picture:
        assert f"text: {picture.info['prompt']}" in card
    assert "00009" not in card


def test_the_gallery_of_a_snapshot_that_was_taken_is_its_own(home, tmp_path, monkeypatch):
    monkeypatch.setattr("lora_scene.learning.samples.N_STEPS", 1)
    own = made.adapter(tiny.pipeline("sd1"), "sd1")
    taken = replace(own, info=replace(own.info, taken="step 1 of phase 2, weight 0.8 folded in"))
    folder = save_adapter(taken, tmp_path / "scene")
    save_samples([Image.new("RGB", (8, 8))], ["a <bear>"], folder, sum(own.info.steps))
    assert last_samples(folder, read_adapter(folder)) == ()  # training drew it, at weight 1
    call = ["card", str(folder), "--draw", "--base", str(home / "sd1-0"), "--device", "cpu"]
    done = CliRunner().invoke(root, call, catch_exceptions=False)
    assert "3 picture(s)" in done.stdout
    assert len(last_samples(folder, read_adapter(folder))) == 3
