from __future__ import annotations

import os
import sys

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lora_scene.errors import FileError, LoraSceneWarning, SceneError
from lora_scene.scenes.masking import MaskedPhoto
from lora_scene.scenes.pictures import read_photo
from lora_scene.scenes.scene import Concept, Photo, Scene, load_scene
from lora_scene.scenes.scene_folder import check_scene_place, save_scene, write_scene
from tests.scenes.colour_profiles import SRGB, decode_srgb, rgb_profile
from tests.scenes.factory import TOML, photo


@pytest.fixture
def masked():
    example = photo()
    soft = example.masks.copy()
    soft[0, 4, 6:18] = 0.6
    masks = np.concatenate([soft, 1.0 - soft.max(axis=0, keepdims=True)])
    concepts = (
        Concept("<bear>", "teddy bear"),
        Concept("<bowl>", "bowl"),
        Concept("<room>", "room", is_background=True),
    )
    scene = Scene(concepts, (Photo(example.pixels, masks, "x"),), "x")
    return MaskedPhoto(scene, Image.new("RGB", (8, 8)))


@pytest.fixture
def source(tmp_path, masked):
    Image.fromarray(masked.scene.photos[0].pixels).save(tmp_path / "Holiday.PNG")
    return tmp_path / "Holiday.PNG"


def test_what_is_written_is_read_back(tmp_path, masked, source):
    files = write_scene(tmp_path / "new" / "scene", masked, photo=source)
    assert sorted(file.name for file in files) == [
        "img.png",
        "mask0.png",
        "mask1.png",
        "overlay.png",
        "scene.toml",
    ]
    scene = load_scene(tmp_path / "new" / "scene")
    assert scene.concepts == masked.scene.concepts
    np.testing.assert_array_equal(scene.photos[0].pixels, masked.scene.photos[0].pixels)
    difference = np.abs(scene.photos[0].masks - masked.scene.photos[0].masks).max()
    assert difference <= 0.5 / 255 + 1e-6, difference


def test_the_photo_is_written_upright_and_tells_nothing_of_its_file(tmp_path, masked):
    stored = Image.fromarray(np.rot90(masked.scene.photos[0].pixels).copy())
    exif = stored.getexif()
    exif[0x0112], exif[0x010F], exif[0x013B] = 6, "A camera", "A user"
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.0)  # GPS latitude
    info = PngInfo()
    info.add_text("Author", "A user")
    stored.save(
        tmp_path / "a.png", exif=exif, pnginfo=info, icc_profile=rgb_profile(SRGB, decode_srgb)
    )
    assert read_photo(tmp_path / "a.png").pixels.shape == (32, 40, 3)
    files = write_scene(tmp_path / "scene", masked, photo=tmp_path / "a.png")
    for file in files:
        assert b"A user" not in file.read_bytes()
        if file.suffix == ".png":
            with Image.open(file) as image:
                assert list(image.info) == ["Software"]
    found = load_scene(tmp_path / "scene").photos[0]
    np.testing.assert_array_equal(found.pixels, masked.scene.photos[0].pixels)
    assert found.present == (0, 1, 2)


def test_an_existing_scene_is_kept_unless_asked(tmp_path, masked, source):
    folder = tmp_path / "scene"
    folder.mkdir()
    (folder / "mask1.png").write_bytes(b"mine")
    with pytest.raises(SceneError, match=r"stand here already(.|\n)*mask1\.png(.|\n)*--replace"):
        write_scene(folder, masked, photo=source)
    assert [p.name for p in folder.iterdir()] == ["mask1.png"]
    with pytest.warns(LoraSceneWarning, match=r"mask1\.png.* kept as mask1\.png\.old"):
        write_scene(folder, masked, photo=source, may_replace=True)
    assert load_scene(folder).handles == ("<bear>", "<bowl>", "<room>")


