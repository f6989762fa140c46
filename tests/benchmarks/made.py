"""A small made-up set of drawings, so that no test needs a download."""

import numpy as np

from benchmarks.mini_world.drawings import SIDE, TRAINING_STYLES, Drawings
from benchmarks.mini_world.nouns import noun_set

HELD_OUT_COLOUR = (255, 0, 255)
"""The colour of every held-out drawing; no other drawing and no background has it."""


def drawings() -> Drawings:
    """Return a disc for each noun in each style, the held-out style in one colour of its own."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    disc = (rows - SIDE / 2 + 0.5) ** 2 + (columns - SIDE / 2 + 0.5) ** 2 < (SIDE / 2) ** 2
    pictures, styles, codes = [], [], []
    for number, noun in enumerate(noun_set("mini16")):
        for shade, style in enumerate((*TRAINING_STYLES, "noto")):
            colour = (10 * number, 250 - 10 * number, 60 * shade)
            picture = np.zeros((SIDE, SIDE, 4), np.uint8)
            picture[disc] = (*(HELD_OUT_COLOUR if style == "noto" else colour), 255)
            pictures.append(picture)
            styles.append(style)
            codes.append(noun.code)
    return Drawings(np.stack(pictures), np.array(styles), np.array(codes))
