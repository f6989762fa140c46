from dataclasses import replace

import numpy as np
import pytest

from lora_scene.errors import SceneError
from lora_scene.page.draft import Draft, draft_of
from lora_scene.page.draft_files import read_draft, write_draft
from lora_scene.scenes.mask_prompts import Box
from lora_scene.scenes.scene import Concept, Photo, Scene

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


@pytest.fixture
def given():
    """A draft of a scene with a mask that no segmenter made, and the mask."""
    mask = np.zeros((1, 40, 60), dtype=np.float32)
    mask[0, 5:25, 5:25] = 1
    photo = Photo(np.zeros((40, 60, 3), dtype=np.uint8), mask, "photo.jpg")
    return draft_of(Scene((Concept("<cup>", "cup"),), (photo,), "scene")), mask[0] >= 0.5


def disc(x, y):
    ys, xs = np.mgrid[:40, :60]
    return np.hypot(xs - x, ys - y) < RADIUS


def shown(draft):
    return draft.view().masks[0] >= 0.5


def test_marks_on_a_given_mask_add_to_it_and_take_from_it(given):
    draft, mask = given
    more = draft.pointed(40, 15, "add", Discs())
    np.testing.assert_array_equal(shown(more), mask | disc(40, 15))
    less = more.pointed(10, 10, "take", Discs())
    np.testing.assert_array_equal(shown(less), (mask | disc(40, 15)) & ~disc(10, 10))
    boxed = less.boxed(Box(30, 30, 50, 38), "add", Discs()).boxed(
        Box(5, 5, 25, 25), "take", Discs()
    )
    box = np.zeros_like(mask)
    box[30:38, 30:50] = True
    np.testing.assert_array_equal(shown(boxed), (disc(40, 15) | box) & ~mask)


def test_a_stroke_on_a_given_mask_outlasts_marks(given):
    draft, mask = given
    painted = mask.copy()
    painted[15, 40], painted[10, 10] = False, False  # outside already; painted out
    painted[39, 59] = True
    touched = draft.touched(painted).pointed(12, 12, "add", Discs())
    touched = touched.pointed(59, 39, "take", Discs())
    np.testing.assert_array_equal(shown(touched), painted)


def test_a_given_mask_comes_back_from_disk_also_as_it_was_kept_before(given, tmp_path):
    draft, mask = given
    whole = np.where(mask, 1, -1).astype(np.int8)
    old = draft.pointed(40, 15, "add", Discs())  # in vain: every pixel counted as brushed
    found = replace(draft.pointed(15, 15, "new", Discs()).things[0].found[0], touches=whole)
    found = replace(found, prompt=replace(found.prompt, words="in vain"), mask=old.view().masks[0])
    old = replace(draft, things=(replace(draft.things[0], found={0: found}),))
    for n, one in enumerate((draft, old)):
        write_draft(tmp_path / str(n), one)
        back = read_draft(tmp_path / str(n))
        np.testing.assert_array_equal(shown(back), mask)
        more = back.pointed(40, 15, "add", Discs())
        np.testing.assert_array_equal(shown(more), mask | disc(40, 15))
        write_draft(tmp_path / str(n), more)
        np.testing.assert_array_equal(shown(read_draft(tmp_path / str(n))), shown(more))
