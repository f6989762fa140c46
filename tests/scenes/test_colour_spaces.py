from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image
from PIL.ImageCms import ImageCmsProfile, createProfile
from PIL.PngImagePlugin import PngInfo

from lora_scene.errors import LoraSceneWarning
from lora_scene.scenes.pictures import read_photo
from tests.scenes.colour_profiles import (
    ADOBE_RGB,
    DISPLAY_P3,
    GAMMA,
    SRGB,
    decode_srgb,
    encode_srgb,
    grey_profile,
    rgb_profile,
    seen_through,
)

RNG = np.random.default_rng(1)
COLOUR = RNG.integers(0, 256, size=(6, 9, 3), dtype=np.uint8)
P3, SRGB_CODE, HLG, PQ = (12, 13), (1, 13), (9, 18), (9, 16)
GAMMA_ONE = PngInfo()
GAMMA_ONE.add(b"gAMA", (100_000).to_bytes(4, "big"))


@pytest.mark.parametrize(
    ("primaries", "encode", "decode"),
    [
        (DISPLAY_P3, encode_srgb, decode_srgb),
        (ADOBE_RGB, lambda v: v ** (1 / GAMMA), lambda v: v**GAMMA),
    ],
    ids=["Display P3", "Adobe RGB"],
)
@pytest.mark.parametrize("form", ["RGB.png", "RGBA.png", "RGB.tif", "P.png", "RGB.webp"])
def test_a_photo_with_a_profile_is_read_as_srgb(tmp_path, primaries, encode, decode, form):
    meant = (200, 60, 60)
    pixels = np.broadcast_to(seen_through(meant, primaries, encode), (6, 9, 3))
    assert np.abs(pixels[0, 0].astype(int) - meant).max() > 10, "the profile changes the numbers"
    image = Image.fromarray(pixels).convert(form.partition(".")[0], palette=Image.Palette.ADAPTIVE)
    image.save(tmp_path / form, icc_profile=rgb_profile(primaries, decode), lossless=True)
    found = read_photo(tmp_path / form).pixels.astype(int)
    assert np.abs(found - meant).max() <= 2, found[0, 0]


def test_a_grey_photo_with_a_profile_is_read_as_srgb(tmp_path):
    profile = grey_profile(lambda v: v**1.8)
    meant = np.rint(255 * encode_srgb(np.array(128 / 255) ** 1.8))
    for name, pixels in (("8", np.full((6, 9), 128, np.uint8)), ("16", np.full((6, 9), 32896))):
        path = tmp_path / f"{name}.png"
        Image.fromarray(pixels.astype(np.uint16 if name == "16" else np.uint8)).save(
            path, icc_profile=profile
        )
        assert np.abs(read_photo(path).pixels - meant).max() <= 1


def test_a_profile_of_srgb_changes_no_pixel(tmp_path):
    for profile in (
        rgb_profile(SRGB, decode_srgb),
        ImageCmsProfile(createProfile("sRGB")).tobytes(),
    ):
        Image.fromarray(COLOUR).save(tmp_path / "photo.png", icc_profile=profile)
        np.testing.assert_array_equal(read_photo(tmp_path / "photo.png").pixels, COLOUR)


def test_a_profile_that_rounds_otherwise_than_srgb_changes_no_pixel(tmp_path):
    pixels = np.stack(np.meshgrid(*[np.arange(0, 256, 15, dtype=np.uint8)] * 3), axis=-1)
    pixels = pixels.reshape(18, -1, 3)
    profile = rgb_profile(tuple((x + 5e-5, y) for x, y in SRGB), decode_srgb)
    Image.fromarray(pixels).save(tmp_path / "photo.png", icc_profile=profile)
    np.testing.assert_array_equal(read_photo(tmp_path / "photo.png").pixels, pixels)


@pytest.mark.parametrize("profile", [b"no profile", grey_profile(lambda v: v), b"\0" * 128])
def test_a_profile_that_cannot_be_used_is_told(tmp_path, profile):
    Image.fromarray(COLOUR).save(tmp_path / "photo.png", icc_profile=profile)
    with pytest.warns(LoraSceneWarning, match=r"photo\.png: its colour profile cannot be used"):
        pixels = read_photo(tmp_path / "photo.png").pixels
    np.testing.assert_array_equal(pixels, COLOUR)


def test_cmyk_is_read_by_its_profile(tmp_path):
    image = Image.fromarray(COLOUR).convert("CMYK")
    image.save(tmp_path / "photo.tif", icc_profile=rgb_profile(SRGB, decode_srgb))
    with pytest.warns(LoraSceneWarning, match="it is for RGB, the pixels are CMYK"):
        read_photo(tmp_path / "photo.tif")


def exif_of(space, index):
    exif = Image.Exif()
    exif[0x8769] = {0xA001: space, 0xA005: {1: index}}
    return exif


def test_adobe_rgb_that_the_exif_alone_tells_is_read_as_srgb(tmp_path):
    seen = seen_through((200, 60, 60), ADOBE_RGB, lambda v: v ** (1 / GAMMA))
    assert np.abs(seen.astype(int) - (200, 60, 60)).max() > 10, "the space changes the numbers"
    path = tmp_path / "camera.png"
    Image.new("RGB", (9, 6), tuple(map(int, seen))).save(path, exif=exif_of(0xFFFF, "R03"))
    assert np.abs(read_photo(path).pixels.astype(int) - (200, 60, 60)).max() <= 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"exif": exif_of(0xFFFF, "R98")}, "names no colour space"),
        ({"pnginfo": GAMMA_ONE}, "its gamma is 1"),
    ],
)
def test_colours_without_a_profile_that_are_not_srgb_are_told(tmp_path, options, said):
    Image.fromarray(COLOUR).save(tmp_path / "photo.png", **options)
    with pytest.warns(LoraSceneWarning, match=said):
        read_photo(tmp_path / "photo.png")


@pytest.mark.parametrize("form", ["png", "avif"])
@pytest.mark.parametrize("codes", [SRGB_CODE, P3, HLG, PQ])
def test_codes_of_another_colour_space_are_told(tmp_path, form, codes):
    """ITU-T H.273: primaries and transfer, as a PNG's cICP and an AVIF's nclx box hold them."""
    path, info = tmp_path / f"photo.{form}", PngInfo()
    info.add(b"cICP", bytes([*codes, 0, 1]))
    Image.fromarray(COLOUR).save(path, **({"pnginfo": info} if form == "png" else {}))
    if form == "avif":
        before, box, after = path.read_bytes().partition(b"colrnclx")
        path.write_bytes(before + box + bytes([0, codes[0], 0, codes[1]]) + after[4:])
    with nullcontext() if codes == SRGB_CODE else pytest.warns(LoraSceneWarning, match="HDR or"):
        assert read_photo(path).pixels.shape == COLOUR.shape
