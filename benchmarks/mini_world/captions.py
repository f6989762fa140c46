"""Say in words what a scene shows, in many ways."""

from collections.abc import Sequence

import numpy as np

from benchmarks.mini_world.backgrounds import BACKGROUNDS
from benchmarks.mini_world.compose import SIDE, Placement
from lora_scene.judging.mini import with_article

OPENINGS = ("a photo of ", "", "a picture of ", "photo of ", "an image of ", "there is ")
_OPENING_PROBS = (0.5, 0.25, 0.08, 0.1, 0.04, 0.03)

EMPTY = {
    "grass": "grass", "sand": "sand", "snow": "snow", "sky": "the sky", "water": "water",
    "night": "the night", "wood": "a wooden table", "brick": "a brick wall",
}  # fmt: skip
"""What a background is called when nothing stands on it."""

ARTICLE_PROB = 0.65
BACKGROUND_PROB = 0.8
READING_ORDER_PROB = 0.8
RELATION_PROB = 0.1
COVERING_PROB = 0.5


def caption(placements: Sequence[Placement], background: str, rng: np.random.Generator) -> str:
    """Return one of the captions that are true of a scene.

    Args:
        placements: what stands in it, in reading order; may be none.
        background: its name.
        rng: draws the wording.
    """
    opening = OPENINGS[rng.choice(len(OPENINGS), p=_OPENING_PROBS)]
    if not placements:
        return opening + EMPTY[background]
    article = rng.random() < ARTICLE_PROB
    covering = len({place.depth for place in placements}) > 1
    chance = COVERING_PROB if covering else RELATION_PROB
    related = len(placements) == 2 and rng.random() < chance
    things = _relation(placements, article, rng) if related else None
    if things is None:
        nouns = [place.noun for place in placements]
        if rng.random() >= READING_ORDER_PROB:
            rng.shuffle(nouns)
        things = join([named(noun, article) for noun in nouns], int(rng.integers(3)))
    if rng.random() >= BACKGROUND_PROB:
        return opening + things
    phrases = BACKGROUNDS[background]
    phrase = phrases[0] if rng.random() < 0.7 else phrases[-1]
    return f"{opening}{things} {phrase}"


def named(noun: str, article: bool) -> str:
    """Return a noun with or without its article."""
    return with_article(noun) if article else noun


def join(things: Sequence[str], manner: int) -> str:
    """Join things: 0, 1 with "and" between all; 2 with commas and one "and"."""
    if manner < 2 or len(things) < 3:
        return " and ".join(things)
    return ", ".join(things[:-1]) + " and " + things[-1]


def _relation(
    placements: Sequence[Placement], article: bool, rng: np.random.Generator
) -> str | None:
    """Return "x in front of y" or "x left of y" where one clearly is; None where neither is."""
    back, front = sorted(placements, key=lambda place: place.depth)
    if front.depth > back.depth:
        return f"{named(front.noun, article)} in front of {named(back.noun, article)}"
    left, right = sorted(placements, key=lambda place: place.centre[1])
    if right.centre[1] - left.centre[1] < SIDE / 4:
        return None
    first, second, word = (left, right, "left") if rng.random() < 0.5 else (right, left, "right")
    return f"{named(first.noun, article)} {word} of {named(second.noun, article)}"
