import re

import numpy as np
import pytest

from benchmarks.mini_world.backgrounds import BACKGROUNDS
from benchmarks.mini_world.captions import EMPTY, caption
from benchmarks.mini_world.compose import Placement, Sprites, compose
from benchmarks.mini_world.nouns import noun_set
from tests.benchmarks import made

WORDS = [noun.word for noun in noun_set("mini16")]


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_caption_names_what_the_masks_show_and_nothing_else(n: int) -> None:
    sprites = Sprites(made.drawings(), noun_set("mini16"))
    rng = np.random.default_rng(n)
    for number in range(60):
        background = list(BACKGROUNDS)[number % len(BACKGROUNDS)]
        words = rng.choice(WORDS, n, replace=False)
        scene = compose(sprites, words, background, rng)
        text = caption(scene.placements, background, rng)
        named = [word for word in WORDS if re.search(rf"\b{word}\b", text)]
        assert sorted(named) == sorted(words), text
        grounds = [name for name, ways in BACKGROUNDS.items() if text.endswith(ways)]
        assert grounds in ([background], []), text


def test_an_empty_scene_is_named_by_its_background() -> None:
    rng = np.random.default_rng(0)
    assert all(caption((), "sky", rng).endswith(EMPTY["sky"]) for _ in range(10))


def test_left_and_right_are_true() -> None:
    left = Placement("cat", 0, 16, 0, 28, 28)
    right = Placement("apple", 0, 20, 36, 28, 28)
    rng = np.random.default_rng(0)
    texts = [caption((left, right), "grass", rng) for _ in range(300)]
    stated = [text for text in texts if " left of " in text or " right of " in text]
    assert stated
    for text in stated:
        assert re.search(r"cat left of (an )?apple|apple right of (a )?cat", text), text


def test_captions_come_with_and_without_article_opening_and_background() -> None:
    place = Placement("apple", 0, 16, 16, 28, 28)
    rng = np.random.default_rng(1)
    texts = {caption((place,), "grass", rng) for _ in range(400)}
    assert {"apple", "a photo of an apple on grass", "a photo of apple", "an apple"} <= texts
