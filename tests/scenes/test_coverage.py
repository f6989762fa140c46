from __future__ import annotations

from lora_scene.scenes.coverage import bounding_box, covered, overlaps_of
from tests.scenes.factory import photo


def test_coverage_is_the_fraction_of_pixels():
    example = photo()
    assert covered(example, 0) == 16 * 12 / (32 * 40)
    assert bounding_box(example, 0) == (6, 4, 18, 20)


def test_an_absent_concept_has_no_box_and_shares_nothing():
    whole, part = (slice(0, 20), slice(0, 20)), (slice(10, 30), slice(15, 25))
    example = photo(32, 40, whole, part)
    (overlap,) = overlaps_of(example, ("<a>", "<b>"))
    assert (overlap.handles, overlap.of_smaller) == (("<a>", "<b>"), 50 / 200)
    example.masks[1] = 0.0
    assert (covered(example, 1), bounding_box(example, 1)) == (0.0, None)
    assert overlaps_of(example, ("<a>", "<b>")) == []
