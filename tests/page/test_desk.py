import json
from importlib import resources

import numpy as np
import pytest
from PIL import Image

from lora_scene.errors import SceneError
from lora_scene.page.desk import Desk
from lora_scene.scenes.scene import load_scene


@pytest.fixture
def photo(tmp_path):
    """A photo that says where it was taken."""
    exif = Image.Exif()
    exif[0x010E] = "HOME"
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8825)[2] = (48.0, 51.0, 29.0)
    path = tmp_path / "My photo <b>.jpg"
    Image.fromarray(np.full((40, 60, 3), 90, dtype=np.uint8)).save(path, exif=exif)
    with Image.open(path) as taken:
        assert taken.getexif().get_ifd(0x8825)
    return path


def test_nothing_that_is_kept_says_where_a_photo_was_taken(photo, tmp_path):
    desk = Desk(tmp_path / "out")
    desk.begin([photo])
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    for path in files:
        assert b"HOME" not in path.read_bytes()
        if path.suffix == ".png":
            with Image.open(path) as kept:
                assert not kept.getexif()
    assert any(path.suffix == ".png" for path in files)


def test_a_works_folder_is_called_by_plain_letters_below_the_pages_own(photo, tmp_path):
    desk = Desk(tmp_path / "out")
    desk.begin([photo], name="../../Ünder <script>")
    desk.begin([photo])
    desk.begin([photo])
    desk.begin([photo], name="CON")  # a device of Windows
    assert sorted(desk.names()) == ["con-2", "my-photo-b", "my-photo-b-2", "nder-script"]


@pytest.mark.parametrize("name", ["../my-photo-b", "/etc", "", "my-photo-b/draft"])
def test_no_work_outside_the_folder_can_be_opened(photo, tmp_path, name):
    desk = Desk(tmp_path / "out")
    desk.begin([photo])
    with pytest.raises(SceneError, match="no such work"):
        desk.open(name)


def test_a_photo_that_is_no_image_is_refused_by_its_name_and_nothing_is_lost(photo, tmp_path):
    desk = Desk(tmp_path / "out")
    desk.begin([photo])
    before = desk.work
    wrong = tmp_path / "notes.txt"
    wrong.write_text("no image")
    with pytest.raises(SceneError, match=r"^notes\.txt: not a readable image"):
        desk.begin([wrong])
    assert desk.work == before


def test_the_demo_scene_is_taken_up_again_after_a_restart_and_written_as_it_is(tmp_path):
    demo = resources.files("lora_scene.scenes") / "demo"
    desk = Desk(tmp_path / "out")
    desk.begin_scene(demo, "demo")
    again = Desk(tmp_path / "out")
    again.write_scene()
    written, shipped = load_scene(again.work.scene), load_scene(demo)
    assert written.handles == shipped.handles
    assert (written.photos[0].pixels == shipped.photos[0].pixels).all()
    assert ((written.photos[0].masks >= 0.5) == (shipped.photos[0].masks >= 0.5)).all()


def test_a_work_whose_files_are_damaged_stops_no_page(tmp_path):
    demo = resources.files("lora_scene.scenes") / "demo"
    desk = Desk(tmp_path / "out")
    for name in ("good", "bad"):
        desk.begin_scene(demo, name)
    mask = next((desk.need().folder / "draft").glob("mask-*.png"))
    mask.write_bytes(mask.read_bytes()[:100])
    again = Desk(tmp_path / "out")
    assert again.work.name == "good"
    assert set(again.names()) == {"good", "bad"}
    with pytest.raises(SceneError, match=rf"{mask.name}: not a readable image"):
        again.open("bad")
    assert again.work.name == "good"


def test_a_step_back_brings_a_deleted_thing_back(tmp_path):
    desk = Desk(tmp_path / "out")
    desk.begin_scene(resources.files("lora_scene.scenes") / "demo", "demo")
    n_things = len(desk.draft.things)
    desk.change(desk.draft.without(0))
    assert len(desk.draft.things) == n_things - 1
    desk.undo()
    assert len(desk.draft.things) == n_things
    record = json.loads((desk.work.folder / "draft" / "draft.json").read_text())
    assert len(record["things"]) == n_things


def test_a_new_work_from_an_earlier_one_leaves_that_as_it_is(tmp_path):
    desk = Desk(tmp_path / "out")
    desk.begin_scene(resources.files("lora_scene.scenes") / "demo", "demo")
    desk.branch()
    desk.change(desk.draft.without(0))
    assert desk.need().name == "demo-2"
    again = Desk(tmp_path / "out")
    kept = {name: (again.open(name), len(again.draft.things))[1] for name in ("demo", "demo-2")}
    assert kept == {"demo": 3, "demo-2": 2}
    again.open("demo")
    assert Desk(tmp_path / "out").need().name == "demo"


def test_a_work_that_is_moved_away_while_it_is_open_is_written_whole_where_it_was(tmp_path):
    desk = Desk(tmp_path / "out")
    desk.begin_scene(resources.files("lora_scene.scenes") / "demo", "demo")
    for handle in ("<fir>", "<oak>"):
        desk.change(desk.draft.renamed(0, handle, "tree"))
    painted = np.zeros(desk.draft.photos[0].shape[:2], dtype=bool)
    desk.change(desk.draft.touched(painted))
    desk.need().folder.rename(tmp_path / "moved")
    desk.change(desk.draft.without(2))
    desk.undo()
    desk.undo()  # what was painted out is there again
    shown = [thing.found[0].shown for thing in desk.draft.things]
    again = Desk(tmp_path / "out")
    assert again.need().name == "demo"
    for thing, before in zip(again.draft.things, shown, strict=True):
        np.testing.assert_array_equal(thing.found[0].shown, before)


def test_what_another_program_left_beside_the_masks_stops_no_click(tmp_path):
    desk = Desk(tmp_path / "out")
    desk.begin_scene(resources.files("lora_scene.scenes") / "demo", "demo")
    (desk.need().folder / "draft" / "mask-1 (copy).png").write_bytes(b"")
    desk.change(desk.draft.touched(np.ones(desk.draft.photos[0].shape[:2], dtype=bool)))
    assert Desk(tmp_path / "out").draft.things[0].found[0].shown.all()
