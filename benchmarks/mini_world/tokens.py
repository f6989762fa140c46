"""Build the CLIP tokenizer of the mini world: every word of it is one token."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from benchmarks.mini_world.backgrounds import BACKGROUNDS
from benchmarks.mini_world.captions import EMPTY, OPENINGS
from benchmarks.mini_world.nouns import THING, noun_set

MAX_LENGTH = 32
"""Tokens of a prompt, start and end included."""

_START, _END = "<|startoftext|>", "<|endoftext|>"
_GLUE = "a an and of left right with the in on at by front there is nothing smudge"
_COLOURS = "red orange yellow green blue purple pink brown black white grey"


def world_words() -> list[str]:
    """Return every word that a caption of the world can hold, sorted."""
    texts = [noun.word for noun in noun_set("core64")]
    texts += [phrase for phrases in BACKGROUNDS.values() for phrase in phrases]
    texts += [*EMPTY.values(), *OPENINGS, _GLUE, _COLOURS]
    return sorted({word for text in texts for word in re.findall(r"[a-z]+", text)})


def wide_words() -> list[str]:
    """Return the words of the wide world, sorted; the judge knows only those of the plain one."""
    return sorted([*world_words(), THING])


def build_tokenizer(words: Iterable[str]) -> CLIPTokenizer:
    """Return a byte-level BPE tokenizer in which each of `words` is one token.

    The merges are learnt from the words alone until none is left in pieces. Any other text
    falls back to pieces, down to single bytes.
    """
    backend: Any = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=50_000,
        min_frequency=1,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    backend.train_from_iterator(sorted(words), trainer)
    learnt = backend.get_vocab()
    merges = [tuple(merge) for merge in _merges(backend)]
    pieces = {*alphabet, *(f"{letter}</w>" for letter in alphabet), *learnt}
    pieces |= {"".join(merge) for merge in merges}
    vocab = {piece: number for number, piece in enumerate([*sorted(pieces), _START, _END])}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_LENGTH)


def save_tokenizer(folder: Path, words: Iterable[str]) -> CLIPTokenizer:
    """Build the tokenizer of some words and write it into `folder`."""
    tokenizer = build_tokenizer(words)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _merges(backend: Any) -> list[list[str]]:
    import json

    model = json.loads(backend.to_str())["model"]
    return [m if isinstance(m, list) else m.split(" ") for m in model["merges"]]
