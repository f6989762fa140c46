from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageDraw

from lora_scene.scenes.overlay import COLOURS, LEAST_SIDE, MOST_SIDE, draw_masks, draw_overlay
from lora_scene.scenes.scene import Photo
from tests.scenes.factory import photo, scene


@pytest.fixture
def written(monkeypatch):
    """Collect the boxes and texts that are drawn."""
    boxes, texts = [], []
    draw_box, draw_text = ImageDraw.ImageDraw.rounded_rectangle, ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw,
        "rounded_rectangle",
        lambda self, box, **kw: (boxes.append(box), draw_box(self, box, **kw))[1],
    )
    monkeypatch.setattr(
        ImageDraw.ImageDraw,
        "text",
        lambda self, at, text, **kw: (texts.append(text), draw_text(self, at, text, **kw))[1],
    )
    return boxes, texts


@pytest.mark.parametrize(("side", "expected"), [(40, LEAST_SIDE), (1000, 1000), (3000, MOST_SIDE)])
def test_the_picture_has_a_readable_size(side, expected):
    picture = draw_masks(photo(side // 2, side), ["<a>", "<b>"])
    assert picture.size == (expected, expected // 2)


def test_labels_name_each_mask_with_its_coverage(written):
    draw_masks(photo(), ["<bear>", "<bowl>"])
    assert sorted(written[1]) == ["<bear> 15.0 %", "<bowl> 7.5 %"]


def test_labels_stay_inside_and_apart_even_when_masks_coincide(written):
    edge = [(slice(0, 6), slice(0, 5 + k)) for k in range(6)]
    picture = draw_masks(photo(64, 64, *edge), [f"<concept-{k}>" for k in range(6)])
    boxes = written[0]
    assert len(boxes) == 6
    for n, (left, top, right, bottom) in enumerate(boxes):
        assert left >= 0
        assert top >= 0
        assert right <= picture.width
        assert bottom <= picture.height
        for other in boxes[:n]:
            apart = right <= other[0] or left >= other[2] or bottom <= other[1] or top >= other[3]
            assert apart, (boxes[n], other)


def test_masks_are_tinted_and_the_rest_is_as_it_was():
    grey = np.full((768, 768, 3), 128, np.uint8)
    masks = np.zeros((1, 768, 768), np.float32)
    masks[0, 100:500, 100:500] = 1.0
    picture = np.asarray(draw_masks(Photo(grey, masks, "x"), ["<a>"])).astype(float)
    assert (picture[520:, 520:] == 128).all()
    expected = 0.6 * 128 + 0.4 * np.array(COLOURS[0])
    assert np.abs(picture[130, 130] - expected).max() <= 1.0


def test_several_photos_stand_side_by_side():
    sheet = draw_overlay(scene(photo(), photo(), photo()))
    assert sheet.width > 2 * LEAST_SIDE
    assert sheet.height > LEAST_SIDE


def test_an_absent_concept_has_no_label(written):
    example = photo()
    masks = example.masks.copy()
    masks[0] = 0.0
    draw_masks(Photo(example.pixels, masks, "x"), ["<bear>", "<bowl>"])
    assert written[1] == ["<bowl> 7.5 %"]
