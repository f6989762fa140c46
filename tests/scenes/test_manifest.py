from __future__ import annotations

import pytest
from PIL import Image

from lora_scene.errors import LoraSceneError, SceneError
from lora_scene.scenes.handles import Concept
from lora_scene.scenes.manifest import (
    Manifest,
    manifest_text,
    read_manifest,
)
from lora_scene.scenes.scene import load_scene
from tests.scenes.factory import TOML, photo, to_image, write_reference_folder, write_toml_folder


def test_the_reference_layout_gets_numbered_handles(tmp_path):
    manifest = read_manifest(write_reference_folder(tmp_path))
    assert manifest.images == ("img.png",)
    assert [c.handle for c in manifest.concepts] == ["<v0>", "<v1>"]
    assert manifest.masks == (("mask0.png",), ("mask1.png",))
    assert not manifest.is_named


def test_masks_of_the_reference_layout_are_in_numeric_order(tmp_path):
    write_reference_folder(tmp_path)
    for n in range(2, 11):
        (tmp_path / f"mask{n}.png").write_bytes(b"")
    manifest = read_manifest(tmp_path)
    assert [names for (names,) in manifest.masks] == [f"mask{n}.png" for n in range(11)]


def test_handles_and_nouns_can_be_given_to_the_reference_layout(tmp_path):
    folder = write_reference_folder(tmp_path)
    manifest = read_manifest(folder, handles=["<bear>", "<tea-bowl>"])
    assert [(c.handle, c.noun) for c in manifest.concepts] == [
        ("<bear>", "bear"),
        ("<tea-bowl>", "tea bowl"),
    ]
    assert manifest.is_named
    with pytest.raises(SceneError, match=r"2 of each(.|\n)*1 handles, 1 nouns"):
        read_manifest(folder, handles=["<bear>"])


def test_a_toml_scene_is_read_by_folder_and_by_file(tmp_path):
    folder = write_toml_folder(tmp_path)
    manifest = read_manifest(folder)
    assert manifest == read_manifest(folder / "scene.toml")
    assert manifest.concepts == (Concept("<bear>", "teddy bear"), Concept("<bowl>", "bowl"))
    assert manifest.masks == (("mask0.png",), ("mask1.png",))


def test_handles_cannot_be_given_beside_a_toml(tmp_path):
    with pytest.raises(SceneError, match="given twice"):
        read_manifest(write_toml_folder(tmp_path), handles=["<a>", "<b>"])


@pytest.mark.parametrize("handle", ["bear", "<bear", "<>", "<a b>", "<bär>", "<|end|>", "< a>"])
def test_an_illegal_handle_is_refused(tmp_path, handle):
    with pytest.raises(SceneError, match="an illegal handle"):
        read_manifest(write_toml_folder(tmp_path, TOML.replace("<bowl>", handle)))


def test_handles_that_differ_in_case_alone_are_refused(tmp_path):
    with pytest.raises(SceneError, match=r"used twice(.|\n)*<Bear>"):
        read_manifest(write_toml_folder(tmp_path, TOML.replace("<bowl>", "<Bear>")))


def test_what_is_written_is_read_back(tmp_path):
    images = ('a "quoted".png', "ö\\b.png")
    concepts = (Concept("<a>", 'a "b" \\ c'), Concept("<room>", "room", is_background=True))
    manifest = Manifest(tmp_path, images, concepts, (("x.png", ""), ()))
    (tmp_path / "scene.toml").write_text(manifest_text(manifest), encoding="utf-8")
    assert read_manifest(tmp_path) == manifest


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("images", "imgs", r"imgs: unknown key(.|\n)*did you mean images"),
        ("noun", "nuon", r"concepts #1.nuon: unknown key(.|\n)*did you mean noun"),
        ('["img.png"]', '"img.png"', r"images: wrong value\s+expected: a list of texts"),
        ('"<bear>"', "3", r"concepts #1.handle: wrong value\s+expected: a text"),
        ('["mask0.png"]', '["mask0.png", "b.png"]', r"not one mask per image"),
        ('["mask0.png"]', '[""]', r"in no image"),
        ('masks = ["mask0.png"]', "", r"concepts #1.masks: not one mask per image"),
        (
            'noun = "teddy bear"',
            'background = "yes"',
            r"background: wrong value\s+expected: true or false",
        ),
        ('noun = "teddy bear"', "background = true", r"a background takes no masks"),
        ('images = ["img.png"]', "images = [", r"not valid TOML"),
    ],
)
def test_a_mistake_in_the_toml_is_named(tmp_path, old, new, message):
    assert old in TOML
    with pytest.raises(SceneError, match=message):
        read_manifest(write_toml_folder(tmp_path, TOML.replace(old, new, 1)))


