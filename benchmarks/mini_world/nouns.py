"""The nouns of the mini world: which drawing each is, and which styles draw it alike."""

from dataclasses import dataclass
from typing import Literal

from benchmarks.mini_world.drawings import TRAINING_STYLES, Style

NounSet = Literal["mini16", "core64"]

THING = "thing"
"""The word for a drawing whose noun the world does not name."""


@dataclass(frozen=True)
class Noun:
    """A thing that can be named.

    Attributes:
        word: one or two words, as captions say it.
        code: code points of its drawing.
        styles: the training styles whose drawing shows the same thing from the same side;
            the others (a face where this is a whole animal) are left out.
    """

    word: str
    code: str
    styles: tuple[Style, ...] = TRAINING_STYLES


_CODES = {
    "cat": "1f431", "dog": "1f436", "fox": "1f98a", "lion": "1f981", "horse": "1f40e",
    "cow": "1f404", "pig": "1f437", "elephant": "1f418", "rabbit": "1f430", "panda": "1f43c",
    "chicken": "1f414", "penguin": "1f427", "owl": "1f989", "duck": "1f986", "frog": "1f438",
    "turtle": "1f422", "whale": "1f433", "fish": "1f41f", "octopus": "1f419", "crab": "1f980",
    "snail": "1f40c", "butterfly": "1f98b", "bee": "1f41d", "ladybug": "1f41e",
    "sunflower": "1f33b", "rose": "1f339", "cactus": "1f335", "tree": "1f333",
    "mushroom": "1f344", "apple": "1f34e", "banana": "1f34c", "orange": "1f34a",
    "strawberry": "1f353", "pineapple": "1f34d", "watermelon": "1f349", "grapes": "1f347",
    "carrot": "1f955", "tomato": "1f345", "pizza": "1f355", "burger": "1f354",
    "cake": "1f370", "donut": "1f369", "ice cream": "1f366", "coffee": "2615",
    "house": "1f3e0", "car": "1f697", "bus": "1f68c", "train": "1f682", "bicycle": "1f6b2",
    "airplane": "2708", "rocket": "1f680", "boat": "26f5", "balloon": "1f388",
    "ball": "26bd", "guitar": "1f3b8", "drum": "1f941", "trumpet": "1f3ba",
    "clock": "23f0", "book": "1f4d5", "camera": "1f4f7", "backpack": "1f392",
    "hat": "1f3a9", "umbrella": "2602", "teddy bear": "1f9f8",
}  # fmt: skip

_STYLES: dict[str, tuple[Style, ...]] = {"chicken": ("fluent", "fluent-flat")}
"""Where the noto-v1 drawing shows another side than the rest."""

_NAMES: dict[NounSet, tuple[str, ...]] = {
    "mini16": (
        "cat", "dog", "panda", "frog", "penguin", "owl", "apple", "pineapple", "burger",
        "donut", "sunflower", "cactus", "mushroom", "car", "rocket", "house",
    ),
    "core64": tuple(_CODES),
}  # fmt: skip


def noun_set(name: NounSet) -> tuple[Noun, ...]:
    """Return the nouns of a named set, in its order."""
    return tuple(
        Noun(word, _CODES[word], _STYLES.get(word, TRAINING_STYLES)) for word in _NAMES[name]
    )


def noun_sets() -> tuple[NounSet, ...]:
    """Return the names of the sets."""
    return tuple(_NAMES)
