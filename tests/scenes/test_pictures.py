from __future__ import annotations

import re
import sys
import warnings
from contextlib import nullcontext
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from lora_scene.errors import LoraSceneWarning, SceneError
from lora_scene.scenes import pictures
from lora_scene.scenes.pictures import grey_doubt, read_photo

RNG = np.random.default_rng(1)
GREY = RNG.integers(0, 256, size=(6, 9), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, size=(6, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr"])
def test_every_mode_of_photo_becomes_rgb(tmp_path, mode):
    image = Image.fromarray(COLOUR).convert(mode)
    path = tmp_path / ("photo.tif" if mode in ("CMYK", "YCbCr") else "photo.png")
    image.save(path, compression="tiff_lzw")  # libtiff decodes it; Pillow 12 reads no raw YCbCr
    expected = np.asarray(image.convert("RGB"))
    told = pytest.warns(LoraSceneWarning, match="CMYK") if mode == "CMYK" else nullcontext()
    with told:
        found = read_photo(path).pixels
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found.astype(int), expected, atol=1 if mode == "YCbCr" else 0)


def test_a_16_bit_photo_is_scaled_not_clipped(tmp_path):
    deep = GREY.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    found = read_photo(tmp_path / "deep.png").pixels
    np.testing.assert_array_equal(found, np.repeat(GREY[:, :, None], 3, axis=2))


@pytest.mark.parametrize("n_bits", [8, 12])
def test_a_16_bit_photo_whose_values_have_fewer_bits_is_told(tmp_path, n_bits):
    peak = 2**n_bits - 1
    Image.fromarray(np.full((6, 9), peak, np.uint16)).save(tmp_path / "deep.png")
    with pytest.warns(LoraSceneWarning, match=f"its brightest is {peak} of 65535, nearly black"):
        read_photo(tmp_path / "deep.png")


def test_transparent_parts_of_a_photo_become_white_and_are_told(tmp_path):
    layer = np.dstack([COLOUR, np.where(GREY > 127, 255, 0).astype(np.uint8)])
    Image.fromarray(layer).save(tmp_path / "photo.png")
    expected = np.where((GREY > 127)[:, :, None], COLOUR, 255)
    with pytest.warns(LoraSceneWarning, match=f"{100 * (GREY <= 127).mean():.1f} % of it is trans"):
        np.testing.assert_array_equal(read_photo(tmp_path / "photo.png").pixels, expected)


@pytest.mark.parametrize("form", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_rotated_photo_is_read_upright(tmp_path, orientation, form):
    from PIL import ImageOps

    image = Image.fromarray(COLOUR)
    exif = image.getexif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo.{form}"
    image.save(path, exif=exif)
    with Image.open(path) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    found = read_photo(path)
    np.testing.assert_array_equal(found.pixels, expected)
    assert (found.stored_shape, found.orientation) == (COLOUR.shape[:2], orientation)


@pytest.mark.parametrize("junk", [b"Exif\0\0junk", b"Exif\0\0II*\0" + b"\xff" * 40, b"Exif\0\0"])
def test_broken_exif_is_told_and_the_photo_read_as_it_lies(tmp_path, junk):
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(tmp_path / "a.jpg", exif=junk)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert abs(int(read_photo(tmp_path / "a.jpg").pixels.mean()) - 90) <= 1
    assert all(w.category is LoraSceneWarning and "EXIF" in str(w.message) for w in told)


def test_an_orientation_that_does_not_exist_is_told(tmp_path):
    image = Image.fromarray(COLOUR)
    exif = image.getexif()
    exif[0x0112] = 77
    image.save(tmp_path / "photo.png", exif=exif)
    with pytest.warns(LoraSceneWarning, match="EXIF"):
        np.testing.assert_array_equal(read_photo(tmp_path / "photo.png").pixels, COLOUR)


@pytest.mark.parametrize("name", ["a.gif", "a.tif", "a.webp", "a.png"])
def test_further_frames_are_told(tmp_path, name):
    first, second = Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)
    first.save(tmp_path / name, save_all=True, append_images=[second], lossless=True)
    with pytest.warns(LoraSceneWarning, match="the first of its 2 frames"):
        found = read_photo(tmp_path / name).pixels
    assert np.abs(found.astype(int) - COLOUR).mean() < 30  # a GIF has few colours


def test_heif_needs_a_library_that_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.HEIC").write_bytes(b"any")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(SceneError, match="pip install pillow-heif"):
        read_photo(tmp_path / "a.HEIC")
    stand_in = ModuleType("pillow_heif")
    vars(stand_in)["register_heif_opener"] = lambda: None
    monkeypatch.setitem(sys.modules, "pillow_heif", stand_in)
    with pytest.raises(SceneError, match="not a readable image"):
        read_photo(tmp_path / "a.HEIC")


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1"])
def test_a_phones_photo_that_was_renamed_needs_the_same_library(tmp_path, monkeypatch, brand):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "img.jpg").write_bytes(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + bytes(99))
    with pytest.raises(SceneError, match="pip install pillow-heif"):
        read_photo(tmp_path / "img.jpg")


