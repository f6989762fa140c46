"""Handles, the tokens that stand for concepts in prompts, and the nouns behind them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from lora_scene.errors import LoraSceneError, SceneError
from lora_scene.targets import RESERVED_STEMS

UNNAMED_NOUN = "object"
MAX_NOUN_CHARACTERS = 200
HANDLE_FORM = re.compile(r"<[A-Za-z0-9][A-Za-z0-9_-]{0,63}>")
HANDLE_HELP = (
    "<name>, the name of at most 64 letters from a to z, digits, - and _, such as <bear> or "
    "<my-mug>"
)


@dataclass(frozen=True)
class Concept:
    """A thing to be learnt.

    Attributes:
        handle: Its token in prompts, such as `<bear>`.
        noun: Its class noun, such as `teddy bear`.
        is_background: Whether its masks are the complement of all others.
    """

    handle: str
    noun: str
    is_background: bool = False


OWN = "a handle of its own for each concept; upper case is no difference"
ANOTHER = "another name: CON, PRN, AUX, NUL, COM1 and LPT1 are devices there"

_Error = TypeVar("_Error", bound=LoraSceneError)


def handle_stem(handle: str) -> str:
    """Return a handle as a plain file stem: `bear` for `<bear>`."""
    return handle.strip("<>")


def default_noun(handle: str) -> str:
    """Guess a class noun: the stem, - and _ as spaces, its trailing number left out.

    A stem with fewer than two letters, such as that of `<v0>`, is no word: `object` then.
    """
    words = re.sub(r"[-_\s]*\d*$", "", handle_stem(handle)).replace("-", " ").replace("_", " ")
    return words if sum(letter.isalpha() for letter in words) >= 2 else UNNAMED_NOUN


def word_notes(handles: Sequence[str]) -> list[str]:
    """Return a sentence where embedding files are called like words, as `bear` of `<bear>`.

    Interfaces load nothing from such a file, for CLIP's vocabulary has the word already, or let it
    take the word over. Letters beside a digit, `_` or `-` are never one piece of that vocabulary.
    """
    words = [stem for stem in map(handle_stem, handles) if re.fullmatch("[A-Za-z]+|[0-9]+", stem)]
    if not words:
        return []
    return [
        f"embeddings called {', '.join(words)} would take over these words in interfaces, or not"
        " load: give those the files of `lora-scene export`, which are named otherwise"
    ]


def check_handles(
    handles: Sequence[str],
    where: object,
    *,
    nouns: Sequence[str] = (),
    error: type[_Error] = SceneError,  # type: ignore[assignment]
) -> list[_Error]:
    """Return what is wrong with handles and nouns; case counts for nothing, as in tokenizers.

    Args:
        handles: The handles.
        where: What messages call their place.
        nouns: Their class nouns.
        error: The class of the returned errors.
    """
    folded = [handle.casefold() for handle in handles]
    first = {handle: n for n, handle in reversed([*enumerate(folded)])}
    wrong = {
        ("an illegal handle", HANDLE_HELP): [
            repr(handle) for handle in handles if not HANDLE_FORM.fullmatch(handle)
        ],
        ("a handle whose file Windows cannot hold", ANOTHER): [
            handle for handle in handles if handle_stem(handle).casefold() in RESERVED_STEMS
        ],
        ("an illegal noun", f"at most {MAX_NOUN_CHARACTERS} printable characters"): [
            repr(noun)
            for noun in nouns
            if len(noun) > MAX_NOUN_CHARACTERS or not noun.isprintable()
        ],
        ("a noun that holds a handle", "words that the base knows, such as teddy bear"): [
            repr(noun) for noun in nouns if HANDLE_FORM.search(noun)
        ],
        ("a handle is used twice", OWN): [
            handle for n, handle in enumerate(handles) if first[folded[n]] < n
        ],
    }
    return [
        error(what, where=where, expected=expected, got=got)
        for (what, expected), all_of in wrong.items()
        for got in all_of
    ]
