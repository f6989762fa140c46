from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lora_scene.creating.requests import Request
from lora_scene.judging.comparison import Comparison, References, compare, rates
from lora_scene.judging.finding import Sighting
from lora_scene.judging.plans import Cell
from lora_scene.judging.scores import Scores, by_concept, find_things, measure, summarise
from lora_scene.judging.watched_drawing import Drawn
from lora_scene.scenes.scene import Scene
from tests.judging import fakes

BOTH = (0, 1)


def marked(
    pixels: np.ndarray, subset: tuple[int, ...] = BOTH, scene: Scene | None = None
) -> Scores:
    scene, judge = scene or fakes.scene(), fakes.judge()
    plain = "a photo of " + " and ".join(scene.nouns[k] for k in subset)
    cell = Cell(subset, Request("a photo of <bear> and <bowl>"), plain)
    drawn = Drawn(cell.asked, pixels, scene.handles, np.zeros((2, 4, 4), np.float32))
    found = find_things(drawn, scene, judge)
    [scores] = measure([cell], [drawn], [found], scene=scene, judge=judge)
    return scores


def total(scores: Scores) -> float:
    return sum(scores.identity.values())


def test_the_training_photo_has_the_highest_identity() -> None:
    own = marked(fakes.picture(fakes.RED, fakes.BLUE))
    rivals = [
        fakes.picture(fakes.BLUE, fakes.RED),
        fakes.picture(fakes.GREEN, fakes.GREEN),
        fakes.picture(fakes.RED, None),
        np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8),
    ]
    assert total(own) == pytest.approx(2.0, abs=1e-5)
    assert total(own) > max(total(marked(one)) for one in rivals)
    assert own.missing == own.mixed == ()
    assert own.comparison.repeats == 0


def test_surroundings_are_likened_to_those_of_the_nearest_photo() -> None:
    scene = fakes.scene()
    photo = scene.photos[0]
    on_green = np.where(photo.masks.any(axis=0)[..., None], photo.pixels, fakes.GREEN)
    on_red = np.where(photo.masks.any(axis=0)[..., None], photo.pixels, fakes.RED)
    others = [replace(photo, pixels=pixels.astype(np.uint8)) for pixels in (on_red, on_green)]
    both = replace(scene, photos=tuple(others))
    found = marked(others[1].pixels, scene=both)
    assert found.background == pytest.approx(1.0, abs=1e-5)


def test_a_swapped_pair_is_mixed_and_not_missing() -> None:
    scores = marked(fakes.picture(fakes.BLUE, fakes.RED))
    assert scores.mixed == ("<bear>", "<bowl>")
    assert scores.missing == ()


def test_a_blank_picture_misses_every_named_concept() -> None:
    scores = marked(fakes.picture(None, None))
    assert scores.missing == ("<bear>", "<bowl>")
    assert scores.mixed == ()
    assert total(scores) == 0


def test_a_concept_that_the_prompt_does_not_name_is_not_missed() -> None:
    assert marked(fakes.picture(None, fakes.BLUE), subset=(1,)).missing == ()


def test_two_of_one_thing_are_a_repeat() -> None:
    scores = marked(fakes.picture(fakes.RED, fakes.RED))
    assert scores.comparison.repeats == 1
    assert scores.missing == ("<bowl>",)
    assert scores.mixed == ("<bowl>",)


@pytest.mark.parametrize(
    ("owners", "likeness", "repeats"),
    [
        ((0, 0), (0.2, 0.1), 1),  # two that stand for one concept and look like neither
        ((0, None), (0.2, 0.1), 0),  # the second is no concept's
        ((0, None), (0.2, 0.9), 1),  # it looks like the one that the first stands for
        ((0, 1), (0.9, 0.2), 0),
    ],
)
def test_a_repeat_is_known_by_what_it_stands_for_or_looks_like(owners, likeness, repeats) -> None:
    table = np.array([[value, 0.0] for value in likeness], np.float32)
    assert Comparison(table, (0, 1), owners, (0,), floor=0.7).repeats == repeats


@pytest.mark.parametrize(
    ("owners", "likeness", "best", "each", "unlike"),
    [
        ((0, 0), (0.9, 0.5), 0.9, 0.7, 0.5),  # a good and a bad copy
        ((0, None), (0.9, 0.5), 0.9, 0.9, 0.0),
        ((None, 1), (0.8, 0.5), 0.8, 0.8, 0.0),  # it is there under no name
        ((1, 1), (0.6, 0.5), 0.6, 0.6, 1.0),
        ((), (), 0.0, 0.0, 1.0),
    ],
)
def test_each_copy_counts_beside_the_best(owners, likeness, best, each, unlike) -> None:
    table = np.array([[value, 0.0] for value in likeness], np.float32).reshape(-1, 2)
    compared = Comparison(table, (0, 1), owners, (0,), floor=0.7)
    assert compared.identity(0) == pytest.approx(best)
    assert compared.identity_each(0) == pytest.approx(each)
    assert compared.unlike(0) == unlike


def test_a_thing_of_another_colour_is_missing_and_not_mixed() -> None:
    scores = marked(fakes.picture(fakes.GREEN, fakes.BLUE))
    assert scores.missing == ("<bear>",)
    assert scores.mixed == ()


def test_a_copied_layout_is_whole_overlap() -> None:
    copied = marked(fakes.picture(fakes.RED, fakes.BLUE)).layout_copy
    assert copied == {"<bear>": 1.0, "<bowl>": 1.0}


