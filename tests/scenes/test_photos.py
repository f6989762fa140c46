from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lora_scene.errors import SceneError
from lora_scene.scenes import photos
from lora_scene.scenes.photos import read_mask, read_photo, write_own_png, write_png

RNG = np.random.default_rng(1)
GREY = RNG.integers(0, 256, size=(6, 9), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, size=(6, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr"])
def test_every_mode_of_photo_becomes_rgb(tmp_path, mode):
    image = Image.fromarray(COLOUR).convert(mode)
    path = tmp_path / ("photo.tif" if mode in ("CMYK", "YCbCr") else "photo.png")
    image.save(path)
    expected = np.asarray(image.convert("RGB"))
    found = read_photo(path).pixels
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_a_16_bit_photo_is_scaled_not_clipped(tmp_path):
    deep = GREY.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    found = read_photo(tmp_path / "deep.png").pixels
    np.testing.assert_array_equal(found, np.repeat(GREY[:, :, None], 3, axis=2))


def test_a_16_bit_mask_keeps_its_precision(tmp_path):
    deep = np.array([[0, 1, 300], [32768, 65534, 65535]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_allclose(read_mask(tmp_path / "deep.png"), deep / 65535, atol=1e-7)


def test_transparent_parts_of_a_photo_become_white(tmp_path):
    layer = np.dstack([COLOUR, np.where(GREY > 127, 255, 0).astype(np.uint8)])
    Image.fromarray(layer).save(tmp_path / "photo.png")
    expected = np.where((GREY > 127)[:, :, None], COLOUR, 255)
    np.testing.assert_array_equal(read_photo(tmp_path / "photo.png").pixels, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_rotated_photo_is_read_upright(tmp_path, orientation):
    from PIL import ImageOps

    image = Image.fromarray(COLOUR)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "photo.png", exif=exif)
    with Image.open(tmp_path / "photo.png") as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    np.testing.assert_array_equal(read_photo(tmp_path / "photo.png").pixels, expected)


def test_a_mask_with_an_orientation_of_its_own_obeys_it(tmp_path):
    image = Image.fromarray(GREY)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "mask.png", exif=exif)
    np.testing.assert_allclose(read_mask(tmp_path / "mask.png"), np.rot90(GREY, -1) / 255)


def test_a_mask_drawn_on_the_stored_photo_is_turned_with_it(tmp_path):
    image = Image.fromarray(COLOUR)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "photo.jpg", exif=exif)
    photo = read_photo(tmp_path / "photo.jpg")
    assert photo.pixels.shape == (9, 6, 3)
    Image.fromarray(GREY).save(tmp_path / "stored.png")
    Image.fromarray(np.rot90(GREY, -1).copy()).save(tmp_path / "upright.png")
    expected = np.rot90(GREY, -1) / 255
    np.testing.assert_allclose(read_mask(tmp_path / "stored.png", photo), expected)
    np.testing.assert_allclose(read_mask(tmp_path / "upright.png", photo), expected)


def test_soft_edges_survive_in_grey_colour_and_alpha(tmp_path):
    red = np.zeros((6, 9, 3), dtype=np.uint8)
    red[:, :, 0] = GREY
    cut_out = np.dstack([COLOUR, GREY])
    opaque = np.dstack([GREY, GREY, GREY, np.full_like(GREY, 255)])
    for n, array in enumerate([GREY, red, cut_out, opaque]):
        Image.fromarray(array).save(tmp_path / f"{n}.png")
        np.testing.assert_allclose(read_mask(tmp_path / f"{n}.png"), GREY / 255, atol=1e-7)


def test_a_palette_mask_is_read_by_its_colours(tmp_path):
    image = Image.fromarray((GREY > 127).astype(np.uint8))
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), GREY > 127)


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
    monkeypatch.setattr(photos, "MAX_PIXELS", 50)
    Image.fromarray(COLOUR).save(tmp_path / "img.png")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(SceneError, match="too large"):
        read_photo(tmp_path / "img.png")


@pytest.mark.parametrize("bomb_limit", [10, 40])
def test_pillows_own_bomb_guard_is_told_the_same_way(tmp_path, monkeypatch, bomb_limit):
    monkeypatch.setattr(photos, "MAX_PIXELS", 50)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", bomb_limit)
    Image.fromarray(COLOUR).save(tmp_path / "img.png")
    with pytest.raises(SceneError, match="too large"):
        read_photo(tmp_path / "img.png")


def test_an_image_of_floats_is_refused(tmp_path):
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "img.tif")
    with pytest.raises(SceneError, match="floats"):
        read_mask(tmp_path / "img.tif")


def test_a_picture_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "out.png"
    write_png(path, Image.fromarray(COLOUR))
    before = path.read_bytes()

    def fail(self, file, **_):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        write_png(path, Image.fromarray(COLOUR))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out.png"]


def test_only_own_pictures_are_replaced_unasked(tmp_path):
    def read(path):
        with Image.open(path) as image:
            return np.asarray(image)

    own, foreign = tmp_path / "own.png", tmp_path / "foreign.png"
    write_own_png(own, Image.fromarray(COLOUR))
    write_own_png(own, Image.fromarray(GREY))
    np.testing.assert_array_equal(read(own), GREY)
    Image.fromarray(COLOUR).save(foreign)
    with pytest.raises(SceneError, match="did not write"):
        write_own_png(foreign, Image.fromarray(GREY))
    write_own_png(foreign, Image.fromarray(GREY), may_replace=True)
    np.testing.assert_array_equal(read(foreign), GREY)


def test_a_picture_into_a_missing_folder_is_a_package_error(tmp_path):
    with pytest.raises(SceneError, match="cannot be written"):
        write_own_png(tmp_path / "no" / "out.png", Image.fromarray(GREY))
