"""What people said: a study's key and their files, read, checked, and taken apart into ratings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from lora_scene.documents import parse_json, read_text
from lora_scene.errors import JudgingError, LoraSceneError
from lora_scene.forms import between, build

Record = TypeVar("Record")

CHECK_BOUNDS = {"own": (4, 5), "other": (1, 2)}  # identity that a careful eye would give
MAX_FAILED_SHARE = 0.34  # of the checks


@dataclass(frozen=True)
class Trial:
    """A picture that is rated, as the key has it: a method's, or a check of the eye."""

    method: str = ""
    scene: str = ""
    prompt: str = ""
    seed: int = 0
    subset: tuple[int, ...] = ()
    check: Literal["own", "other"] | None = None


@dataclass(frozen=True)
class Key:
    """A study's key.json."""

    study: str
    methods: tuple[str, ...]
    trials: Mapping[str, Trial]


@dataclass(frozen=True)
class Answer:
    """What a participant gave one picture, 1 to 5; None where they gave nothing."""

    trial: str
    identity: int | None = between(None, 1, 5)
    prompt: int | None = between(None, 1, 5)


@dataclass(frozen=True)
class AnswerFile:
    """A participant's file."""

    study: str
    participant: str
    answers: tuple[Answer, ...]


class Rating(NamedTuple):
    """One answer to one question."""

    participant: str
    method: str
    item: str
    value: float


def read_answers(key: Path, answers: Sequence[Path]) -> tuple[Key, list[AnswerFile]]:
    """Read a study's key and its participants' files.

    Raises:
        JudgingError: A file cannot be read, belongs to another study, answers something twice, or
            is given twice.
    """
    meaning = _read(Key, key)
    files = [_read(AnswerFile, path) for path in answers]
    problems: list[JudgingError] = []
    seen: dict[str, Path] = {}
    for file, path in zip(files, answers, strict=True):

        def refuse(what: str, path: Path = path, **about: object) -> None:
            problems.append(JudgingError(what, where=path, **about))  # type: ignore[arg-type]

        if file.study != meaning.study:
            refuse("answers to another study", expected=meaning.study, got=file.study)
            continue
        if unknown := {answer.trial for answer in file.answers} - meaning.trials.keys():
            refuse("answers to unknown trials", got=len(unknown))
        n_twice = len(file.answers) - len({answer.trial for answer in file.answers})
        if n_twice:
            refuse("more than one answer to a picture", got=f"{n_twice} too many")
        if (twin := seen.get(file.participant)) is not None:
            got, hint = f"the same as {twin}", "keep the later file"
            refuse("one participant's answers twice", got=got, hint=hint)
        seen[file.participant] = path
    if problems:
        raise JudgingError.collect(problems, "the answers cannot be analysed")
    return meaning, files


def is_careful(answers: Iterable[Answer], trials: Mapping[str, Trial]) -> bool:
    """Tell whether a participant gave most checks an identity that a careful eye would give.

    Who answered none may be; see `is_checked`.
    """
    outcomes = []
    for answer in answers:
        check = trials[answer.trial].check
        if check is not None:
            low, high = CHECK_BOUNDS[check]
            outcomes.append(answer.identity is not None and low <= answer.identity <= high)
    return not outcomes or outcomes.count(False) / len(outcomes) <= MAX_FAILED_SHARE


def is_checked(answers: Iterable[Answer], trials: Mapping[str, Trial]) -> bool:
    """Tell whether a participant answered any check."""
    return any(trials[answer.trial].check is not None for answer in answers)


def ratings_of(
    files: Sequence[AnswerFile], trials: Mapping[str, Trial], question: str
) -> list[Rating]:
    """Return what participants gave methods' pictures for one question."""
    pairs = [(file.participant, answer) for file in files for answer in file.answers]
    ratings = []
    for participant, answer in pairs:
        trial, value = trials[answer.trial], getattr(answer, question)
        if trial.method and value is not None:
            item = f"{trial.scene}|{trial.prompt}|{trial.seed}|{trial.subset}"
            ratings.append(Rating(participant, trial.method, item, value))
    return ratings


def _read(kind: type[Record], path: Path) -> Record:
    content = parse_json(read_text(path, JudgingError), path, JudgingError)
    problems: list[LoraSceneError] = []
    record = build(
        kind, content, problems, error=JudgingError, where=f"{path}: ", ignores_unknown=True
    )
    if record is None or problems:
        raise JudgingError.collect(problems, f"{path} is no file of a study")
    return record
