from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from lora_scene.creating.picture_files import (
    read_record,
    refuse_other_verb,
    save_growing,
    save_image,
    save_numbered,
    save_picture,
    save_set,
)
from lora_scene.errors import CreationError, FileError


def colour(value, height=8, width=8):
    return np.full((height, width, 3), value, np.uint8)


@pytest.mark.parametrize("ending", ["png", "jpg", "jpeg", "webp", "PNG"])
def test_a_record_of_any_language_survives_the_file(tmp_path, ending):
    record = {"verb": "edit", "regions": [{"prompt": "ein <bär> 熊"}]}
    path = save_picture(tmp_path / "deep" / f"x.{ending}", colour(7), record)
    assert read_record(path) == record
    with Image.open(path) as image:
        assert image.format == {"jpg": "JPEG"}.get(ending, ending.upper())
        np.testing.assert_array_equal(np.asarray(image), colour(7))


def test_a_webp_keeps_every_pixel(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    with Image.open(save_picture(tmp_path / "x.webp", pixels, {})) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_an_unknown_ending_and_a_record_that_a_jpeg_cannot_hold_are_refused(tmp_path):
    with pytest.raises(FileError, match=r"\.png, \.jpg"):
        save_picture(tmp_path / "x.tiff", colour(1), {})
    with pytest.raises(FileError, match=r"write a \.png"):
        save_picture(tmp_path / "x.jpg", colour(1), {"long": "x" * 70_000})


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_a_picture_replaces_one_of_its_verb_and_no_other(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    first = save_picture(path, colour(1), {"verb": "edit", "seed": 1}).read_bytes()
    for verb in ("complete", None):
        with pytest.raises(FileError, match=r"another verb(.|\n)*got: +edit(.|\n)*another name"):
            save_picture(path, colour(2), {"verb": verb})
        with pytest.raises(FileError, match="another verb"):
            refuse_other_verb(path, verb)
    assert path.read_bytes() == first
    refuse_other_verb(path, "edit")
    assert save_picture(path, colour(2), {"verb": "edit"}).read_bytes() != first
    sheet = save_image(tmp_path / "sheet.png", Image.new("RGB", (2, 2)))  # ours, without a record
    with pytest.raises(FileError, match="another verb"):
        save_picture(sheet, colour(2), {"verb": "edit"})


def test_the_same_picture_stays_and_another_is_numbered_on(tmp_path):
    path = tmp_path / "x.png"
    assert save_numbered(path, colour(1), {"seed": 1}) == path
    assert save_numbered(path, colour(1), {"seed": 1}) == path
    assert save_numbered(path, colour(1), {"seed": 2}) == tmp_path / "x_2.png"
    assert save_numbered(path, colour(3), {"seed": 1}) == tmp_path / "x_3.png"
    assert read_record(path) == {"seed": 1}
    assert len(list(tmp_path.iterdir())) == 3


def test_pictures_of_others_and_links_are_numbered_around(tmp_path):
    (tmp_path / "x.png").write_bytes(b"mine")
    (tmp_path / "x_2.png").symlink_to(tmp_path / "nowhere.png")
    assert save_image(tmp_path / "x.png", Image.new("RGB", (2, 2))).name == "x_3.png"
    assert (tmp_path / "x.png").read_bytes() == b"mine"
    assert not (tmp_path / "nowhere.png").exists()


def test_files_that_belong_together_get_one_number(tmp_path):
    (tmp_path / "b.png").write_bytes(b"mine")
    gif = b"GIF89a"
    paths = save_set({tmp_path / "a.gif": gif, tmp_path / "b.png": b"theirs"})
    assert [path.name for path in paths] == ["a_2.gif", "b_2.png"]
    assert save_set({tmp_path / "a.gif": gif, tmp_path / "b.png": b"mine"})[0].name == "a.gif"


def test_files_that_come_one_by_one_get_one_number(tmp_path):
    (tmp_path / "b.png").write_bytes(b"mine")
    (tmp_path / "c_2.png").write_bytes(b"mine")
    files = [(tmp_path / f"{name}.png", name.encode()) for name in "abcd"]
    paths = save_growing(files)
    assert [path.name for path in paths] == [f"{name}_3.png" for name in "abcd"]
    assert [path.read_bytes() for path in paths] == [data for _, data in files]
    assert save_growing(files[:1]) == [tmp_path / "a.png"]
    assert save_growing(files[3:]) == [tmp_path / "d.png"]


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.raises(FileError, match="taken"):
        save_numbered(tmp_path / "taken" / "x.png", colour(1), {})
    with pytest.raises(FileError):
        save_numbered(tmp_path / f"{'x' * 300}.png", colour(1), {})
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def png_with(path, text):
    info = PngImagePlugin.PngInfo()
    info.add_itxt("lora_scene", text, zip=len(text) > 1000)
    Image.new("RGB", (2, 2)).save(path, pnginfo=info)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[1]",
        "7",
        "[" * 5000,
        '{"seed": ' + "9" * 5000 + "}",
        '{"guidance": NaN}',
        json.dumps({"pad": "x" * (8 << 20)}),
    ],
)
def test_a_hostile_record_is_a_sentence(tmp_path, text):
    png_with(tmp_path / "x.png", text)
    with pytest.raises(CreationError):
        read_record(tmp_path / "x.png")


def test_what_is_no_picture_is_a_sentence(tmp_path):
    whole = save_picture(tmp_path / "x.png", colour(7), {"verb": "edit"}).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 4])
    for path in (tmp_path / "half.png", tmp_path, tmp_path / "none.png", "/dev/zero"):
        with pytest.raises(CreationError, match="not a readable picture"):
            read_record(type(tmp_path)(path))


def test_a_sheet_is_told_from_a_picture_that_lost_its_record(tmp_path):
    sheet = save_image(tmp_path / "grid.png", Image.fromarray(colour(1)))
    with pytest.raises(CreationError, match="no one prompt drew it"):
        read_record(sheet)
    Image.fromarray(colour(1)).save(tmp_path / "edited.png")
    with pytest.raises(CreationError, match="editors often drop"):
        read_record(tmp_path / "edited.png")