def test_of_several_copies_the_most_copied_counts(monkeypatch) -> None:
    scene, judge = fakes.scene(), fakes.judge()
    inside = scene.photos[0].masks[0] >= 0.5
    copies = [Sighting(inside, 0), Sighting(~inside, 0)]
    cell = Cell((0,), Request("a photo of <bear>"), "a photo of a bear")
    drawn = Drawn(cell.asked, scene.photos[0].pixels, scene.handles, np.zeros((2, 4, 4)))
    for found in (copies, copies[::-1]):
        [scores] = measure([cell], [drawn], [found], scene=scene, judge=judge)
        assert scores.layout_copy == {"<bear>": 1.0}


def test_the_prompt_similarity_is_the_caption_cosine() -> None:
    right = marked(fakes.picture(fakes.RED, None), subset=(0,)).prompt_similarity
    wrong = marked(fakes.picture(fakes.BLUE, None), subset=(0,)).prompt_similarity
    assert right == pytest.approx(1.0, abs=1e-5)
    assert wrong < 0.5


def test_rates_are_shares_of_the_named_concepts() -> None:
    scene, judge = fakes.scene(), fakes.judge()
    cell = Cell(BOTH, Request("<bear> and <bowl>"), "bear and bowl")
    pictures = [fakes.picture(fakes.RED, fakes.BLUE), fakes.picture(fakes.RED, None)]
    empty = np.zeros((2, 4, 4), np.float32)
    drawn = [Drawn(cell.asked, pixels, scene.handles, empty) for pixels in pictures]
    found = [find_things(one, scene, judge) for one in drawn]
    scores = measure([cell, cell], drawn, found, scene=scene, judge=judge)
    summary = summarise(scores)
    assert summary["missing_rate"] == 1 / 4
    assert summary["mixing_rate"] == 0
    own = by_concept(scores, scene, {"<bear>": 0.25})
    assert own["<bowl>"]["missing_rate"] == 1 / 2
    assert own["<bear>"]["missing_rate"] == 0
    assert own["<bear>"]["attention_iou"] == 0.25


def test_without_a_finder_the_strongest_attention_is_a_handles_region() -> None:
    scene = fakes.scene()
    judge = fakes.judge()
    blind = type(judge)("blind", judge.identity, judge.captions, None, 0.9)
    maps = np.zeros((2, 4, 4), np.float32)
    maps[0, :2, :2] = 0.5
    maps[0, 2:, 2:] = 0.3  # more than half its peak, but there the other's is whole
    maps[1, 2:, 2:] = 0.01
    drawn = Drawn(Request(""), fakes.picture(fakes.RED, fakes.BLUE), scene.handles, maps)
    first, second = find_things(drawn, scene, blind)
    assert (first.owner, second.owner) == (0, 1)
    assert first.region[:24, :24].all()
    assert second.region[40:, 40:].all()
    assert not (first.region & second.region).any()


@pytest.mark.parametrize(
    ("owners", "looks", "named", "is_exact"),
    [
        ((0, 1), (0, 1), (0, 1), True),
        ((None, None), (0, 1), (0, 1), True),  # found under no name, and known by their looks
        ((0, 1), (0, 1), (0,), True),  # what is not named may be there
        ((0, 1, 1), (0, 1, 1), (0,), True),  # and twice
        ((0,), (0,), (0, 1), False),  # one is not there
        ((0, 1), (0, None), (0, 1), False),  # it is there, and not recognisable
        ((0, 0, 1), (0, 0, 1), (0, 1), False),  # one stands twice
        ((0, 0, 1), (0, None, 1), (0, 1), False),  # the second of them is not recognisable
        ((0, 1), (1, 0), (0, 1), False),  # each in the other's look
        ((0, 0), (0, 1), (0,), False),  # one of two stands in another's look
        ((), (), (0,), False),
    ],
)
def test_a_picture_is_right_if_each_named_thing_stands_once_as_itself(
    owners, looks, named, is_exact
) -> None:
    table = np.zeros((len(owners), 2), np.float32)
    for i, look in enumerate(looks):
        if look is not None:
            table[i, look] = 0.9
    compared = Comparison(table, (0, 1), owners, named, floor=0.7)
    assert compared.is_exact is is_exact
    assert rates([compared, compared])["exact_set"] == float(is_exact)


def test_of_several_photos_the_nearest_counts() -> None:
    """The greatest cosine: a mean would punish a thing for being photographed from all sides."""
    scene, judge = fakes.scene(), fakes.judge()
    references = References(np.eye(3, dtype=np.float32), (0, 0, 1))
    red = judge.identity.embed_pictures([fakes.picture(fakes.RED, None)])[0]
    inside = scene.photos[0].masks[0] >= 0.5
    compared = compare(
        scene.photos[0].pixels,
        [Sighting(inside, 0)],
        references,
        encoder=judge.identity,
        named=(0,),
        floor=0.7,
    )
    assert compared.likeness[0] == pytest.approx([max(red[0], red[1]), red[2]], abs=1e-6)
    assert max(red[0], red[1]) - (red[0] + red[1]) / 2 > 0.3


@pytest.mark.parametrize(("colour", "owner"), [(fakes.RED, 0), (fakes.GREEN, 1)])
def test_of_twins_a_thing_stands_for_the_one_that_it_resembles(colour, owner) -> None:
    """Found by the noun that both have, whichever of them the finder names first."""
    judge = fakes.judge()
    looks = judge.identity.embed_pictures(
        [fakes.picture(fakes.RED, None), fakes.picture(fakes.GREEN, None)]
    )
    pixels = fakes.picture(None, colour)
    region = (pixels != fakes.GREY).any(axis=-1)
    for found in (Sighting(region, 0, twins=(1,)), Sighting(region, 1, twins=(0,))):
        compared = compare(
            pixels,
            [found],
            References(looks, (0, 1)),
            encoder=judge.identity,
            named=(0, 1),
            floor=0.7,
        )
        assert compared.owners == (owner,)
        assert compared.missing == (1 - owner,)
        assert compared.mixed == ()
