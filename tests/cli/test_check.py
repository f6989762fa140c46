from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from lora_scene.cli.main import root
from lora_scene.creating.picture_files import save_picture
from lora_scene.errors import BackboneError, FileError
from lora_scene.files import write_text
from lora_scene.picture_writing import write_picture
from lora_scene.scenes.scene import Photo
from tests.scenes.factory import TOML, write_reference_folder, write_toml_folder


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    return lambda *args: runner.invoke(root, ["check", *map(str, args)], catch_exceptions=False)


def test_check_prints_a_table_and_writes_the_overlay_beside_not_inside(run, tmp_path):
    folder = write_toml_folder(tmp_path / "mine")
    before = sorted(folder.iterdir())
    result = run("mine", "--recipe", "mini", "--size", "32")
    assert result.exit_code == 0
    for part in ("<bear>", "teddy bear", "15.0 %", "overlay: mine_overlay.png", "lora-scene train"):
        assert part in result.stdout
    with Image.open(tmp_path / "mine_overlay.png") as overlay:
        assert overlay.size == (768, 614)
    assert sorted(folder.iterdir()) == before
    folder.rename(tmp_path / "mine.v2")
    assert (
        "overlay: mine.v2_overlay.png" in run("mine.v2", "--recipe", "mini", "--size", "32").stdout
    )


def test_check_within_the_scenes_folder_runs_again_and_reads_nothing_that_was_drawn(
    run, tmp_path, monkeypatch
):
    folder = write_reference_folder(tmp_path / "masks")
    monkeypatch.chdir(folder)
    write_picture(folder / "img_regions.png", Image.new("RGB", (3, 3)))  # of `mask --list img.png`
    _made_ours(folder / "mask1.png")
    for _ in range(2):
        result = run(".", "--recipe", "mini", "--size", "32")
        assert (result.exit_code, "left out" in result.stderr) == (0, False), result.stderr
    assert (folder / "masks_overlay.png").is_file()
    with pytest.raises(FileError, match="this is what is read"):
        run(".", "--recipe", "mini", "--size", "32", "--out", "mask1.png")


def test_check_replaces_no_picture_that_was_drawn(run, tmp_path):
    write_toml_folder(tmp_path / "mine")
    save_picture(tmp_path / "x.png", np.zeros((8, 8, 3), np.uint8), {"verb": "generate"})
    with pytest.raises(FileError, match="another verb"):
        run("mine", "--recipe", "mini", "--size", "32", "--out", "x.png")


def test_check_tells_where_a_concept_is_absent(run, tmp_path):
    text = TOML.replace('["img.png"]', '["img.png", "again.png"]')
    text = text.replace('["mask0.png"]', '["mask0.png", ""]')
    text = text.replace('["mask1.png"]', '["mask1.png", "mask1.png"]')
    folder = write_toml_folder(tmp_path / "mine", text)
    shutil.copy(folder / "img.png", folder / "again.png")
    result = run("mine", "--recipe", "mini", "--size", "32")
    assert "2 photos" in result.stdout
    (line,) = [line for line in result.stdout.splitlines() if "absent" in line]
    assert "<bear>" in line
    assert "%" not in line


def test_check_offers_a_scene_toml_where_there_is_none(run, tmp_path):
    folder = write_reference_folder(tmp_path / "plain")
    result = run("plain", "--recipe", "mini", "--size", "32")
    draft = result.stdout[result.stdout.index("images = ") :]
    (folder / "scene.toml").write_text(draft, encoding="utf-8")
    again = run("plain", "--recipe", "mini", "--size", "32", "--json")
    assert [row["handle"] for row in json.loads(again.stdout)["coverages"]] == ["<v0>", "<v1>"]


def test_check_answers_scripts_in_json(run, tmp_path):
    write_toml_folder(tmp_path / "mine")
    answer = json.loads(run("mine", "--json", "--out", "x.png").stdout)
    assert answer["coverages"][0]["of_photo"] == 0.15
    assert answer["overlay"] == "x.png"
    assert any("enlarged to 576x448 px" in said for said in answer["warnings"])


def test_check_never_replaces_a_strangers_file(run, tmp_path):
    write_toml_folder(tmp_path / "mine")
    Image.new("RGB", (3, 3)).save(tmp_path / "mine_overlay.png")
    theirs = (tmp_path / "mine_overlay.png").read_bytes()
    for arguments in ([], ["--out", "mine_overlay.png"]):
        with pytest.raises(FileError, match="did not write"):
            run("mine", *arguments)
    assert (tmp_path / "mine_overlay.png").read_bytes() == theirs
    for _ in range(2):
        assert run("mine", "--out", "ours.png").exit_code == 0


