from __future__ import annotations

import numpy as np
import pytest

from lora_scene.scenes.masks import bounding_box, covered, report_on
from lora_scene.scenes.scene import Concept, Photo, Scene
from tests.scenes.factory import photo, scene


def test_coverage_is_the_fraction_of_pixels():
    example = photo()
    assert covered(example, 0) == 16 * 12 / (32 * 40)
    assert bounding_box(example, 0) == (6, 4, 18, 20)


def test_the_report_measures_photo_and_square():
    report = report_on(scene(), 32)
    bear, bowl = report.coverages
    assert (bear.handle, bear.noun, bear.photo) == ("<bear>", "teddy bear", "img.png")
    assert bear.of_photo == 192 / 1280
    assert bear.of_square == 192 / 1024
    assert (bear.kept, bowl.kept) == (1.0, 1.0)
    assert report.overlaps == ()
    assert report.warnings == ()


def test_overlaps_are_measured_on_the_smaller_mask():
    whole, part = (slice(0, 20), slice(0, 20)), (slice(10, 30), slice(15, 25))
    report = report_on(scene(photo(32, 40, whole, part)), 32)
    (overlap,) = report.overlaps
    assert overlap.of_smaller == 50 / 200
    assert overlap.iou == 50 / 550
    assert any("share 25 % of the smaller mask" in said for said in report.warnings)


@pytest.mark.parametrize(
    ("example", "size", "message"),
    [
        (
            photo(32, 40, (slice(0, 4), slice(0, 4)), (slice(9, 29), slice(9, 29))),
            32,
            "small things",
        ),
        (photo(), 64, "enlarged to 64 px"),
        (
            photo(32, 90, (slice(0, 30), slice(0, 30)), (slice(0, 30), slice(60, 90))),
            32,
            "fits into",
        ),
    ],
)
def test_doubts_are_told(example, size, message):
    assert any(message in said for said in report_on(scene(example), size).warnings)


def test_many_concepts_and_missing_nouns_are_told():
    regions = [(slice(6 * k, 6 * k + 5), slice(0, 30)) for k in range(5)]
    concepts = tuple(Concept(f"<v{k}>", "object") for k in range(5))
    report = report_on(Scene(concepts, (photo(32, 32, *regions),), "x"), 32)
    assert any(said.startswith("5 concepts: more than 4") for said in report.warnings)
    assert any("<v0>, <v1>" in said and "no class noun" in said for said in report.warnings)


def test_an_absent_concept_covers_nothing_and_is_no_doubt():
    example = photo()
    masks = example.masks.copy()
    masks[1] = 0.0
    report = report_on(scene(Photo(example.pixels, masks, "x")), 32)
    assert (report.coverages[1].of_photo, report.coverages[1].box) == (0.0, None)
    assert report.warnings == ()


def test_the_background_is_no_loss_when_cropped():
    example = photo(32, 90, (slice(0, 30), slice(0, 30)))
    masks = np.stack([example.masks[0], 1.0 - example.masks[0]])
    concepts = (Concept("<a>", "bear"), Concept("<room>", "room", is_background=True))
    report = report_on(Scene(concepts, (Photo(example.pixels, masks, "x"),), "x"), 32)
    assert report.warnings == ()
