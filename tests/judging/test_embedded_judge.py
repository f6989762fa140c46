"""Known answers of the embedded judge, on scenes of its world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from lora_scene.creating.requests import Request
from lora_scene.errors import JudgingError
from lora_scene.judging.comparison import compare, reference_looks
from lora_scene.judging.finding import GREY, Sighting
from lora_scene.judging.judge import Judge, load_judge
from lora_scene.judging.plans import Cell
from lora_scene.judging.scores import Scores, find_things, measure
from lora_scene.judging.watched_drawing import Drawn
from lora_scene.scenes.scene import Scene, load_scene

ROOT = Path(__file__).parents[2] / "benchmarks" / "scenes"
BLANK = np.full((64, 64, 3), GREY, np.uint8)


@pytest.fixture(scope="module")
def judge() -> Judge:
    try:
        return load_judge("mini")
    except JudgingError as error:
        pytest.skip(str(error))


@cache
def scenes() -> tuple[Scene, ...]:
    return tuple(load_scene(path) for path in sorted(ROOT.glob("[dt][0-9]*-[23]")))


def marked(judge: Judge, scene: Scene, pixels: np.ndarray) -> Scores:
    plain = "a photo of " + " and ".join(scene.nouns)
    cell = Cell(scene.things, Request(""), plain)
    drawn = Drawn(cell.asked, pixels, scene.handles, np.zeros((0, 1, 1), np.float32))
    found = find_things(drawn, scene, judge)
    return measure([cell], [drawn], [found], scene=scene, judge=judge)[0]


@pytest.fixture(scope="module")
def marks(judge: Judge) -> list[tuple[Scene, Scores, Scores]]:
    """Return each scene, the marks of its photo, and those of a blank."""
    return [
        (scene, marked(judge, scene, scene.photos[0].pixels), marked(judge, scene, BLANK))
        for scene in scenes()
    ]


def share(scores: Sequence[Scores]) -> float:
    return sum(len(one.missing) for one in scores) / sum(len(one.identity) for one in scores)


def test_the_photo_itself_has_the_highest_identity(judge, marks) -> None:
    noise = np.random.default_rng(0).integers(0, 256, BLANK.shape, dtype=np.uint8)
    for scene, own, blank in marks:
        other = next(one for one in scenes() if not set(one.nouns) & set(scene.nouns))
        rivals = [marked(judge, scene, pixels) for pixels in (noise, other.photos[0].pixels)]
        for rival in (blank, *rivals):
            assert sum(own.identity.values()) > sum(rival.identity.values()), scene.source


def test_capitals_in_a_noun_change_nothing(judge) -> None:
    scene = scenes()[0]
    pixels = scene.photos[0].pixels
    capital = [replace(one, noun=one.noun.title()) for one in scene.concepts]
    found, expected = (judge.finder.find(pixels, each) for each in (capital, scene.concepts))
    assert [one.owner for one in found] == [one.owner for one in expected]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours.region, theirs.region)
    twins = [
        replace(scene.concepts[0], noun=noun) for noun in (capital[0].noun, capital[0].noun.lower())
    ]
    assert {(one.owner, one.twins) for one in judge.finder.find(pixels, twins)} >= {(0, (1,))}


def test_a_blank_misses_everything_and_the_photo_little(marks) -> None:
    _, photos, blanks = zip(*marks, strict=True)
    assert share(blanks) > 0.8
    assert share(photos) < 0.2


def test_a_swapped_pair_is_mixed(judge) -> None:
    for scene in scenes():
        photo = scene.photos[0]
        swapped = [Sighting(photo.masks[k] > 0.5, 1 - k) for k in (0, 1)]
        compared = compare(
            photo.pixels,
            swapped,
            reference_looks(scene, judge.identity),
            encoder=judge.identity,
            named=(0, 1),
            floor=judge.same_floor,
        )
        assert compared.mixed == (0, 1), scene.source
        assert compared.missing == ()


@pytest.mark.parametrize("name", ["h08-2", "h09-2", "h10-3", "dh08-2"])
def test_twins_are_told_apart_by_their_looks(judge, name) -> None:
    """Both stand for themselves; with one twin's place painted over, that one is missing."""
    scene = load_scene(ROOT / name)
    assert scene.nouns[0] == scene.nouns[1]
    whole = marked(judge, scene, scene.photos[0].pixels)
    assert whole.comparison.is_exact
    assert whole.mixed == ()
    pixels = scene.photos[0].pixels.copy()
    around = np.median(pixels[~(scene.photos[0].masks > 0.5).any(axis=0)], axis=0)
    pixels[scene.photos[0].masks[0] > 0.5] = around.astype(np.uint8)
    assert marked(judge, scene, pixels).missing == (scene.handles[0],)