def test_a_replaced_scene_leaves_no_mask_of_ours_and_loses_nothing_of_the_users(
    tmp_path, masked, source
):
    folder = tmp_path / "scene"
    write_scene(folder, masked, photo=source)
    retouched = Image.new("L", (40, 32), 255)
    retouched.save(folder / "mask0.png")
    kept = (folder / "mask0.png").read_bytes()
    Image.new("L", (40, 32), 255).save(folder / "mask7.png")
    (example,) = masked.scene.photos
    alone = Scene(masked.scene.concepts[:1], (Photo(example.pixels, example.masks[:1], "x"),), "x")
    fewer = MaskedPhoto(alone, masked.preview)
    with pytest.warns(LoraSceneWarning, match=r"mask0\.png: .* kept as mask0\.png\.old$"):
        write_scene(folder, fewer, photo=source, may_replace=True)
    names = {"img.png", "mask0.png", "mask0.png.old", "mask7.png", "overlay.png", "scene.toml"}
    assert {path.name for path in folder.iterdir()} == names
    assert (folder / "mask0.png.old").read_bytes() == kept
    (folder / "mask0.png").write_bytes(b"another")
    with pytest.warns(LoraSceneWarning, match=r"kept as mask0\.png\.old1$"):
        write_scene(folder, fewer, photo=source, may_replace=True)
    assert (folder / "mask0.png.old").read_bytes() == kept


@pytest.mark.parametrize("may_replace", [False, True])
def test_no_second_description_is_written_beside_one_in_other_capitals(
    tmp_path, masked, source, may_replace
):
    (tmp_path / "scene").mkdir()
    (tmp_path / "scene" / "Scene.toml").write_text(TOML, "utf-8")
    for write in (
        lambda: write_scene(tmp_path / "scene", masked, photo=source, may_replace=may_replace),
        lambda: save_scene(tmp_path / "scene", masked.scene),
    ):
        with pytest.raises(SceneError, match=r"Scene\.toml: another description stands"):
            write()
    assert [path.name for path in (tmp_path / "scene").iterdir()] == ["Scene.toml"]


def test_a_photo_that_is_already_in_the_folder_is_used_in_place(tmp_path, masked, source):
    folder = tmp_path / "scene"
    folder.mkdir()
    photo = source.rename(folder / "Holiday.PNG")
    before = photo.read_bytes()
    files = write_scene(folder, masked, photo=photo)
    assert photo.name not in {file.name for file in files}
    assert photo.read_bytes() == before
    assert load_scene(folder).handles == ("<bear>", "<bowl>", "<room>")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such name")
def test_a_photo_that_no_text_can_name_is_refused_where_it_would_be_named(tmp_path, source):
    photo = source.rename(tmp_path / os.fsdecode(b"caf\xe9.png"))  # as Latin-1 has it
    with pytest.raises(SceneError, match="no UTF-8"):
        check_scene_place(tmp_path, 1, photo=photo)
    assert "img.png" in check_scene_place(tmp_path / "scene", 1, photo=photo)


@pytest.mark.parametrize("may_replace", [False, True])
def test_another_photo_of_the_users_is_never_replaced(tmp_path, masked, source, may_replace):
    folder = tmp_path / "scene"
    folder.mkdir()
    Image.new("RGB", (9, 9), "teal").save(folder / "img.png")
    before = (folder / "img.png").read_bytes()
    with pytest.raises(FileError, match=r"img\.png: a file that this program did not write"):
        write_scene(folder, masked, photo=source, may_replace=may_replace)
    assert [(p.name, p.read_bytes()) for p in folder.iterdir()] == [("img.png", before)]


@pytest.mark.parametrize("name", ["mask0.png", "overlay.png"])
def test_the_photo_is_never_replaced(tmp_path, masked, source, name):
    folder = tmp_path / "scene"
    folder.mkdir()
    photo = source.rename(folder / name)
    before = photo.read_bytes()
    with pytest.raises(FileError, match="this is what is read"):
        write_scene(folder, masked, photo=photo, may_replace=True)
    assert photo.read_bytes() == before


def test_a_file_in_the_folders_place_is_an_error(tmp_path, masked, source):
    (tmp_path / "scene").write_text("x")
    with pytest.raises(FileError, match="not a folder"):
        write_scene(tmp_path / "scene", masked, photo=source)


def test_all_files_are_written_or_none(tmp_path, masked, source, monkeypatch):
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(FileError, match="disk full"):
        write_scene(tmp_path / "scene", masked, photo=source)
    assert not (tmp_path / "scene").exists()
