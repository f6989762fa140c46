"""Which combinations of nouns and background are kept from training.

A combination is a set of nouns on a background. One in five is held out, and one pair of
nouns in ten is never drawn together at all: on these the base is measured.
"""

import zlib
from collections.abc import Iterable
from itertools import combinations

_COMBINATIONS_HELD_OUT = 5
_PAIRS_HELD_OUT = 10


def is_held_out(nouns: Iterable[str], background: str) -> bool:
    """Say whether training may not draw these nouns together on this background."""
    words = sorted(nouns)
    if not words:
        return False
    if _draw(*words, background) % _COMBINATIONS_HELD_OUT == 0:
        return True
    return any(is_pair_held_out(*pair) for pair in combinations(words, 2))


def is_pair_held_out(first: str, second: str) -> bool:
    """Say whether two nouns are never drawn together, on any background."""
    return _draw(*sorted((first, second))) % _PAIRS_HELD_OUT == 0


def _draw(*words: str) -> int:
    """Return a number that depends on the words alone, on every machine."""
    return zlib.crc32("|".join(words).encode())
