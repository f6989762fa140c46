"""The handles that adapters bring, and how prompts use them; no base is needed for it."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lora_scene.errors import CreationError, did_you_mean
from lora_scene.scenes.handles import HANDLE_FORM
from lora_scene.size import Size

if TYPE_CHECKING:
    from lora_scene.adapters.adapter import LearnedConcept, TrainingInfo
    from lora_scene.creating.requests import Amounts, Request
    from lora_scene.creating.studio import Member

_INNER = r"(?:[^()]|\([^()]*\))"  # a letter, or brackets in brackets
_DASH = "[\u2013\u2014]"  # what word processors make of two hyphens
# After a dash in plain prose sizes and weights have other numbers: "a shoe -- size 7".
_NUMBERED = (
    r"(?:seed|steps|guidance|[dwhsl]|am)[\s=]+\d|(?:size|width|height)[\s=]+\d{3}"
    r"|weight[\s=]+\d?\.\d"
)
_IN_ANGLES = r"(?:[<\uff1c]|&lt;)(?:(?!&[lg]t;)[^<>\uff1c\uff1e]){1,80}(?:[>\uff1e]|&gt;)"

# What other programs read out of a prompt and the text encoder would read as plain words.
FOREIGN = {
    rf"\({_INNER}*(?:(?<!\d):\s*[-+]?[\d.]+|:\s*[-+]?\d*\.\d+)\s*\)|\(\([^()]*\)\)"
    r"|[>)]\+(?:\++|(?=[,.;]|\s+\w|\s*$))": "an emphasis elsewhere (--emphasis HANDLE=FACTOR)",
    r"\[[^\[\]]+\]": "square brackets",
    r"<(?:lora|lyco|hypernet)\s*:[^<>]*>": "a tag that loads an adapter (give its folder instead)",
    r"\bembedding:\S+": "a ComfyUI embedding (its handle <name> is the way here)",
    r"\b(?:BREAK|AND)\b": "a word that joins prompts elsewhere",
    r"__[\w/-]+__|\{[^{}]*\}": "a wildcard",
    rf"(?i:(?<!\S)(?:--?|{_DASH})(?:negative|seed|width|height|size|steps|guidance|weight"
    rf"|scheduler)\b|>--(?:negative|scheduler)\b|(?:--|{_DASH})\s*(?:{_NUMBERED}))": "an option "
    "(in a line of --prompts: small letters after a blank and two hyphens)",
}


class Names:
    """What studios, and adapters that are not in a base yet, know of their concepts."""

    members: tuple[Member, ...]

    @property
    def concepts(self) -> tuple[LearnedConcept, ...]:
        """Return the concepts of all adapters, in order."""
        raise NotImplementedError

    @property
    def infos(self) -> tuple[TrainingInfo, ...]:
        """Return where each adapter comes from, in order."""
        raise NotImplementedError

    @property
    def photo_size(self) -> Size | None:
        """Return the size at which the first photo was learnt; None for a square, the base's own.

        Where photos of several shapes were learnt, those of the first adapter's first one.
        """
        sizes = [info.first_size for info in self.infos if info.sizes]
        return sizes[0] if sizes else None

    @property
    def nouns(self) -> Mapping[str, str]:
        """Return every handle with its class noun."""
        return {concept.handle: concept.noun for concept in self.concepts}

    @property
    def background(self) -> str | None:
        """Return the handle of the background, if one was learnt."""
        return next((c.handle for c in self.concepts if c.is_background), None)

    @property
    def things(self) -> tuple[str, ...]:
        """Return the handles that do not stand for a background."""
        return tuple(c.handle for c in self.concepts if not c.is_background)

    def handles_in(self, prompt: str) -> tuple[str, ...]:
        """Return the handles that a prompt names, in its order, each once.

        Raises:
            CreationError: The prompt names a handle that no adapter has.
        """
        known = {handle.casefold(): handle for handle in self.nouns}
        named: dict[str, None] = {}
        for match in HANDLE_FORM.finditer(prompt):
            handle = known.get(match.group().casefold())
            if handle is None:
                raise unknown_handle(match.group(), self.nouns, where=prompt)
            named[handle] = None
        return tuple(named)

    def find_handle(self, name: str) -> str:
        """Return the handle for `<bear>` or just `bear`.

        Raises:
            CreationError: No adapter has it.
        """
        plain = name.strip("<>").casefold()
        for handle in self.nouns:
            if handle.strip("<>").casefold() == plain:
                return handle
        raise unknown_handle(name, self.nouns)

    def without_handles(self, prompt: str) -> str:
        """Return a prompt with every handle replaced by its class noun.

        Raises:
            CreationError: The prompt names a handle that no adapter has.
        """
        for handle in self.handles_in(prompt):
            spelled = re.compile(re.escape(handle), re.IGNORECASE)
            prompt = self.nouns[handle].join(spelled.split(prompt))
        return prompt

    def notes_on_all(self, requests: Sequence[Request]) -> list[str]:
        """Return what a person should know of requests that would be drawn otherwise than meant."""
        prompts = dict.fromkeys(one.prompt for one in requests if not one.is_base)
        negatives = dict.fromkeys(one.negative for one in requests if one.negative)
        unread = dict.fromkeys(
            one.negative for one in requests if one.negative and not one.sampling.is_guided
        )
        return [
            *(note for prompt in prompts for note in self.notes_on(prompt)),
            *(f"{text!r}: {note}" for text in negatives for note in self._plain_words(text)),
            *(
                f"{negative!r}: a negative prompt changes nothing at a guidance of 1 or less"
                for negative in unread
            ),
            *self._idle_weights([one.weight for one in requests if not one.is_base]),
        ]

    def notes_on(self, prompt: str) -> list[str]:
        """Return what a person should know of a prompt that would be drawn otherwise than meant."""
        told = self._plain_words(prompt)
        if self.nouns and not self.handles_in(prompt):
            listed = ", ".join(f"{handle} ({noun})" for handle, noun in self.nouns.items())
            told.append(f"it names no handle; there are {listed}")
        return [f"{prompt!r}: {note}" for note in told]

    def _idle_weights(self, weights: Sequence[float | Amounts]) -> list[str]:
        """Return which adapters of rows alone are weighed, none with LoRA at the same time."""
        bare = [one for one in self.members if not one.adapter.modules]
        is_all = len(bare) == len(self.members)
        for_all = {w for w in weights if is_all and not isinstance(w, tuple)}
        named = {pair for w in weights if isinstance(w, tuple) for pair in w}
        return [
            f"{one.name} has no LoRA: weights change nothing"
            for one in bare
            if {one.choice.weight, *for_all, *(w for name, w in named if name == one.name)} != {1.0}
        ]

    def _plain_words(self, prompt: str) -> list[str]:
        """Return what of a prompt, or a negative one, would be read as plain words."""
        told = [
            f"{match.group()!r} is {meaning}: here it is read as plain words"
            for form, meaning in FOREIGN.items()
            if (match := re.search(form, prompt)) is not None
        ]
        foreign = re.compile("|".join(FOREIGN))
        for match in re.finditer(_IN_ANGLES, prompt):
            text = match.group()
            if HANDLE_FORM.fullmatch(text) is None and foreign.fullmatch(text) is None:
                plain = unicodedata.normalize("NFKC", html.unescape(text))
                near = did_you_mean(plain, self.nouns)
                hint = f"; {near}" if near else ""
                told.append(f"{text!r} is no handle, and is read as plain words{hint}")
        return told


def unknown_handle(name: str, known: Mapping[str, str], where: str | None = None) -> CreationError:
    """Build the error for a handle that no adapter has, with those that there are."""
    listed = ", ".join(f"{handle} ({noun})" for handle, noun in known.items())
    return CreationError(
        f"no adapter knows the handle {name}",
        where=where,
        expected=listed or "no handles: no adapter is loaded",
        hint=did_you_mean(name, known)
        or "name the folder of an adapter that does; those in a base itself, stock diffusers draws",
    )
