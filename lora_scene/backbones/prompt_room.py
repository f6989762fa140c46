"""Whether a training's prompts fit into what its base reads, before the base is loaded.

Of a base that lies on this machine its tokenizers count, as training does. Of another the least is
known: each word, digit and group of signs is a token of CLIP's or more.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_scene.backbones.families import identify
from lora_scene.backbones.pipeline_folder import read_json
from lora_scene.backbones.sources import EMBEDDED, resolve_model
from lora_scene.errors import BackboneError
from lora_scene.recipe import Augment, Recipe
from lora_scene.scenes.augment import SIMPLE_BACKGROUND
from lora_scene.scenes.run_prompts import (
    Named,
    known_nouns,
    longest_on_grounds,
    longest_prompts,
    prior_prompts,
)
from lora_scene.scenes.scene import Scene
from lora_scene.scenes.union import prompt_for

USUAL_ROOM = 77  # tokens that CLIP's text encoders read, of which two are the begin and the end
ENDS = 2
PIECES = re.compile(r"'(?:[stmd]|re|ve|ll)(?![^\W\d_])|[^\W\d_]+|\d|(?:[^\w\s]|_)+", re.IGNORECASE)
TOKENS_A_WORD = 1.25  # of plain English nouns; rare ones and other languages have more
BYTES_A_TOKEN = 4
SHOWN = 80  # characters of a prompt
SHORTER = "a shorter template or nouns, fewer handles.n_vectors or concepts"
NO_COLOURS = "grounds.far=0, which does not ask the base"
NO_GROUNDS = "grounds.prob=0, which shows none"


@dataclass(frozen=True)
class PromptReport:
    """What is known of a training's prompts, a sentence each.

    Attributes:
        refusals: Which training refuses, for they would be cut.
        doubts: Which it may refuse.
    """

    refusals: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Asked:
    """Prompts of one setting, and whether all trainings read them, or those with far things."""

    where: str
    prompts: Sequence[str]
    hint: str = ""
    is_sure: bool = True


@dataclass(frozen=True)
class _Reader:
    """A tokenizer, or what stands for it: the room behind it, and how many tokens a text has."""

    room: int
    count: Callable[[str], int]
    is_exact: bool


def report_on_prompts(scene: Scene, recipe: Recipe) -> PromptReport:
    """Count the tokens of the longest prompts that a training would read.

    Args:
        scene: What would be learnt from.
        recipe: Its templates, and what else it says.
    """
    refusals: dict[str, str] = {}  # one a setting: what helps it helps all of its prompts
    doubts: list[str] = []
    readers = _readers(recipe.base.model)
    for asked in _asked(scene, recipe):
        said, is_certain = _worst(asked, readers, scene.handles, recipe.handles.n_vectors)
        if said and not asked.is_sure:
            said = f"where a thing has colours that the base does not expect: {said}"
        if is_certain and asked.is_sure:
            refusals.setdefault(asked.where, said)
        elif said:
            doubts.append(said)
    return PromptReport(tuple(refusals.values()), tuple(doubts))


def _asked(scene: Scene, recipe: Recipe) -> Iterator[_Asked]:
    """Yield what training looks at before its first step."""
    shown, grounds = [*_shown(scene, recipe.augment)], recipe.grounds
    yield _Asked("handles.templates", longest_prompts(shown, scene.concepts, recipe))
    if recipe.run.sample_every:
        yield _Asked("run.sample_prompts", recipe.run.sample_prompts)
    if recipe.has_prior:
        nouns = [scene.nouns[k] for k in scene.things]
        prompts = prior_prompts(recipe.prior, nouns)[: recipe.prior.n_images]
        yield _Asked("prior.prompts", prompts)
    if grounds.is_on:
        is_sure = not grounds.far
        named = [
            prompt_for([noun], None, recipe.handles.templates[0]) for noun in known_nouns(scene)
        ]
        if not is_sure:
            yield _Asked("handles.templates", named, NO_COLOURS)
        if is_sure or named:
            far = frozenset(scene.things)
            on_them = longest_on_grounds(shown, scene.concepts, recipe, far)
            yield _Asked("grounds.prompts", grounds.prompts[: grounds.n_images], "", is_sure)
            yield _Asked("grounds.phrases", on_them, NO_GROUNDS, is_sure)


def _shown(scene: Scene, augment: Augment) -> Iterator[Named]:
    is_plain = augment.plain_share > 0 or augment.crop_prob > 0
    for photo in scene.photos:
        things = tuple(k for k in photo.present if k in scene.things)
        yield Named(photo.present if is_plain else things)
        if augment.recompose_prob:
            yield Named(things, SIMPLE_BACKGROUND)


def _worst(
    asked: _Asked, readers: Sequence[_Reader], handles: Sequence[str], n_vectors: int
) -> tuple[str, bool]:
    """Say which prompt is too long, or may be, and whether that is certain; nothing if none is."""
    named = re.compile("|".join(map(re.escape, handles)), re.IGNORECASE)
    told, over = ("", False), 0
    for reader in readers:
        for prompt in dict.fromkeys(asked.prompts):
            words = [part for part in named.split(prompt) if part.strip()]
            n_rows = ENDS + n_vectors * len(named.findall(prompt))
            n = n_rows + sum(map(reader.count, words))
            likely = n_rows + _likely(words, n - n_rows) if not reader.is_exact else n
            if likely - reader.room > over:
                over = likely - reader.room
                told = _sentence(asked, prompt, n, likely, reader), n > reader.room
    return told


def _sentence(asked: _Asked, prompt: str, n: int, likely: int, reader: _Reader) -> str:
    reads = f"the text encoder reads {reader.room}"
    if n > reader.room:
        at_least = "" if reader.is_exact else " at least, one a word"
        said = f"a prompt has {n} tokens{at_least}, and {reads}: training refuses it"
    else:
        said = f"a prompt has about {likely} tokens, guessed by its words and letters, and {reads}"
        said += ": training counts them, and refuses it if it would be cut"
    wants = SHORTER + (f"; or {asked.hint}" if asked.hint else "")
    return f"{asked.where}: {said}; {wants}: {textwrap.shorten(prompt, SHOWN)!r}"


def _likely(words: Sequence[str], least: int) -> int:
    n_bytes = sum(len(word.encode()) for word in words)
    return math.ceil(max(TOKENS_A_WORD * least, n_bytes / BYTES_A_TOKEN))


def _readers(model: str) -> list[_Reader]:
    """Return the base's tokenizers where it lies on this machine, or what stands for CLIP's."""
    folder = Path(resolve_model(model) if model == EMBEDDED else model).expanduser()
    try:
        return [*_own_readers(folder)] if folder.is_dir() else [_usual()]
    except (BackboneError, OSError, ValueError, KeyError):  # no whole base: its loading tells that
        return [_usual()]


def _own_readers(folder: Path) -> Iterator[_Reader]:
    from transformers import CLIPTokenizer

    unet = {"in_channels": 4, "out_channels": 4, **read_json(folder / "unet" / "config.json")}
    family = identify(unet)
    for part, encoder in zip(family.tokenizers, family.text_encoders, strict=True):
        tokenizer = CLIPTokenizer.from_pretrained(folder / part, local_files_only=True)
        limit = int(read_json(folder / encoder / "config.json")["max_position_embeddings"])

        def count(text: str, tokenizer: CLIPTokenizer = tokenizer) -> int:
            return len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

        yield _Reader(min(int(tokenizer.model_max_length), limit), count, is_exact=True)


def _usual() -> _Reader:
    return _Reader(USUAL_ROOM, lambda text: len(PIECES.findall(text)), is_exact=False)
