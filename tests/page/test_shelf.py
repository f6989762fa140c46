import os
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from lora_scene.creating.picture_files import save_image, save_picture
from lora_scene.errors import CreationError
from lora_scene.page.desk import Work
from lora_scene.page.shelf import SAVE, Shelf

GREY = np.full((8, 8, 3), 128, np.uint8)


@pytest.fixture
def shelf(tmp_path):
    """The shelf of two pictures and a grid, without the page around it."""
    shelf, work = Shelf.__new__(Shelf), Work(tmp_path / "mine")
    shelf._desk = SimpleNamespace(work=work, need=lambda: shelf._desk.work)
    for name in ("gallery", "save", "again", "picked"):
        setattr(shelf, name, gr.HTML(elem_id=name))
    draw(work, "a.png", 1)
    draw(work, "b.png", 2)
    save_image(work.pictures / "grid.png", Image.fromarray(GREY))
    return shelf


def draw(work, name, second):
    path = save_picture(work.pictures / name, GREY, {"verb": "edit", "name": name})
    os.utime(path, (second, second))


def picked(shelf, name, index=0):
    """Return what follows a click on a picture that the tab shows."""
    return shelf._pick(SimpleNamespace(index=index, value={"image": {"orig_name": name}}))


def test_a_click_picks_the_picture_that_is_seen_whatever_was_drawn_meanwhile(shelf):
    work = shelf._desk.work
    draw(work, "c.png", 2**31)  # in another tab, so that every number is the next one's
    told = picked(shelf, "b.png", index=1)
    assert told[shelf.save]["value"] == work.pictures / "b.png"
    assert shelf.need(told[shelf.picked]) == work.pictures / "b.png"


def test_nothing_is_picked_while_nothing_is_shown_large(shelf):
    told = shelf._put_back()
    assert told[shelf.gallery].constructor_args == {"selected_index": None}
    assert (told[shelf.save]["value"], told[shelf.save]["interactive"]) == (None, False)
    with pytest.raises(CreationError, match="no picture is chosen"):
        shelf.need(told[shelf.picked])


def test_a_picture_of_the_same_name_in_another_work_is_not_taken_for_it(shelf, tmp_path):
    before = picked(shelf, "a.png")[shelf.picked]
    shelf._desk.work = Work(tmp_path / "other")
    draw(shelf._desk.work, "a.png", 1)
    with pytest.raises(CreationError, match="no picture is chosen"):
        shelf.need(before)
    assert picked(shelf, "b.png")[shelf.picked] is None


def test_a_record_is_offered_of_pictures_alone(shelf):
    assert picked(shelf, "a.png")[shelf.save]["label"] == SAVE
    assert picked(shelf, "grid.png")[shelf.save]["label"] == "Save"
