from dataclasses import replace

import numpy as np
import pytest

from lora_scene.errors import SceneError
from lora_scene.page.draft import Draft
from lora_scene.page.draft_files import read_draft, write_draft
from lora_scene.scenes.mask_prompts import Box

RADIUS = 6


class Discs:
    """Finds a disc around every mark inside, less the discs of those outside."""

    name = "discs"
    accepts = frozenset({"box", "point"})

    def segment(self, pixels, prompts):
        ys, xs = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
        masks = []
        for prompt in prompts:
            mask = np.zeros(pixels.shape[:2], dtype=np.float32)
            if prompt.box is not None:
                box = prompt.box
                mask[int(box.top) : int(box.bottom), int(box.left) : int(box.right)] = 1
            for point in prompt.points:
                mask[np.hypot(xs - point.x, ys - point.y) < RADIUS] = point.is_inside
            masks.append(mask)
        return np.stack(masks)


@pytest.fixture
def draft():
    return Draft((np.zeros((40, 60, 3), dtype=np.uint8),), ("photo.jpg",))


def test_a_click_makes_a_thing_and_a_click_on_it_chooses_it(draft):
    two = draft.pointed(15, 15, "new", Discs()).pointed(45, 15, "new", Discs())
    assert [thing.handle for thing in two.things] == ["<thing1>", "<thing2>"]
    assert two.thing == 1
    again = two.pointed(15, 15, "new", Discs())
    assert (again.thing, len(again.things)) == (0, 2)


def test_further_clicks_add_and_take_away(draft):
    one = draft.pointed(15, 15, "new", Discs())
    more = one.pointed(30, 15, "add", Discs())
    assert more.thing_at(30, 15) == 0
    assert more.pointed(30, 15, "take", Discs()).thing_at(30, 15) is None


def test_a_mark_in_one_thing_lies_outside_the_others(draft):
    two = draft.pointed(15, 15, "new", Discs()).pointed(22, 15, "new", Discs())
    masks = two.scene("a").photos[0].masks
    assert masks[0][15, 15] == 1
    assert masks.sum(axis=0).max() == 1


def test_a_brushed_mask_comes_back_pixel_for_pixel_whatever_it_overlaps(draft):
    two = draft.pointed(15, 15, "new", Discs()).pointed(45, 15, "new", Discs())
    painted = np.random.default_rng(0).random((40, 60)) > 0.5
    masks = two.touched(painted).scene("a").photos[0].masks
    np.testing.assert_array_equal(masks[1] >= 0.5, painted)
    assert not (masks[0][painted] >= 0.5).any()


def test_a_brushed_mask_of_another_size_is_refused(draft):
    one = draft.pointed(15, 15, "new", Discs())
    with pytest.raises(SceneError, match="not of the photo's size"):
        one.touched(np.zeros((41, 60), dtype=bool))


def test_what_a_brush_did_outlasts_further_clicks(draft):
    one = draft.pointed(15, 15, "new", Discs())
    painted = one.things[0].found[0].shown >= 0.5
    painted[39, 59] = True
    again = one.touched(painted).pointed(30, 15, "add", Discs())
    assert again.thing_at(59, 39) == 0
    assert again.thing_at(30, 15) == 0


def test_names_are_checked_and_nouns_are_guessed(draft):
    two = draft.pointed(15, 15, "new", Discs()).pointed(45, 15, "new", Discs())
    renamed = two.renamed(1, "red-cup", "")
    assert (renamed.things[1].handle, renamed.things[1].noun) == ("<red-cup>", "red cup")
    named = two.renamed(0, "thing1", "a red cup")
    assert (named.things[0].handle, named.things[0].noun) == ("<red-cup>", "a red cup")
    assert two.renamed(0, "thing1", "").things[0].handle == "<thing1>"
    for wrong in ("<img src=x onerror=alert(1)>", "../up", "thing1", ""):
        with pytest.raises(SceneError):
            two.renamed(1, wrong, "cup")
    for noun in ("a <thing1>", "c" * 201):
        with pytest.raises(SceneError, match="noun"):
            two.renamed(1, "cup", noun)


@pytest.mark.parametrize("chosen", [{"photo": None}, {"photo": 1}, {"thing": 0}, {"thing": "a"}])
def test_nothing_is_chosen_that_is_not_there(draft, chosen):
    with pytest.raises(SceneError, match="no such photo or thing"):
        replace(draft, **chosen)


def test_a_thing_is_deleted_and_the_rest_stays(draft):
    two = draft.pointed(15, 15, "new", Discs()).pointed(45, 15, "new", Discs())
    assert [thing.handle for thing in two.without(0).things] == ["<thing2>"]


def test_a_draft_comes_back_from_disk_with_masks_marks_and_brushes(draft, tmp_path):
    two = draft.boxed(Box(5, 5, 20, 20), "new", Discs()).pointed(45, 15, "new", Discs())
    painted = np.random.default_rng(1).random((40, 60)) > 0.5
    two = replace(two.touched(painted), has_background=True)
    write_draft(tmp_path, two)
    back = read_draft(tmp_path)
    np.testing.assert_array_equal(back.scene("a").photos[0].masks, two.scene("a").photos[0].masks)
    assert back.things[0].found[0].prompt == two.things[0].found[0].prompt
    assert back.scene("a").concepts == two.scene("a").concepts