@pytest.mark.parametrize(
    "target", ["mine/img.png", "mine/mask0.png", "mine/scene.toml", os.devnull]
)
def test_check_replaces_nothing_of_the_scene_and_no_device(run, tmp_path, target):
    folder = write_toml_folder(tmp_path / "mine")
    _made_ours(folder / "mask0.png")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(FileError, match=r"did not write|is read|a device|Windows does not hold"):
        run("mine", "--out", target)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("named", "mask"), [("mine/scene.toml", "mask0.png"), ("mine", "../m.png")]
)
def test_check_replaces_no_mask_that_we_made_however_the_scene_is_named(run, tmp_path, named, mask):
    folder = write_toml_folder(tmp_path / "mine")
    place = (folder / mask).resolve()
    with Image.open(folder / "mask0.png") as picture:
        write_picture(folder / "ours.png", picture.copy())  # as `lora-scene mask` writes it
    (folder / "mask0.png").unlink()
    (folder / "ours.png").rename(place)
    toml = folder / "scene.toml"
    toml.write_text(toml.read_text("utf-8").replace("mask0.png", mask), "utf-8")
    before = place.read_bytes()
    with pytest.raises(FileError, match="this is what is read"):
        run(named, "--out", place, "--recipe", "mini", "--size", "32")
    assert place.read_bytes() == before


def test_check_replaces_no_description_in_other_capitals(run, tmp_path):
    folder = write_toml_folder(tmp_path / "mine")
    (folder / "scene.toml").unlink()
    write_text(folder / "Scene.toml", TOML)  # as we write it, so that it alone would be replaced
    with pytest.raises(FileError, match="this is what is read"):
        run("mine/Scene.toml", "--out", "mine/Scene.toml", "--recipe", "mini", "--size", "32")


def test_names_are_no_markup(run, tmp_path):
    write_toml_folder(tmp_path / "mine", TOML.replace("teddy bear", "[/x] [red]bear"))
    assert "[/x] [red]bear" in run("mine", "--recipe", "sd15", "--size", "512").stdout


def test_check_knows_the_grids_of_its_size(run, tmp_path):
    pole = np.zeros((64, 64), np.float32)
    pole[:, 29:31] = 1.0
    text = TOML[: TOML.rindex("[[")]
    write_toml_folder(
        tmp_path / "mine", text, Photo(np.zeros((64, 64, 3), np.uint8), pole[None], "")
    )
    said = unwrapped(run("mine", "--size", "64"))
    assert "a cell of the attention maps (8x8) is filled by <bear> (25 %)" in said
    assert "latent grid (64x64)" not in unwrapped(run("mine", "--size", "512"))


def unwrapped(result):
    return " ".join(result.stdout.split())


