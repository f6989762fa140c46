import numpy as np
import pytest

from lora_scene.errors import SceneError
from lora_scene.page.brush import ADDS, TAKES, Brush


def strokes(shape, *painted):
    layer = np.zeros((*shape, 4), dtype=np.uint8)
    for where, colour in painted:
        layer[where] = (*colour, 255)
    return {"background": None, "layers": [layer], "composite": None}


def test_strokes_add_and_take_away_pixel_for_pixel_and_nothing_else_changes():
    mask = (np.random.default_rng(0).random((7, 11)) > 0.5).astype(np.float32)
    value = strokes(mask.shape, (np.s_[:2], ADDS), (np.s_[5:], TAKES))
    expected = mask >= 0.5
    expected[:2], expected[5:] = True, False
    np.testing.assert_array_equal(Brush("a", takes=True).changed(value, mask), expected)


def test_strokes_that_come_back_at_another_size_are_refused():
    with pytest.raises(SceneError, match="not of the photo's size"):
        Brush("a").read(strokes((8, 11)), (7, 11, 3))
