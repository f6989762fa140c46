from __future__ import annotations

import numpy as np
import pytest

from lora_scene.errors import SegmenterError
from lora_scene.scenes.mask_prompts import Prompt
from lora_scene.scenes.segmenters.regions import Segment, drop_doubles, pick_regions


def test_doubles_are_dropped_and_the_surest_comes_first():
    left = np.zeros((10, 20), np.float32)
    left[:, :10] = 1.0
    nearly = left.copy()
    nearly[:, 10] = 1.0  # IoU 10 / 11
    kept = drop_doubles(
        [Segment("b", 0.8, nearly), Segment("a", 0.9, left), Segment("c", 0.7, 1 - left)]
    )
    assert [region.name for region in kept] == ["a", "c"]


def test_all_numbers_that_are_not_listed_are_told_at_once():
    region = Segment("a", 0.9, np.ones((4, 4), np.float32))
    prompts = [Prompt("<a>", "a", pick=2), Prompt("<b>", "b", pick=1), Prompt("<c>", "c", pick=0)]
    with pytest.raises(SegmenterError, match="2 problems"):
        pick_regions([region], prompts, shape=(4, 4))
