from __future__ import annotations

import warnings

import numpy as np
import pytest
from PIL import Image

from lora_scene.errors import LoraSceneWarning, SceneError
from lora_scene.picture_writing import write_picture
from lora_scene.scenes.mask_files import read_mask
from lora_scene.scenes.pictures import read_photo
from tests.scenes.colour_profiles import grey_profile

RNG = np.random.default_rng(1)
GREY = RNG.integers(0, 256, size=(6, 9), dtype=np.uint8)
GREY[0, :4] = 255
COLOUR = RNG.integers(0, 256, size=(6, 9, 3), dtype=np.uint8)


def test_a_16_bit_mask_keeps_its_precision(tmp_path):
    deep = np.array([[0, 1, 300], [32768, 65534, 65535]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_allclose(read_mask(tmp_path / "deep.png"), deep / 65535, atol=1e-7)


@pytest.mark.parametrize("form", ["png", "tif"])
def test_a_mask_with_an_orientation_of_its_own_obeys_it(tmp_path, form):
    image = Image.fromarray(GREY)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / f"mask.{form}", exif=exif)
    np.testing.assert_allclose(read_mask(tmp_path / f"mask.{form}"), np.rot90(GREY, -1) / 255)


@pytest.mark.parametrize("form", ["jpg", "tif"])
def test_a_mask_drawn_on_the_stored_photo_is_turned_with_it(tmp_path, form):
    image = Image.fromarray(COLOUR)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / f"photo.{form}", exif=exif)
    photo = read_photo(tmp_path / f"photo.{form}")
    assert photo.pixels.shape == (9, 6, 3)
    Image.fromarray(GREY).save(tmp_path / "stored.png")
    Image.fromarray(np.rot90(GREY, -1).copy()).save(tmp_path / "upright.png")
    expected = np.rot90(GREY, -1) / 255
    np.testing.assert_allclose(read_mask(tmp_path / "stored.png", photo), expected)
    np.testing.assert_allclose(read_mask(tmp_path / "upright.png", photo), expected)


@pytest.mark.parametrize("form", ["png", "tif"])
@pytest.mark.parametrize(("orientation", "shape"), [(3, (6, 9)), (6, (9, 9))])
def test_a_mask_that_may_lie_as_the_photo_is_stored_or_as_it_is_seen_is_told(
    tmp_path, orientation, shape, form
):
    image = Image.fromarray(np.zeros((*shape, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / f"photo.{form}", exif=exif)
    photo = read_photo(tmp_path / f"photo.{form}")
    seen = np.zeros(shape, np.uint8)
    seen[:2, :3] = 255
    Image.fromarray(seen).save(tmp_path / "mask.png")
    with pytest.warns(LoraSceneWarning, match="turned by EXIF"):
        np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", photo), seen / 255)
    write_picture(tmp_path / "ours.png", Image.fromarray(seen))  # as `lora-scene mask` writes it
    np.testing.assert_array_equal(read_mask(tmp_path / "ours.png", photo), seen / 255)


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


DISC = np.hypot(*(np.mgrid[:64, :64] - 31.5)) < 20
VOC = [
    c for n in range(256) for c in [128 * (n >> b & 1) + 64 * (n >> b + 3 & 1) for b in range(3)]
]


def labels(indices, colours=VOC):
    """Return a palette image, by default in Pascal VOC's colours for 0 to 63."""
    image = Image.frombytes("P", indices.shape[::-1], indices.astype(np.uint8).tobytes())
    image.putpalette([*colours[: 3 * 255], 224, 224, 192])
    return image


@pytest.mark.parametrize(
    "image",
    [
        labels(DISC * 1),
        labels(DISC * 2),
        labels(DISC * 8),
        labels(np.where(DISC, 15, np.roll(DISC, 2, 0) * 255)),
        Image.fromarray((DISC * 128).astype(np.uint8)),
        Image.fromarray((DISC * 1).astype(np.uint8)),
        Image.fromarray((DISC * 255).astype(np.uint16)),
        Image.fromarray(np.dstack([DISC * 128, DISC * 0, DISC * 0]).astype(np.uint8)),
        Image.fromarray(DISC),
    ],
    ids=["VOC 1", "VOC 2", "VOC 8", "VOC void", "0/128", "0/1", "16 bits", "dark red", "1 bit"],
)
def test_one_label_means_all_of_the_concept(tmp_path, image):
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), DISC)


@pytest.mark.parametrize("opacity", [60, 128, 200])
def test_one_opacity_below_the_whole_means_all_of_the_concept(tmp_path, opacity):
    Image.fromarray(as_alpha(DISC * opacity)).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), DISC)


@pytest.mark.parametrize("kind", ["palette", "grey", "colours", "alpha"])
def test_several_labels_are_one_mask_and_told(tmp_path, kind):
    halves = DISC * np.where(np.arange(64) < 32, 1, 2)
    grey = halves.astype(np.uint8)
    image = {
        "palette": labels(halves),
        "grey": Image.fromarray(grey),
        "colours": labels(halves).convert("RGB"),
        "alpha": Image.fromarray(as_alpha(100 * grey)),
    }[kind]
    image.save(tmp_path / "mask.png")
    with pytest.warns(LoraSceneWarning, match=r"mask\.png: a picture of 2 labels"):
        np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), DISC)


@pytest.mark.parametrize(("dark", "bright"), [(20, 255), (16, 235), (1, 2)])
def test_a_mask_without_black_has_its_darkest_value_outside(tmp_path, dark, bright):
    Image.fromarray(np.where(DISC, bright, dark).astype(np.uint8)).save(tmp_path / "mask.png")
    with pytest.warns(LoraSceneWarning, match=f"its darkest is {dark} of 255"):
        np.testing.assert_allclose(read_mask(tmp_path / "mask.png"), DISC, atol=1e-6)


