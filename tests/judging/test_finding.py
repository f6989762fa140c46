from __future__ import annotations

import numpy as np

from lora_scene.judging.finding import GREY, SegmenterFinder, cut_out, without
from lora_scene.scenes.scene import Concept
from tests.judging import fakes


def test_a_cut_out_is_the_thing_in_the_middle_of_grey() -> None:
    pixels = fakes.picture(fakes.RED, fakes.BLUE)
    region = np.zeros((64, 64), bool)
    region[10:20, 5:25] = True
    square = cut_out(pixels, region)
    side = round(20 * 1.16)
    assert square.shape == (side, side, 3)
    is_red = (square == fakes.RED).all(axis=-1)
    rows, columns = np.nonzero(is_red)
    assert is_red.sum() == 10 * 20
    assert abs((rows.min() + rows.max()) / 2 - (side - 1) / 2) <= 1
    assert abs((columns.min() + columns.max()) / 2 - (side - 1) / 2) <= 1
    assert (square[~is_red] == GREY).all()


def test_what_is_taken_out_turns_grey_and_the_picture_stays() -> None:
    pixels = fakes.picture(fakes.RED, fakes.BLUE)
    region = (pixels == fakes.RED).all(axis=-1)
    rest = without(pixels, [region])
    assert not (rest == fakes.RED).all(axis=-1).any()
    assert (rest == fakes.BLUE).all(axis=-1).sum() == (pixels == fakes.BLUE).all(axis=-1).sum()
    assert (pixels == fakes.RED).all(axis=-1).any()


class HalfSegmenter:
    name = "half"
    accepts = frozenset({"words"})

    def segment(self, pixels, prompts):
        self.words = [prompt.words for prompt in prompts]
        masks = np.zeros((len(prompts), *pixels.shape[:2]), np.float32)
        masks[0, :, :32] = 0.9
        return masks


def test_a_segmenter_is_asked_for_the_nouns_of_things() -> None:
    concepts = [Concept("<a>", "bear"), Concept("<g>", "grass", True), Concept("<b>", "bowl")]
    segmenter = HalfSegmenter()
    found = SegmenterFinder(segmenter).find(fakes.picture(None, None), concepts)
    assert segmenter.words == ["bear", "bowl"]
    assert [one.owner for one in found] == [0]
    assert found[0].region[:, :32].all()
