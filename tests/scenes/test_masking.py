from __future__ import annotations

import numpy as np
import pytest

from lora_scene.errors import SegmenterError
from lora_scene.scenes import masking
from lora_scene.scenes.mask_prompts import Box, Prompt
from lora_scene.scenes.masking import list_regions, make_masks
from lora_scene.scenes.scene import Concept
from lora_scene.scenes.segmenters.regions import Segment

PIXELS = np.full((40, 60, 3), 120, np.uint8)
PROMPTS = [
    Prompt("<bear>", "teddy bear", Box(0, 0, 40, 40)),
    Prompt("<bowl>", "bowl", Box(30, 20, 50, 40)),
]


class Filler:
    """Fills each box, and lists three regions, two of them nearly the same."""

    name = "filler"
    accepts = frozenset({"box", "words"})

    def segment(self, pixels, prompts):
        masks = np.zeros((len(prompts), *pixels.shape[:2]), np.float32)
        for mask, prompt in zip(masks, prompts, strict=True):
            if prompt.box:
                box = prompt.box
                mask[int(box.top) : int(box.bottom), int(box.left) : int(box.right)] = 1.0
        return masks

    def propose(self, pixels):
        left = np.zeros(pixels.shape[:2], np.float32)
        left[:, :30] = 1.0
        return (Segment("bear", 0.9, left), Segment("wall", 0.7, 1 - left))


def test_masks_come_back_as_a_scene_with_a_preview(capsys):
    masked = make_masks(PIXELS, PROMPTS, segmenter=Filler())
    (photo,) = masked.scene.photos
    assert masked.scene.concepts == (Concept("<bear>", "teddy bear"), Concept("<bowl>", "bowl"))
    np.testing.assert_array_equal(photo.pixels, PIXELS)
    assert masked.preview.size == (768, 512)
    assert capsys.readouterr() == ("", "")


def test_overlaps_go_to_the_smaller_concept():
    bear, bowl = make_masks(PIXELS, PROMPTS, segmenter=Filler()).scene.photos[0].masks
    assert bowl.sum() == 20 * 20
    assert bear.sum() == 40 * 40 - 10 * 20


def test_the_background_is_the_complement():
    room = Concept("<room>", "room", is_background=True)
    masked = make_masks(PIXELS, PROMPTS, segmenter=Filler(), background=room)
    masks = masked.scene.photos[0].masks
    np.testing.assert_allclose(masks.sum(axis=0), 1.0)
    assert masked.scene.concepts[2] == room


def test_a_background_of_which_nothing_is_left_is_refused():
    whole, room = Prompt("<bear>", "bear", Box(0, 0, 60, 40)), Concept("<room>", "room", True)
    with pytest.raises(SegmenterError, match="<room>: the other concepts leave nothing"):
        make_masks(PIXELS, [whole], segmenter=Filler(), background=room)


def test_the_backgrounds_handle_must_be_free():
    with pytest.raises(SegmenterError, match="used twice"):
        make_masks(PIXELS, PROMPTS, segmenter=Filler(), background=Concept("<bear>", "x", True))


def test_what_was_not_found_is_named_with_a_way_out():
    prompts = [*PROMPTS, Prompt("<cup>", "cup", words="cup"), Prompt("<hat>", "hat", words="hat")]
    with pytest.raises(SegmenterError, match="2 problems") as caught:
        make_masks(PIXELS, prompts, segmenter=Filler())
    for part in ("<cup>: filler found nothing", "<hat>: filler", "plainer words"):
        assert part in str(caught.value)


def test_a_concept_swallowed_by_others_is_told_from_one_that_was_not_found():
    twin = Prompt("<twin>", "twin", Box(30, 20, 50, 40))
    with pytest.raises(SegmenterError, match=r"<twin>: all .* lies in masks of other(.|\n)*own"):
        make_masks(PIXELS, [*PROMPTS, twin], segmenter=Filler())


@pytest.mark.parametrize(
    "pixels", [PIXELS[:, :, 0], PIXELS.astype(np.float32), np.dstack([PIXELS, PIXELS[:, :, :1]])]
)
def test_what_is_no_photo_is_refused(pixels):
    with pytest.raises(SegmenterError, match="not a photo"):
        make_masks(pixels, PROMPTS, segmenter=Filler())


def test_a_huge_photo_is_refused(monkeypatch):
    monkeypatch.setattr(masking, "MAX_PIXELS", 1000)
    with pytest.raises(SegmenterError, match=r"too large(.|\n)*60 x 40"):
        make_masks(PIXELS, PROMPTS, segmenter=Filler())


def test_prompts_are_checked_against_the_photo():
    with pytest.raises(SegmenterError, match="leaves the photo"):
        make_masks(PIXELS, [Prompt("<a>", "a", Box(0, 0, 61, 40))], segmenter=Filler())


def test_regions_are_listed_and_drawn():
    listed = list_regions(PIXELS, Filler())
    assert [region.name for region in listed.regions] == ["bear", "wall"]
    assert listed.preview.size == (768, 512)


def test_an_empty_list_is_an_error_with_a_way_out(monkeypatch):
    monkeypatch.setattr(Filler, "propose", lambda self, pixels: ())
    with pytest.raises(SegmenterError, match=r"sees nothing(.|\n)*built-in"):
        list_regions(PIXELS, Filler())