@pytest.mark.parametrize("mode", ["P", "RGB"])
def test_labels_without_black_are_refused(tmp_path, mode):
    red_on_white = labels(DISC + 0, [255, 255, 255, 255, 0, 0])
    red_on_white.convert(mode).save(tmp_path / "mask.png")
    with pytest.raises(SceneError, match="labels without black"):
        read_mask(tmp_path / "mask.png")


def test_a_photo_in_a_masks_place_is_told(tmp_path):
    Image.fromarray(np.where(COLOUR < 40, 0, COLOUR)).save(tmp_path / "mask.png")
    with pytest.warns(LoraSceneWarning, match="many colours: is it a mask"):
        read_mask(tmp_path / "mask.png")


def test_a_palette_of_greys_keeps_soft_edges(tmp_path):
    ramp = np.tile(np.linspace(0, 254, 64).astype(np.uint8), (64, 1))
    labels(ramp, [n for n in range(256) for _ in range(3)]).save(tmp_path / "mask.png")
    np.testing.assert_allclose(read_mask(tmp_path / "mask.png"), ramp / 255, atol=1e-6)


def as_alpha(grey):
    """Return a picture of one colour that grey values cut out."""
    return np.dstack([np.full((*grey.shape, 3), 90), grey]).astype(np.uint8)


@pytest.mark.parametrize("form", [np.asarray, as_alpha], ids=["grey", "alpha"])
def test_a_grey_soft_mask_is_scaled_to_count_fully(tmp_path, form):
    soft = np.clip(20 - np.hypot(*(np.mgrid[:64, :64] - 31.5)), 0, 10) / 10
    Image.fromarray(form(np.rint(160 * soft).astype(np.uint8))).save(tmp_path / "mask.png")
    with pytest.warns(LoraSceneWarning, match="63 % of white at most"):
        found = read_mask(tmp_path / "mask.png")
    np.testing.assert_allclose(found, np.rint(160 * soft) / 160, atol=1e-6)


def test_labels_beside_white_are_told_as_they_count_for_nothing(tmp_path):
    rim = np.roll(DISC, 2, 0) & ~DISC
    dark = DISC * (1 + np.arange(64) % 20) + rim * 255
    Image.fromarray(dark.astype(np.uint8)).save(tmp_path / "mask.png")
    with pytest.warns(LoraSceneWarning, match="more of it is dark grey than white"):
        assert read_mask(tmp_path / "mask.png").max() == 1.0


@pytest.mark.parametrize("kind", ["grey", "alpha", "never white"])
@pytest.mark.parametrize("share", [0.01, 1.0])
def test_what_is_nearly_black_at_no_soft_edge_is_noise(tmp_path, kind, share):
    rng = np.random.default_rng(0)
    top = 160 if kind == "never white" else 255
    depth = 20 - np.hypot(*(np.mgrid[:64, :64] - 31.5))
    clean = np.rint(top * np.clip((depth + 6) / 6, 0, 1)).astype(np.uint8)
    noise = rng.integers(1, 4, clean.shape) * (rng.random(clean.shape) < share) * (depth < -14)
    grey = (clean + noise).astype(np.uint8)
    grey[:, 0] = 0  # or the darkest would be taken for black
    array = np.dstack([rng.integers(0, 256, (64, 64, 3)), grey]).astype(np.uint8)
    Image.fromarray(array if kind == "alpha" else grey).save(tmp_path / "mask.png")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*63 % of white at most")
        found = read_mask(tmp_path / "mask.png")
    np.testing.assert_allclose(found, clean / top, atol=1e-6)


@pytest.mark.parametrize("stray", [0, 254])
def test_one_stray_alpha_value_is_no_cut_out(tmp_path, stray):
    opaque = np.full((64, 64), 255)
    opaque[5, 7] = stray
    layers = np.dstack([DISC * 255, DISC * 255, DISC * 255, opaque]).astype(np.uint8)
    Image.fromarray(layers).save(tmp_path / "mask.png")
    with pytest.warns(LoraSceneWarning, match="transparency cuts nothing out"):
        np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), DISC)


def test_a_mask_that_is_drawn_otherwise_than_it_is_cut_out_is_told(tmp_path):
    white = DISC * 255
    for name, alpha in (("same", DISC), ("other", ~DISC)):
        layers = np.dstack([white, white, white, alpha * 255]).astype(np.uint8)
        Image.fromarray(layers).save(tmp_path / f"{name}.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "same.png"), DISC)
    with pytest.warns(LoraSceneWarning, match="tell different masks"):
        np.testing.assert_array_equal(read_mask(tmp_path / "other.png"), ~DISC)


def test_a_profile_does_not_change_a_mask(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "mask.png", icc_profile=grey_profile(lambda v: v))
    np.testing.assert_allclose(read_mask(tmp_path / "mask.png"), GREY / 255)


def test_greys_beside_white_that_fill_areas_are_labels_and_soft_edges_are_not(tmp_path):
    two = np.where(DISC, 255, 0).astype(np.uint8)
    two[2:12, 2:12] = 127
    Image.fromarray(two).save(tmp_path / "labels.png")
    with pytest.warns(LoraSceneWarning, match=r"labels \(127, 255\), read as one mask"):
        mask = read_mask(tmp_path / "labels.png")
    np.testing.assert_array_equal(mask, two > 0)
    distance = np.hypot(*(np.mgrid[:64, :64] - 31.5))
    edge = ((20.5 - distance).clip(0, 1) * 3).round().astype(np.uint8) * 85  # 0, 85, 170, 255
    Image.fromarray(edge).save(tmp_path / "edge.png")
    np.testing.assert_allclose(read_mask(tmp_path / "edge.png"), edge / 255, atol=1e-7)