def test_brackets_that_are_wrong_are_told_with_the_right_ones(tmp_path):
    alone = TOML[: TOML.rindex("[[")].replace("[[concepts]]", "[concepts]")
    with pytest.raises(SceneError, match=r"concepts: wrong value(.|\n)*write \[\[concepts\]\],"):
        read_manifest(write_toml_folder(tmp_path / "alone", alone))
    for heading in ("[scene]", "[[scene]]"):
        inside = heading + TOML.replace("[[concepts]]", "[[scene.concepts]]")
        with pytest.raises(SceneError, match=r"scene: unknown key(.|\n)*images, concepts: outside"):
            read_manifest(write_toml_folder(tmp_path / f"in{len(heading)}", inside))


def test_all_mistakes_are_told_at_once(tmp_path):
    text = TOML.replace("<bear>", "bear").replace("noun", "nuon").replace('"mask1.png"', "")
    with pytest.raises(SceneError, match="3 problems") as caught:
        read_manifest(write_toml_folder(tmp_path, text))
    for part in ("illegal handle", "nuon", "concepts #2.masks"):
        assert part in str(caught.value)


@pytest.mark.parametrize("tables", ["", "concepts = []", "concepts = 3"])
def test_a_toml_without_concepts_is_refused(tmp_path, tables):
    with pytest.raises(SceneError, match=r"concepts: (missing|wrong value)"):
        read_manifest(write_toml_folder(tmp_path, f'images = ["img.png"]\n{tables}'))


@pytest.mark.parametrize("n_others", [0, 1])
def test_a_background_alone_or_a_second_one_is_refused(tmp_path, n_others):
    background = '[[concepts]]\nhandle = "<r{}>"\nbackground = true\n'
    text = 'images = ["img.png"]\n' + "".join(background.format(n) for n in range(1 + n_others))
    with pytest.raises(SceneError, match="a background needs other concepts"):
        read_manifest(write_toml_folder(tmp_path, text))


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(SceneError, match="no such scene"):
        read_manifest(tmp_path / "nowhere")


def test_who_has_a_photo_and_no_masks_is_told_what_makes_them(tmp_path):
    (tmp_path / "img.jpg").write_bytes(b"")
    for path, match in ((tmp_path / "img.jpg", "no such scene"), (tmp_path, "no mask\n")):
        with pytest.raises(SceneError, match=match) as caught:
            read_manifest(path)
        assert "lora-scene mask PHOTO" in str(caught.value)
    (tmp_path / "img.png").write_bytes(b"")
    (tmp_path / "mask0.png").write_bytes(b"")
    with pytest.raises(SceneError, match=r"keep one, or list them in a scene\.toml"):
        read_manifest(tmp_path)


def test_a_gap_in_the_masks_and_a_missing_photo_are_told_together(tmp_path):
    (tmp_path / "mask0.png").write_bytes(b"")
    (tmp_path / "mask2.png").write_bytes(b"")
    with pytest.raises(SceneError, match="2 problems") as caught:
        read_manifest(tmp_path)
    assert "which file is the photo" in str(caught.value)
    assert "mask0.png, mask2.png" in str(caught.value)


@pytest.mark.parametrize("suffix", [".JPG", ".TIFF", ".heic", ".bmp", ".avif", ".jfif"])
def test_the_reference_layout_takes_any_photo_and_any_case(tmp_path, suffix):
    for name in (f"IMG{suffix}", "Mask0.PNG", "MASK1.tif"):
        (tmp_path / name).write_bytes(b"")
    manifest = read_manifest(tmp_path)
    assert manifest.images == (f"IMG{suffix}",)
    assert manifest.masks == (("Mask0.PNG",), ("MASK1.tif",))


