import numpy as np

from benchmarks.mini_world.gates import Score, Wish, held_out_wishes, score
from benchmarks.mini_world.nouns import noun_set
from benchmarks.mini_world.reading import Reading, part_sizes
from benchmarks.mini_world.smudges import spoil
from benchmarks.mini_world.splits import is_held_out
from tests.benchmarks import made

WORDS = [noun.word for noun in noun_set("mini16")]


def test_parts_hang_together_by_edges_only() -> None:
    mask = np.array([[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 1, 1]], bool)
    assert sorted(part_sizes(mask)) == [3, 3]
    assert part_sizes(np.zeros((2, 2), bool)) == []


def test_scores_count_what_was_asked_for() -> None:
    wishes = [Wish(("cat",), "sky"), Wish(("cat", "dog"), "sand"), Wish(("owl", "car"), "sand")]
    readings = [
        Reading(("cat", "cat"), "sky"),
        Reading(("dog", "cat"), "sand"),
        Reading(("owl", "owl"), "snow"),
    ]
    assert score(wishes, readings) == Score(1.0, 0.5, 2 / 3, 2 / 3)


def test_gates_ask_only_for_what_training_never_drew() -> None:
    for n_nouns in (1, 2):
        wishes = held_out_wishes(WORDS, n_nouns, 40, seed=0)
        assert len(wishes) == 40
        assert all(is_held_out(wish.nouns, wish.background) for wish in wishes)
    assert (
        Wish(("apple", "car"), "wood").prompt == "a photo of an apple and a car on a wooden table"
    )


def test_spoilt_drawings_keep_their_size() -> None:
    spoilt = spoil(list(made.drawings().rgba[:4]), 9, np.random.default_rng(0))
    assert {picture.shape for picture in spoilt} == {(64, 64, 4)}
    assert {picture.dtype for picture in spoilt} == {np.dtype(np.uint8)}
