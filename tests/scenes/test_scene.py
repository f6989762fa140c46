from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image

from lora_scene.errors import LoraSceneWarning, SceneError
from lora_scene.scenes.scene import Concept, load_scene
from tests.scenes.factory import (
    BEAR,
    BOWL,
    TOML,
    photo,
    rectangle,
    to_image,
    write_reference_folder,
    write_toml_folder,
)

ROOM = '[[concepts]]\nhandle = "<room>"\nbackground = true\n'


def test_a_scene_is_read_with_its_pixels_masks_and_names(tmp_path):
    scene = load_scene(write_toml_folder(tmp_path))
    expected = photo()
    assert scene.concepts == (Concept("<bear>", "teddy bear"), Concept("<bowl>", "bowl"))
    assert (scene.handles, scene.nouns) == (("<bear>", "<bowl>"), ("teddy bear", "bowl"))
    np.testing.assert_array_equal(scene.photos[0].pixels, expected.pixels)
    np.testing.assert_array_equal(scene.photos[0].masks, expected.masks)
    assert scene.photos[0].masks.dtype == np.float32
    assert scene.photos[0].present == (0, 1)


def test_a_reference_folder_loads_with_chosen_handles(tmp_path):
    scene = load_scene(write_reference_folder(tmp_path), handles=["<a1>", "<b>"], nouns=["x", "y"])
    assert scene.concepts == (Concept("<a1>", "x"), Concept("<b>", "y"))


def test_what_a_reference_folder_leaves_out_is_told(tmp_path):
    write_reference_folder(tmp_path)
    for name in ("mask_2.png", "scene.toml.txt", "notes.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.warns(
        LoraSceneWarning, match=r"mask_2.png, scene.toml.txt left out: only one img.jpg, mask0"
    ):
        load_scene(tmp_path)


def test_the_background_is_the_complement_of_all_others(tmp_path):
    scene = load_scene(write_toml_folder(tmp_path, TOML + ROOM))
    masks = scene.photos[0].masks
    np.testing.assert_allclose(masks[2], 1.0 - np.maximum(masks[0], masks[1]))
    assert scene.things == (0, 1)
    assert scene.concepts[2] == Concept("<room>", "room", is_background=True)


def test_the_background_may_come_first(tmp_path):
    first = TOML.replace("[[concepts]]", ROOM + "[[concepts]]", 1)
    masks = load_scene(write_toml_folder(tmp_path, first)).photos[0].masks
    np.testing.assert_allclose(masks[0], 1.0 - np.maximum(masks[1], masks[2]))


def test_a_concept_may_be_absent_from_one_of_two_photos(tmp_path):
    text = TOML.replace('["img.png"]', '["img.png", "two.png"]')
    text = text.replace('["mask0.png"]', '["mask0.png", ""]')
    text = text.replace('["mask1.png"]', '["mask1.png", "mask1_two.png"]')
    write_toml_folder(tmp_path, text)
    Image.fromarray(photo(50, 60).pixels).save(tmp_path / "two.png")
    to_image(rectangle((50, 60), BOWL)).save(tmp_path / "mask1_two.png")
    scene = load_scene(tmp_path)
    assert [p.present for p in scene.photos] == [(0, 1), (1,)]
    assert scene.photos[1].masks.shape == (2, 50, 60)


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path):
    write_toml_folder(tmp_path)
    to_image(rectangle((40, 32), BEAR)).save(tmp_path / "mask0.png")
    with pytest.raises(
        SceneError, match=r"mask0\.png: the mask's size(.|\n)*40 x 32(.|\n)*32 x 40"
    ):
        load_scene(tmp_path)


@pytest.mark.parametrize(("n_white", "message"), [(0, "is empty"), (1, "nearly empty")])
def test_an_empty_or_nearly_empty_mask_is_refused(tmp_path, n_white, message):
    write_toml_folder(tmp_path)
    mask = np.zeros((32, 40), dtype=np.float32)
    mask[0, :n_white] = 1.0  # one of 1280 pixels is 0.08 %
    to_image(mask).save(tmp_path / "mask0.png")
    with pytest.raises(SceneError, match=message):
        load_scene(tmp_path)


def test_a_mask_of_two_pixels_in_1280_is_enough(tmp_path):
    write_toml_folder(tmp_path)
    mask = np.zeros((32, 40), dtype=np.float32)
    mask[0, :2] = 1.0  # 0.16 %
    to_image(mask).save(tmp_path / "mask0.png")
    assert load_scene(tmp_path).photos[0].present == (0, 1)


def test_a_mask_that_is_hardly_there_is_refused(tmp_path):
    write_toml_folder(tmp_path)
    to_image(np.linspace(0, 0.2, 32 * 40).reshape(32, 40)).save(tmp_path / "mask0.png")
    with pytest.raises(SceneError, match=r"too dark(.|\n)*51 of 255(.|\n)*full brightness"):
        load_scene(tmp_path)


def test_masks_that_cover_each_other_are_refused(tmp_path):
    write_toml_folder(tmp_path)
    to_image(photo().masks[0]).save(tmp_path / "mask1.png")
    with pytest.raises(SceneError, match=r"mask0\.png and mask1\.png: two masks cover each other"):
        load_scene(tmp_path)


def test_a_part_within_a_whole_is_allowed(tmp_path):
    write_toml_folder(tmp_path)
    shirt = rectangle((32, 40), (slice(8, 12), slice(6, 18)))
    to_image(shirt).save(tmp_path / "mask1.png")
    assert load_scene(tmp_path).photos[0].present == (0, 1)


def test_a_background_that_nothing_is_left_of_is_refused(tmp_path):
    write_toml_folder(tmp_path, TOML + ROOM)
    to_image(np.ones((32, 40), dtype=np.float32)).save(tmp_path / "mask0.png")
    with pytest.raises(SceneError, match=r"<room>: the mask is empty"):
        load_scene(tmp_path)


def test_everything_wrong_in_a_folder_is_told_at_once(tmp_path):
    unmasked = '[[concepts]]\nhandle = "cup"\nmasks = []\n'
    write_toml_folder(tmp_path, f'img = ""\n{TOML}{unmasked}')
    (tmp_path / "img.png").write_bytes(b"no image")
    (tmp_path / "mask0.png").unlink()
    to_image(np.zeros((32, 40), dtype=np.float32)).save(tmp_path / "mask1.png")
    with pytest.raises(SceneError, match="6 problems") as caught:
        load_scene(tmp_path)
    told = ("img: unknown", "one mask per image", "illegal handle")
    for part in (*told, "not a readable image", "no such file", "is empty"):
        assert part in str(caught.value)


@pytest.mark.parametrize(("columns", "is_twin"), [(39, True), (37, False)])
def test_masks_that_nearly_cover_each_other_are_one_region(tmp_path, columns, is_twin):
    example = photo(32, 80, (slice(0, 32), slice(0, 40)), (slice(0, 32), slice(0, columns)))
    write_toml_folder(tmp_path, example=example)  # IoU 39 / 40 and 37 / 40; the limit is 0.95
    told = (
        pytest.raises(SceneError, match="two masks cover each other") if is_twin else nullcontext()
    )
    with told:
        load_scene(tmp_path)
