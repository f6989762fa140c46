from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lora_scene.scenes.canvas import Canvas
from lora_scene.scenes.masks import report_on
from lora_scene.scenes.scene import Concept, Photo, Scene
from tests.scenes.factory import photo, scene


def canvas(size):
    """Eight cells a side of the latents, four of the maps."""
    return Canvas(size, 8, size // 8, size // 4)


def test_the_report_measures_photo_and_square():
    report = report_on(scene(), canvas(32))
    bear, bowl = report.coverages
    assert (bear.handle, bear.noun, bear.photo) == ("<bear>", "teddy bear", "img.png")
    assert bear.of_photo == 192 / 1280
    assert bear.of_frame == 192 / 1024
    assert (bear.kept, bowl.kept) == (1.0, 1.0)
    assert report.overlaps == ()
    assert report.warnings == ()


def test_overlaps_are_measured_on_the_smaller_mask():
    whole, part = (slice(0, 20), slice(0, 20)), (slice(10, 30), slice(15, 25))
    report = report_on(scene(photo(32, 40, whole, part)), canvas(32))
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
        (photo(), 64, "enlarged to 64x64 px"),
        (
            photo(32, 90, (slice(0, 30), slice(0, 30)), (slice(0, 30), slice(60, 90))),
            32,
            "fits into",
        ),
    ],
)
def test_doubts_are_told(example, size, message):
    assert any(message in said for said in report_on(scene(example), canvas(size)).warnings)


def test_many_concepts_and_missing_nouns_are_told():
    regions = [(slice(6 * k, 6 * k + 5), slice(0, 30)) for k in range(5)]
    concepts = tuple(Concept(f"<v{k}>", "object") for k in range(5))
    report = report_on(Scene(concepts, (photo(32, 32, *regions),), "x"), canvas(32))
    assert any(said.startswith("5 concepts: more than 4") for said in report.warnings)
    assert any("<v0>, <v1>" in said and "no class noun" in said for said in report.warnings)


def test_an_absent_concept_covers_nothing_and_is_no_doubt():
    example = photo()
    masks = example.masks.copy()
    masks[1] = 0.0
    report = report_on(scene(Photo(example.pixels, masks, "x")), canvas(32))
    assert (report.coverages[1].of_photo, report.coverages[1].box) == (0.0, None)
    assert report.warnings == ()


def test_the_background_is_no_loss_when_cropped():
    example = photo(32, 90, (slice(0, 30), slice(0, 24)))
    masks = np.stack([example.masks[0], 1.0 - example.masks[0]])
    concepts = (Concept("<a>", "bear"), Concept("<room>", "room", is_background=True))
    report = report_on(Scene(concepts, (Photo(example.pixels, masks, "x"),), "x"), canvas(32))
    assert report.warnings == ()


def test_a_thing_that_is_gone_in_the_square_is_told():
    pole = photo(512, 512, (slice(0, 512), slice(261, 264)))
    (said,) = [w for w in report_on(scene_of(pole), canvas(64)).warnings if "lost" in w]
    assert "<a> is lost in the frame of 64x64 px" in said
    apart = photo(32, 200, (slice(0, 32), slice(0, 30)), (slice(0, 32), slice(170, 200)))
    concepts = (Concept("<a>", "a"), Concept("<b>", "b"))
    report = report_on(Scene(concepts, (apart,), "x"), canvas(32))
    lost = [w.split()[1] for w in report.warnings if "is lost in the frame" in w]
    assert lost == ["<b>"], report.warnings


@pytest.mark.parametrize(
    ("width", "expected"),
    [(2, ["latent grid", "attention maps"]), (4, ["attention maps"]), (8, [])],
)
def test_a_thing_thinner_than_a_cell_is_told_grid_by_grid(width, expected):
    pole = photo(64, 64, (slice(0, 64), slice(24, 24 + width)))  # cells of 8 and of 16 pixels
    warnings = report_on(scene_of(pole), canvas(64)).warnings
    assert [
        name
        for name in ("latent grid", "attention maps")
        if any(f"of the {name} (" in w for w in warnings)
    ] == expected


def test_the_published_way_loses_what_lies_between_its_pixels():
    pole = photo(64, 64, (slice(0, 64), slice(9, 15)))  # nearest looks at pixels 0, 8, 16...
    fills = "of the latent grid (8x8) is filled by <a> (0 %)"
    assert any(fills in w for w in report_on(scene_of(pole), canvas(64), resize="nearest").warnings)
    assert not any("latent grid" in w for w in report_on(scene_of(pole), canvas(64)).warnings)


@pytest.mark.parametrize("kind", ["inverted", "all white"])
def test_a_mask_that_covers_the_rim_is_doubted(kind):
    inside = photo(64, 64, (slice(20, 40), slice(20, 40))).masks
    masks = 1 - inside if kind == "inverted" else np.ones_like(inside)
    example = Photo(photo(64, 64).pixels, masks, "x")
    (said,) = [w for w in report_on(scene_of(example), canvas(64)).warnings if "inverted" in w]
    assert ("covers all" if kind == "all white" else "covers 90 %") in said
    background = Scene((Concept("<a>", "a"), Concept("<r>", "r", True)), (example,), "x")
    stacked = Photo(example.pixels, np.concatenate([inside, 1 - inside]), "x")
    report = report_on(replace(background, photos=(stacked,)), canvas(64))
    assert not [w for w in report.warnings if "inverted" in w]


def test_two_concepts_of_one_noun_are_told():
    concepts = (Concept("<a>", "Cup"), Concept("<b>", "cup"))
    report = report_on(Scene(concepts, (photo(32, 32),), "x"), canvas(32))
    (said,) = [w for w in report.warnings if "one noun" in w]
    assert "<a> and <b>" in said
    assert not [w for w in report_on(scene(photo(32, 32)), canvas(32)).warnings if "one noun" in w]


def scene_of(example):
    return Scene((Concept("<a>", "a"),), (example,), "x")


def test_what_no_photo_shows_enough_of_cannot_be_learnt():
    thin = photo(64, 64, (slice(0, 64), slice(30, 31)))  # an eighth of eight cells
    dot = photo(64, 64, (slice(30, 34), slice(30, 34)))  # a quarter of one cell
    for example, expected in ((thin, ()), (dot, ("<a>",))):
        assert report_on(scene_of(example), canvas(64)).unlearnable == expected
    both = replace(scene_of(dot), photos=(dot, thin))
    assert report_on(both, canvas(64)).unlearnable == ()


def test_specks_that_stretch_a_things_box_are_told():
    thing, speck = (slice(20, 40), slice(20, 40)), (slice(60, 61), slice(62, 64))
    said = _specks_told(thing, speck)
    assert "<a>: specks of its mask (2 px in 1) lie apart" in said
    assert "2.2 times as long" in said  # columns 20 to 63 beside 20 to 39
    beside, half = (slice(42, 43), slice(41, 42)), (slice(45, 60), slice(45, 60))
    assert not _specks_told(thing, beside)
    assert not _specks_told(thing, half)
    beads = [(slice(y, y + 1), slice(x, x + 1)) for y in range(0, 64, 5) for x in range(0, 64, 5)]
    assert not _specks_told(*beads)


def _specks_told(*parts):
    mask = photo(64, 64, *parts).masks.max(axis=0, keepdims=True)
    report = report_on(scene_of(Photo(photo(64, 64).pixels, mask, "x")), canvas(64))
    return " ".join(w for w in report.warnings if "specks" in w)
