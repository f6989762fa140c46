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
_ARTICLE = re.compile(r"(an?|the)\s+(\S.*)", re.IGNORECASE)
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


def noun_doubts(concepts: Sequence[Concept]) -> list[str]:
    """Return a sentence for each noun that is shared, has an article, or stands for no word."""
    by_noun: dict[str, list[str]] = {}
    for concept in concepts:
        by_noun.setdefault(concept.noun.casefold(), []).append(concept.handle)
    said = [
        f"{' and '.join(handles)} have one noun, {noun!r}: what tells them apart is learnt less "
        "well; give each a noun of its own, such as 'red cup' and 'blue cup'"
        for noun, handles in by_noun.items()
        if len(handles) > 1 and noun != UNNAMED_NOUN
    ]
    said += [
        f"{concept.handle}: the article in {concept.noun!r} counts as a word of the noun, where "
        f"its embedding begins; write {found[2]!r}"
        for concept in concepts
        if (found := _ARTICLE.fullmatch(concept.noun))
    ]
    unnamed = [concept.handle for concept in concepts if concept.noun == UNNAMED_NOUN]
    if unnamed:
        said.append(
            f"{', '.join(unnamed)}: no class noun, so {UNNAMED_NOUN!r} is used; "
            "a real noun gives training a better start"
        )
    return said


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