def test_what_is_there_is_named_where_nothing_is_a_photo(tmp_path):
    for name in ("holiday.jpg", "img.raw"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(
        SceneError, match=r"\.tif(.|\n)*no img; the folder holds holiday\.jpg, img\.raw"
    ):
        read_manifest(tmp_path)


@pytest.mark.parametrize("suffix", [".jfif", ".tga", ".ppm", ".pgm", ".jp2"])
def test_every_format_that_can_be_decoded_is_found_and_read(tmp_path, suffix):
    example = photo()
    kind = "JPEG" if suffix == ".jfif" else None
    Image.fromarray(example.pixels).save(tmp_path / f"img{suffix}", kind)
    for k, mask in enumerate(example.masks):
        to_image(mask).save(tmp_path / f"mask{k}.png")
    to_image(example.masks[1]).save(tmp_path / f"mask1{suffix}", kind)
    (tmp_path / "mask1.png").unlink()
    assert read_manifest(tmp_path).masks == (("mask0.png",), (f"mask1{suffix}",))
    assert load_scene(tmp_path).photos[0].size == (40, 32)


def test_what_is_called_like_a_photo_or_mask_and_is_not_read_is_told(tmp_path):
    write_reference_folder(tmp_path)
    unread = ("IMG_2.HEIC", "Mask3.xcf", "img2.jpg", "mask2", "mask_2.png", "scene.toml.txt")
    for name in (*unread, "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "masks").mkdir()
    assert read_manifest(tmp_path).left_out == unread


def test_a_photo_that_is_listed_twice_is_refused(tmp_path):
    text = TOML.replace('["img.png"]', '["img.png", "./img.png"]')
    with pytest.raises(SceneError, match=r"a photo is listed twice(.|\n)*img\.png, \./img\.png"):
        read_manifest(write_toml_folder(tmp_path, text))


def test_two_masks_of_one_number_are_refused(tmp_path):
    for name in ("img.png", "mask0.png", "mask0.jpg", "mask00.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(SceneError, match=r"two masks have one number(.|\n)*mask0\.jpg, mask0\.png"):
        read_manifest(tmp_path)


def test_a_toml_is_found_in_any_case_and_with_a_byte_order_mark(tmp_path):
    write_reference_folder(tmp_path)
    (tmp_path / "Scene.TOML").write_bytes(b"\xef\xbb\xbf" + TOML.encode())
    assert read_manifest(tmp_path).concepts[0].noun == "teddy bear"
    assert read_manifest(tmp_path / "Scene.TOML") == read_manifest(tmp_path)


def test_of_two_tomls_the_named_one_is_read_and_none_is_chosen_unasked(tmp_path):
    folder = write_toml_folder(tmp_path)
    (folder / "Scene.toml").write_text(TOML.replace("teddy bear", "panda"), "utf-8")
    if len(list(folder.glob("*.toml"))) == 1:
        pytest.skip("capitals make no other name here")
    for name, noun in (("scene.toml", "teddy bear"), ("Scene.toml", "panda")):
        manifest = read_manifest(folder / name)
        assert (manifest.concepts[0].noun, manifest.files[-1]) == (noun, folder / name)
    with pytest.raises(SceneError, match=r"two descriptions(.|\n)*Scene\.toml, scene\.toml"):
        read_manifest(folder)


@pytest.mark.parametrize("is_right", [True, False])
def test_thousands_of_concepts_are_refused_soon_and_briefly(tmp_path, is_right):
    table = (
        '[[concepts]]\nhandle = "<a{}>"\nmasks = ["a.png"]\n' + "" if is_right else "[[concepts]]\n"
    )
    text = 'images = ["img.png"]\n' + "".join(table.format(n) for n in range(2_000))
    (tmp_path / "scene.toml").write_text(text)
    with pytest.raises(SceneError) as caught:
        read_manifest(tmp_path)
    assert len(str(caught.value)) < 5000


def test_thousands_of_masks_are_refused_soon(tmp_path):
    (tmp_path / "img.png").touch()
    for n in range(2_000):
        (tmp_path / f"mask{n}.png").touch()
    with pytest.raises(SceneError, match=r"too many concepts(.|\n)*at most 256"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("place", ["a" * 300, "no\0name"])
def test_a_place_that_cannot_be_is_an_error_of_ours(tmp_path, place):
    with pytest.raises(LoraSceneError):
        read_manifest(tmp_path / place)