def test_a_bad_scene_is_one_message_and_exit_code_1(tmp_path):
    command = [sys.executable, "-m", "lora_scene", "check", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "no such scene" in done.stderr
    assert "Traceback" not in done.stderr


def test_checking_needs_no_torch(tmp_path):
    write_toml_folder(tmp_path / "mine")
    code = (
        "import sys; from lora_scene.cli.main import root\n"
        f"root(['check', {str(tmp_path / 'mine')!r}, '--out', {str(tmp_path / 'o.png')!r}],"
        " standalone_mode=False)\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_check_looks_with_a_recipe_s_eyes_and_names_it(run, tmp_path):
    write_toml_folder(tmp_path / "mine")
    result = run("mine", "--recipe", "mini")
    assert "recipe mini" in result.stdout
    assert "lora-scene train mine --recipe mini --out adapter" in result.stdout
    assert "embeddings called bear, bowl would take over these words" in result.stderr
    assert json.loads(run("mine", "--json").stdout)["notes"]


@pytest.mark.parametrize(
    ("looked", "trained"),
    [
        (["--size", "1024"], "--recipe sdxl"),
        (["--size", "64"], "--recipe mini"),
        (["--size", "512"], ""),
        (["--size", "768"], "--set base.resolution=768"),
        (["--recipe", "sdxl", "--size", "768"], "--recipe sdxl --set base.resolution=768"),
        (["--recipe", "sdxl", "--size", "1024"], "--recipe sdxl"),
    ],
)
def test_training_is_to_see_what_was_looked_at(run, tmp_path, looked, trained):
    write_toml_folder(tmp_path / "mine")
    following = " ".join(["lora-scene train mine", trained, "--out adapter"]).replace("  ", " ")
    assert f"next:    {following}\n" in run("mine", *looked).stdout


@pytest.mark.parametrize(
    ("looked", "fits"),
    [(["--size", "500"], "64 pixels, such as 512"), (["--recipe", "mini", "--size", "50"], "16 ")],
)
def test_check_refuses_a_size_that_training_refuses(tmp_path, looked, fits):
    folder = write_toml_folder(tmp_path / "mine")
    arguments = ["check", str(folder), "--out", str(tmp_path / "o.png"), *looked]
    with pytest.raises(BackboneError, match=f"cannot work at that size[\\s\\S]*multiple of {fits}"):
        CliRunner().invoke(root, arguments, catch_exceptions=False)
    assert not (tmp_path / "o.png").exists()


@pytest.mark.parametrize(
    ("looked", "own"),
    [
        (["--recipe", "mini", "--size", "512"], 64),
        (["--size", "1536"], 512),
        (["--size", "128"], 512),
    ],
)
def test_check_refuses_a_size_too_far_from_the_base_s_own_as_training_does(tmp_path, looked, own):
    folder = write_toml_folder(tmp_path / "mine")
    arguments = ["check", str(folder), "--out", str(tmp_path / "o.png"), *looked]
    with pytest.raises(BackboneError, match=f"was made for {own} px"):
        CliRunner().invoke(root, arguments, catch_exceptions=False)
    assert not (tmp_path / "o.png").exists()


def test_check_tells_a_strange_size_as_training_does(run, tmp_path):
    write_toml_folder(tmp_path / "mine")
    told = run("mine", "--recipe", "mini", "--size", "96").stderr
    assert "mini was made for 64 px, and this recipe trains it at 96" in told
    assert "made for" not in run("mine", "--recipe", "mini", "--size", "80").stderr


def test_no_size_is_recommended_that_training_refuses(run, tmp_path):
    write_toml_folder(tmp_path / "mine")  # of 40x32 px
    assert "base.resolution=32 enlarges nothing" in unwrapped(run("mine", "--recipe", "mini"))
    halved = unwrapped(run("mine", "--recipe", "sd15", "--size", "256"))
    assert "enlarged" in halved
    assert "enlarges nothing" not in halved


def test_check_does_not_send_to_training_what_training_refuses(run, tmp_path):
    folder = write_toml_folder(tmp_path / "mine")
    mask = np.zeros((32, 40), np.uint8)
    mask[16, 20:22] = 255
    Image.fromarray(mask).save(folder / "mask0.png")
    said = run("mine", "--recipe", "mini", "--size", "32").stdout
    assert "next:    too little of <bear> is left at this size: training refuses it" in said
    assert "lora-scene train" not in said


def test_check_does_not_send_prompts_to_training_that_it_would_cut(run, tmp_path):
    write_toml_folder(tmp_path / "mine", TOML.replace("teddy bear", "ceramic " * 10))
    said = unwrapped(run("mine", "--recipe", "mini"))
    assert re.search(
        r"next: handles.templates: a prompt has \d+ tokens, and the text encoder", said
    )
    assert "lora-scene train" not in said
    (refusal,) = json.loads(run("mine", "--recipe", "mini", "--json").stdout)["refusals"]
    assert "reads 32: training refuses it" in refusal


def test_check_tells_that_a_photo_is_grey(run, tmp_path):
    folder = write_toml_folder(tmp_path / "mine")
    assert "grey" not in run("mine").stdout
    with Image.open(folder / "img.png") as image:
        image.convert("L").save(folder / "img.png")
    assert "img.png: the photo is grey: its things are learnt grey" in unwrapped(run("mine"))


def test_check_tells_shape_and_cut_of_a_phones_photo_that_lies_on_its_side(run, tmp_path):
    write_toml_folder(tmp_path / "mine", TOML[: TOML.rindex("[[")])
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, shown upright
    Image.new("RGB", (192, 108), "gray").save(tmp_path / "mine" / "img.png", exif=exif)
    Image.new("L", (108, 192), 255).save(tmp_path / "mine" / "mask0.png")
    said = unwrapped(run("mine"))
    assert "img.png: 108x192 px, learnt at 384x704 px; cut off: 1 px left, 2 px right" in said
    assert "part of 105x192 px is enlarged to 384x704 px" in said
    assert "learnt at 512x512 px; cut off: 42 px top, 42 px bottom" in unwrapped(
        run("mine", "--recipe", "paper")
    )
    (framing,) = json.loads(run("mine", "--json", "--recipe", "mini").stdout)["framings"]
    assert (framing["size"], framing["trained"]) == ([108, 192], [48, 80])


def _made_ours(path):
    """Write a picture anew, as the program does."""
    picture = Image.open(path).copy()
    path.unlink()
    write_picture(path, picture)
