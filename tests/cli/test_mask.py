from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from benchmarks.drawn_scenes import draw_scene
from benchmarks.masks import derive_prompts, iou
from lora_scene.cli.main import root
from lora_scene.creating.picture_files import save_picture
from lora_scene.errors import FileError, SceneError, SegmenterError
from lora_scene.scenes.scene import load_scene
from lora_scene.scenes.segmenters import catalog
from lora_scene.scenes.segmenters.regions import Segment
from tests.test_full_disk import disk_of


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(draw_scene(0).pixels).save("photo.png")
    runner = CliRunner()
    return lambda *args: runner.invoke(root, ["mask", *args], catch_exceptions=False)


def boxes(n_things: int = 1) -> list[str]:
    options = []
    prompts = derive_prompts(draw_scene(0), slack=0.05, n_points=0)
    for k, prompt in enumerate(prompts[:n_things]):
        box = prompt.box
        options += ["--box", f"thing-{k}={box.left},{box.top},{box.right},{box.bottom}"]
    return options


def test_a_photo_and_boxes_become_a_scene(run, tmp_path):
    result = run("photo.png", *boxes(3), "--noun", "thing-1=pink pebble", "--out", "mine")
    assert result.exit_code == 0
    for part in ("<thing-0>", "pink pebble", "scene.toml", "lora-scene check mine"):
        assert part in result.stdout
    scene = load_scene(tmp_path / "mine")
    assert scene.nouns == ("thing", "pink pebble", "thing")
    for found, true in zip(scene.photos[0].masks, draw_scene(0).masks, strict=True):
        assert iou(found, true) > 0.9


def test_a_list_replaces_no_picture_that_was_drawn(run, tmp_path):
    save_picture(tmp_path / "x.png", np.zeros((8, 8, 3), np.uint8), {"verb": "generate"})
    with pytest.raises(FileError, match="another verb"):
        run("photo.png", "--list", "--segmenter", "maskformer", "--out", "x.png")


def test_the_background_can_be_a_concept(run, tmp_path):
    run("photo.png", *boxes(), "--background", "cloth=brown cloth", "--out", "mine")
    scene = load_scene(tmp_path / "mine")
    assert scene.concepts[1].handle == "<cloth>"
    assert scene.concepts[1].is_background
    assert scene.nouns[1] == "brown cloth"


def test_places_are_counted_on_the_upright_photo(run, tmp_path):
    stored = Image.fromarray(np.rot90(draw_scene(0).pixels).copy())
    exif = stored.getexif()
    exif[0x0112] = 6
    stored.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    run("turned.jpg", *boxes(), "--out", "mine")
    (found,) = load_scene(tmp_path / "mine").photos[0].masks
    assert iou(found, draw_scene(0).masks[0]) > 0.9


def test_scripts_get_json(run):
    answer = json.loads(run("photo.png", *boxes(), "--out", "mine", "--json").stdout)
    assert [row["handle"] for row in answer["concepts"]] == ["<thing-0>"]
    assert "mine/scene.toml" in [file.replace("\\", "/") for file in answer["files"]]


def test_an_existing_scene_is_not_overwritten_unasked(run):
    run("photo.png", *boxes(), "--out", "mine")
    with pytest.raises(SceneError, match="--replace"):
        run("photo.png", *boxes(), "--out", "mine")
    assert run("photo.png", *boxes(), "--out", "mine", "--replace").exit_code == 0


def test_out_is_needed_for_a_scene(run):
    result = run("photo.png", *boxes())
    assert result.exit_code == 2
    assert "--out FOLDER is needed" in result.stderr


def test_a_device_that_nothing_would_run_on_is_idle(run):
    result = run("photo.png", *boxes(), "--device", "cuda", "--out", "mine")
    assert result.exit_code == 2
    assert "leave out --device" in result.stderr


def test_a_hint_at_pixels_is_given_for_places_alone(run):
    for words, is_place in ((["--noun", "bear="], False), (["--point", "bear="], True)):
        with pytest.raises(SegmenterError) as told:
            run("photo.png", *boxes(), *words, "--out", "mine")
        assert ("places are in pixels" in str(told.value)) == is_place


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photo.png"], "no concept is asked for"),
        (["photo.png", "--words", "bear"], "--segmenter clipseg"),
        (["photo.png", "--box", "bear=0,0,999,9"], "leaves the photo"),
        (["photo.png", "--box", "bear=9,9,1,1"], "inverted"),
        (["photo.png", "--box", "bear=0,0,99,99", "--noun", "beer=x"], "did you mean <bear>"),
        (["photo.png", "--box", "bear=0,0,99,99", "--background", "="], "an illegal name"),
        (["photo.png", "--words", "", "--segmenter", "clipseg"], "an empty --words"),
        (["photo.png", "--segmenter", "grabcat", "--box", "bear=0,0,9,9"], "did you mean grabcut"),
    ],
)
def test_wrong_input_is_answered_with_what_to_do(run, tmp_path, arguments, message):
    with pytest.raises(SegmenterError, match=message):
        run(*arguments, "--out", "mine")
    assert not (tmp_path / "mine").exists()


def test_what_is_not_an_image_is_refused(run, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SceneError, match="not a readable image"):
        run("notes.txt", *boxes(), "--out", "mine")


class Lister:
    name = "lister"
    accepts = frozenset({"pick"})

    def segment(self, pixels, prompts):
        return np.stack([self.propose(pixels)[prompt.pick - 1].mask for prompt in prompts])

    def propose(self, pixels):
        left = np.zeros(pixels.shape[:2], np.float32)
        left[:, :100] = 1.0
        return (Segment("bear", 0.9, left), Segment("wall", 0.7, 1 - left))


def test_regions_are_listed_then_picked(run, tmp_path, monkeypatch):
    monkeypatch.setattr(catalog.Entry, "open", lambda self, **options: Lister())
    result = run("photo.png", "--list", "--segmenter", "maskformer")
    assert "photo_regions.png" in result.stdout
    with Image.open(tmp_path / "photo_regions.png") as picture:
        assert picture.size == (768, 768)
    answer = json.loads(run("photo.png", "--list", "--segmenter", "maskformer", "--json").stdout)
    assert answer["regions"][1] == {"number": 2, "name": "wall", "score": 0.7}
    with disk_of(300):
        words = ["mask", "photo.png", "--list", "--segmenter", "maskformer", "--out", "new.png"]
        done = CliRunner().invoke(root, words)
    assert "wall" in done.stdout, "what was found, though its picture cannot be written"
    assert isinstance(done.exception, FileError)
    run("photo.png", "--pick", "bear=1", "--segmenter", "maskformer", "--out", "mine")
    mask = load_scene(tmp_path / "mine").photos[0].masks[0]
    assert mask[:, :100].min() == 1.0
    assert mask[:, 100:].max() == 0.0


def test_more_things_than_a_scene_holds_are_refused_before_any_is_looked_for(run):
    boxes = [word for n in range(257) for word in ("--box", f"t{n}=8,8,40,40")]
    with pytest.raises(SceneError, match="too many concepts"):
        run("photo.png", *boxes, "--out", "mine")


def test_listing_needs_a_segmenter_that_can(run):
    with pytest.raises(SegmenterError, match="grabcut cannot list"):
        run("photo.png", "--list")
