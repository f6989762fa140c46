import numpy as np

from benchmarks.mini_world.gates import (
    GATES,
    Score,
    Wish,
    hard_wishes,
    held_out_wishes,
    report,
    score,
)
from benchmarks.mini_world.nouns import noun_set
from benchmarks.mini_world.reading import Reading
from benchmarks.mini_world.smudges import spoil
from benchmarks.mini_world.splits import is_held_out
from tests.benchmarks import made

WORDS = [noun.word for noun in noun_set("mini16")]


def test_scores_count_what_was_asked_for() -> None:
    wishes = [Wish(("cat",), "sky"), Wish(("cat", "dog"), "sand"), Wish(("owl", "car"), "sand")]
    wishes += [Wish(("cat", "cat"), "sand")] * 3 + [Wish(("owl", "car"), "sand", True)]
    readings = [
        Reading(("cat", "cat"), "sky"),
        Reading(("dog", "cat"), "sand"),
        Reading(("owl", "owl"), "snow"),
        Reading(("cat", "cat"), "sky"),
        Reading(("cat",), "sand"),
        Reading(("cat", "cat", "cat"), "sand"),
        Reading(("car", "owl", "owl"), "sky"),
    ]
    assert score(wishes, readings) == Score(
        single_right=1.0,
        both_right=0.5,
        twins_right=1 / 3,
        covering_right=1.0,
        count_right=2 / 3,
        background_right=2 / 3,
    )
    assert score(wishes[:1], readings[:1]).twins_right is None


def test_gates_ask_only_for_what_training_never_drew() -> None:
    for n_nouns in (1, 2):
        wishes = held_out_wishes(WORDS, n_nouns, 40, seed=0)
        assert len(wishes) == 40
        assert all(is_held_out(wish.nouns, wish.background) for wish in wishes)
    twins, covering = np.array_split(np.array(hard_wishes(WORDS, 40, seed=0), object), 2)
    assert all(is_held_out(wish.nouns, wish.background) for wish in [*twins, *covering])
    assert all(wish.nouns[0] == wish.nouns[1] for wish in twins)
    assert covering[0].prompt.startswith("a photo of a")
    assert " in front of a" in covering[0].prompt
    assert (
        Wish(("apple", "car"), "wood").prompt == "a photo of an apple and a car on a wooden table"
    )


def test_a_gate_is_no_higher_than_what_composed_scenes_are_given() -> None:
    whole = dict.fromkeys(GATES, 1.0)
    figures = {
        "vae_object_db": 27.0,
        "ddim": {**whole, "twins_right": 0.5, "both_right": 0.69},
        "judge_known_styles": {**whole, "twins_right": 0.45},
    }
    *_, both, _, _, twins, covering = report(figures).splitlines()
    assert both == "both_right: 0.690, gate 0.7: missed"
    assert twins == "twins_right: 0.500, gate 0.45: met"
    assert covering == "covering_right: 1.000, gate 0.7: met"


def test_spoilt_drawings_keep_their_size() -> None:
    spoilt = spoil(list(made.drawings().rgba[:4]), 9, np.random.default_rng(0))
    assert {picture.shape for picture in spoilt} == {(64, 64, 4)}
    assert {picture.dtype for picture in spoilt} == {np.dtype(np.uint8)}