@pytest.mark.parametrize("brand", [b"avif", b"mif1"])
def test_an_avif_that_was_renamed_needs_none(tmp_path, monkeypatch, brand):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    Image.fromarray(COLOUR).save(tmp_path / "a.avif", quality=100)
    whole = (tmp_path / "a.avif").read_bytes()
    (tmp_path / "img.jpg").write_bytes(whole[:8] + brand + whole[12:])
    assert read_photo(tmp_path / "img.jpg").pixels.shape == COLOUR.shape


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "an empty file"),
        (b"\xef\xbb\xbf<!DOCTYPE html>\n<html>", "begins with '<!DOCTYPE html>'"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "begins with 'version https://git-lfs",
        ),
        (b"8BPS\0\1", "begins with '8BPS'"),
        (b"%PDF-1.7\n", "begins with '%PDF-1.7'"),
    ],
)
def test_what_is_no_image_is_told_by_its_beginning(tmp_path, content, told):
    (tmp_path / "img.jpg").write_bytes(content)
    with pytest.raises(SceneError, match=f"not a readable image(.|\n)*{re.escape(told)}"):
        read_photo(tmp_path / "img.jpg")


@pytest.mark.parametrize("place", ["/dev/zero", "/dev", "a" * 300, "no\0name"])
def test_what_is_no_file_is_refused_at_once(tmp_path, place):
    with pytest.raises(SceneError):
        read_photo(tmp_path / place)


def test_a_list_of_neighbours_is_short(tmp_path):
    for n in range(30):
        (tmp_path / f"{n:02}.png").touch()
    with pytest.raises(SceneError, match=r"07\.png and 22 more"):
        read_photo(tmp_path / "img.png")


def test_a_decoder_that_would_start_another_program_is_not_asked(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "img.png")
    with pytest.raises(SceneError, match="not a readable image"):
        read_photo(tmp_path / "img.png")


def test_integers_of_32_bits_are_refused_where_they_exceed_16(tmp_path):
    Image.fromarray(np.full((4, 4), 70_000, np.int32)).save(tmp_path / "img.tif")
    with pytest.raises(SceneError, match="32-bit integers"):
        read_photo(tmp_path / "img.tif")


def test_a_missing_file_is_named_with_its_neighbours(tmp_path):
    (tmp_path / "img.jpeg").write_bytes(b"")
    with pytest.raises(SceneError, match=r"img\.jpg: no such file(.|\n)*img\.jpeg"):
        read_photo(tmp_path / "img.jpg")


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n broken"])
def test_what_is_no_image_is_refused(tmp_path, content):
    (tmp_path / "img.png").write_bytes(content)
    with pytest.raises(SceneError, match="not a readable image"):
        read_photo(tmp_path / "img.png")


def test_a_truncated_jpeg_is_refused(tmp_path):
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SceneError, match="not a readable image"):
        read_photo(tmp_path / "a.jpg")


def test_an_image_over_the_pixel_limit_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 50)
    Image.fromarray(COLOUR).save(tmp_path / "img.png")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(SceneError, match="too large"):
        read_photo(tmp_path / "img.png")


@pytest.mark.parametrize("bomb_limit", [10, 40])
def test_pillows_own_bomb_guard_is_told_the_same_way(tmp_path, monkeypatch, bomb_limit):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 50)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", bomb_limit)
    Image.fromarray(COLOUR).save(tmp_path / "img.png")
    with pytest.raises(SceneError, match="too large"):
        read_photo(tmp_path / "img.png")


def test_an_image_of_floats_is_refused(tmp_path):
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "img.tif")
    with pytest.raises(SceneError, match="floats"):
        read_photo(tmp_path / "img.tif")


def test_a_preview_in_place_of_a_photo_is_refused(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "photo.dng", "TIFF", tiffinfo={254: 1})
    with pytest.raises(SceneError, match=r"preview of a larger photo(.|\n)*9 x 6 pixels"):
        read_photo(tmp_path / "photo.dng")
    Image.fromarray(COLOUR).save(tmp_path / "photo.tif", tiffinfo={254: 0})
    np.testing.assert_array_equal(read_photo(tmp_path / "photo.tif").pixels, COLOUR)


@pytest.mark.parametrize("stored", ["grey", "as colours", "a colour JPEG"])
def test_a_photo_without_colours_is_told(tmp_path, stored):
    shades = np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8)
    image = Image.fromarray(shades)
    path = tmp_path / ("photo.jpg" if stored == "a colour JPEG" else "photo.png")
    (image if stored == "grey" else image.convert("RGB")).save(path)
    (told,) = grey_doubt(read_photo(path).pixels)
    assert told.startswith("the photo is grey: its things are learnt grey")


@pytest.mark.parametrize(("n_red", "is_told"), [(0, True), (30, True), (32, False), (3072, False)])
def test_a_stain_is_no_colour_and_a_thing_is(n_red, is_told):
    """A hundredth of 48 x 64 pixels is 30.72."""
    pixels = np.full((48, 64, 3), 90, np.uint8)
    pixels.reshape(-1, 3)[:n_red, 0] = 90 + 9
    assert bool(grey_doubt(pixels)) == is_told
    pixels.reshape(-1, 3)[:n_red, 0] = 90 + 8
    assert grey_doubt(pixels)
