"""The exception tree: everything that a caller can cause derives from `LoraSceneError`.

    LoraSceneError
    ├── FileError          a file cannot be read or written, or is not ours to replace
    ├── RecipeError        a recipe, or an override of it, is wrong
    ├── SceneError         a photo, a mask, a handle or a scene.toml is wrong
    │   └── SegmenterError masks could not be made from the given prompts
    ├── BackboneError      a base model is missing, unreadable or of an unknown family
    ├── TrainingError      training cannot start or go on
    │   ├── NonFiniteLossError
    │   ├── OutOfMemoryError
    │   ├── CheckpointError
    │   └── InterruptedRunError
    ├── AdapterError       an adapter file is missing, hostile or does not fit
    │   ├── VerificationError
    │   └── HubError
    ├── CreationError      a picture cannot be made as asked
    └── JudgingError       a measurement cannot be made as asked

`LoraSceneWarning` is what else may be said, by Python's `warnings`.
Only the command line turns them into messages; the library never prints.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Sequence

MAX_SHOWN = 20  # problems of a collected error
MAX_CHARACTERS = 1000  # of one part of a message
MAX_WORD = 100  # longer ones are no misspelt words


class LoraSceneError(Exception):
    """Say what is wrong, and where it helps: where, what was expected, what was found, what to do.

    Args:
        what: One sentence, without a full stop.
        where: The path, key or concept that it is about.
        expected: What would have been right.
        got: What was found.
        hint: What to do now.
    """

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        expected: object = None,
        got: object = None,
        hint: str | None = None,
    ) -> None:
        self.what = what
        self.where = where
        self.expected = expected
        self.got = got
        self.hint = hint
        super().__init__(self._render())

    def _render(self) -> str:
        head = self.what if self.where is None else f"{self.where}: {self.what}"
        details = {"expected": self.expected, "got": self.got, "hint": self.hint}
        rows = [f"  {name + ':':9} {value}" for name, value in details.items() if value is not None]
        return "\n".join(map(_fit_to_print, [head, *rows]))

    @classmethod
    def collect(cls, problems: Sequence[LoraSceneError], what: str) -> LoraSceneError:
        """Join problems into one error that tells the first of them; one is returned as it is."""
        if len(problems) == 1:
            return problems[0]
        joined = cls(f"{what}: {len(problems)} problems")
        rows = [f"- {problem}" for problem in problems[:MAX_SHOWN]]
        if len(problems) > MAX_SHOWN:
            rows.append(f"- and {len(problems) - MAX_SHOWN} more")
        joined.args = ("\n".join([joined.what, *rows]),)
        return joined


class FileError(LoraSceneError):
    """A file cannot be read or written, or is not ours to replace."""


class LoraSceneWarning(UserWarning):
    """Something of the user's is not taken as it may have been meant; says what it costs."""


class RecipeError(LoraSceneError):
    """A recipe, or an override of it, is wrong."""


class SceneError(LoraSceneError):
    """A photo, a mask, a handle or a scene.toml is wrong."""


class SegmenterError(SceneError):
    """Masks could not be made from the given prompts."""


class BackboneError(LoraSceneError):
    """A base model is missing, unreadable or of an unknown family."""


class TrainingError(LoraSceneError):
    """Training cannot start or go on."""


class NonFiniteLossError(TrainingError):
    """A loss term became infinite or not a number."""


class OutOfMemoryError(TrainingError):
    """The device ran out of memory."""


class CheckpointError(TrainingError):
    """A checkpoint is damaged or belongs to another run."""


class InterruptedRunError(TrainingError):
    """A run was asked to stop, and can go on.

    Args:
        number: Of the signal.
        what: How it stopped.
        hint: How to go on.

    Attributes:
        exit_code: Of a process that such a signal ends: 128 + its number.
    """

    def __init__(self, number: int, what: str, hint: str) -> None:
        super().__init__(what, hint=hint)
        self.exit_code = 128 + number


class AdapterError(LoraSceneError):
    """An adapter file is missing, hostile or does not fit."""


class VerificationError(AdapterError):
    """An exported adapter does not do what it should."""


class HubError(AdapterError):
    """A hub refused, or stopped answering."""


class CreationError(LoraSceneError):
    """A picture cannot be made as asked."""


class JudgingError(LoraSceneError):
    """A measurement cannot be made as asked."""


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return a sentence that offers the nearest known words, or None when none is near."""
    if len(word) > MAX_WORD:
        return None
    near = difflib.get_close_matches(word, list(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else None


def warn_of(where: object, text: str) -> None:
    """Warn of something in a file, or of a concept."""
    warnings.warn(f"{where}: {text}", LoraSceneWarning, stacklevel=2)


def _fit_to_print(text: str) -> str:
    """Shorten a text, and spell out what would steer a terminal or could not be encoded."""
    if len(text) > MAX_CHARACTERS:
        text = f"{text[:MAX_CHARACTERS]}... ({len(text):,} characters)"
    return "".join(
        letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text
    )
