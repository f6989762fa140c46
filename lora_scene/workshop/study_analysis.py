"""What people said: means, deviations, tests, agreement, and whether it is enough to conclude.

After Break-A-Scene's study: ratings from 1 to 5, Kruskal-Wallis, then Tukey's HSD. A
participant's ratings are not independent of each other, so the tests see one mean per participant
and method. Every participant rates every method, so what a method is told apart by are differences
within participants: Friedman's test, and Tukey's HSD with participants as blocks. Kruskal-Wallis,
which takes the methods' ratings for those of different people, stands beside as the paper has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from lora_scene.documents import between, build, parse_json, read_text
from lora_scene.errors import JudgingError, LoraSceneError
from lora_scene.extras import optional

Record = TypeVar("Record")

QUESTIONS = ("identity", "prompt")
MIN_PARTICIPANTS = 10  # below, no test is made
MIN_RATINGS = 30  # of each method and question
SIGNIFICANT = 0.05
CHECK_BOUNDS = {"own": (4, 5), "other": (1, 2)}  # identity that a careful eye would give
MAX_FAILED_SHARE = 0.34  # of the checks


@dataclass(frozen=True)
class Trial:
    """A picture that is rated, as the key has it: a method's, or a check of the eye."""

    method: str = ""
    scene: str = ""
    prompt: str = ""
    seed: int = 0
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


@dataclass(frozen=True)
class Rating:
    """One answer to one question."""

    participant: str
    method: str
    item: str
    value: int


@dataclass(frozen=True)
class MethodScore:
    """What a method got.

    Attributes:
        method: Its name.
        mean: Of all ratings.
        deviation: Of all ratings; the sample's.
        n_ratings: Answers.
    """

    method: str
    mean: float
    deviation: float
    n_ratings: int


@dataclass(frozen=True)
class Pair:
    """Two methods by Tukey's HSD, participants as blocks.

    Attributes:
        first: A method.
        second: Another.
        difference: Mean of the first minus mean of the second.
        low: Of its 95 % interval.
        high: Of its 95 % interval.
        p: Chance of so great a difference between equal methods.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float

    @property
    def is_significant(self) -> bool:
        """Tell whether the difference is unlikely to be chance."""
        return self.p < SIGNIFICANT


@dataclass(frozen=True)
class QuestionResult:
    """What was found for one question.

    Attributes:
        question: `identity` or `prompt`.
        scores: A method each, the best first.
        agreement: Krippendorff's alpha of the participants, interval metric: 1 is perfect, 0 is
            chance; None where nobody rated what another did.
        friedman_p: Of Friedman's test over three methods or more; None where there is too little.
        kruskal_p: Of Kruskal-Wallis over the methods; None where there is too little.
        pairs: Tukey's HSD; empty where there is too little.
    """

    question: str
    scores: tuple[MethodScore, ...]
    agreement: float | None
    friedman_p: float | None
    kruskal_p: float | None
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class StudyResult:
    """What a study says.

    Attributes:
        questions: One each.
        n_participants: Whose answers count.
        excluded: Participants who failed the checks.
        shortcomings: Why nothing can be concluded; empty if something can.
    """

    questions: tuple[QuestionResult, ...]
    n_participants: int
    excluded: tuple[str, ...]
    shortcomings: tuple[str, ...]


def analyse_study(key: Path, answers: Sequence[Path]) -> StudyResult:
    """Analyse the answers of a study.

    Args:
        key: The study's key.json.
        answers: The participants' files.

    Raises:
        JudgingError: A file cannot be read, belongs to another study, or is given twice; or scipy
            is not installed.
    """
    _stats()
    meaning = _read(Key, key)
    files = [_read(AnswerFile, path) for path in answers]
    _refuse_strangers(meaning, files, answers)
    trials = meaning.trials
    excluded = tuple(f.participant for f in files if not is_careful(f.answers, trials))
    kept = [file for file in files if file.participant not in excluded]
    ratings = {question: list(_ratings(kept, trials, question)) for question in QUESTIONS}
    short = tuple(_shortcomings(ratings, meaning.methods, len(kept)))
    questions = tuple(
        judge_question(question, ratings[question], has_tests=not short) for question in QUESTIONS
    )
    return StudyResult(questions, len(kept), excluded, short)


def is_careful(answers: Iterable[Answer], trials: Mapping[str, Trial]) -> bool:
    """Tell whether a participant gave most checks an identity that a careful eye would give."""
    outcomes = []
    for answer in answers:
        check = trials[answer.trial].check
        if check is not None:
            low, high = CHECK_BOUNDS[check]
            outcomes.append(answer.identity is not None and low <= answer.identity <= high)
    return not outcomes or outcomes.count(False) / len(outcomes) <= MAX_FAILED_SHARE


def judge_question(
    question: str, ratings: Sequence[Rating], *, has_tests: bool = True
) -> QuestionResult:
    """Summarise one question's ratings, and test them if that is allowed."""
    methods = sorted({one.method for one in ratings})
    scores = []
    for method in methods:
        values = [one.value for one in ratings if one.method == method]
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        scores.append(MethodScore(method, float(np.mean(values)), deviation, len(values)))
    scores.sort(key=lambda one: -one.mean)
    friedman_p, kruskal_p = None, None
    pairs: tuple[Pair, ...] = ()
    table = _means(methods, ratings)
    if has_tests and min(table.shape) > 1 and table.min() < table.max():
        friedman_p, kruskal_p = _friedman(table), _kruskal(table)
        pairs = _blocked_tukey(methods, table)
    return QuestionResult(
        question, tuple(scores), agreement_of(ratings), friedman_p, kruskal_p, pairs
    )


def agreement_of(ratings: Sequence[Rating]) -> float | None:
    """Return Krippendorff's alpha of ratings, each method's picture of an item being a unit."""
    units: dict[tuple[str, str], list[float]] = {}
    for one in ratings:
        units.setdefault((one.item, one.method), []).append(one.value)
    return krippendorff_alpha(list(units.values()))


def krippendorff_alpha(units: Sequence[Sequence[float]]) -> float | None:
    """Return alpha = 1 - observed / expected disagreement, squared differences (interval metric).

    Krippendorff, Computing Krippendorff's alpha-reliability (2011). None where no unit has two
    values or all values are the same.

    Args:
        units: The values of each thing that was rated; any number of raters, gaps left out.
    """
    paired = [np.asarray(values, np.float64) for values in units if len(values) > 1]
    if not paired:
        return None
    everything = np.concatenate(paired)
    n = len(everything)
    observed = sum(_squares(values) / (len(values) - 1) for values in paired) / n
    expected = _squares(everything) / (n * (n - 1))
    return float(1 - observed / expected) if expected else None


def _squares(values: npt.NDArray[np.float64]) -> float:
    """Return the sum of squared differences over all ordered pairs."""
    return float(2 * (len(values) * (values**2).sum() - values.sum() ** 2))


def _means(methods: Sequence[str], ratings: Sequence[Rating]) -> npt.NDArray[np.float64]:
    """Return each participant's mean of each method (n, k), for those who rated all methods."""
    given: dict[str, dict[str, list[int]]] = {}
    for one in ratings:
        given.setdefault(one.participant, {}).setdefault(one.method, []).append(one.value)
    whole = [own for own in given.values() if len(own) == len(methods)]
    means = [[float(np.mean(own[method])) for method in methods] for own in whole]
    return np.array(means).reshape(len(whole), len(methods))


def _stats() -> Any:
    return optional("scipy.stats", error=JudgingError, where="tests of significance")


def _friedman(table: npt.NDArray[np.float64]) -> float | None:
    return float(_stats().friedmanchisquare(*table.T).pvalue) if table.shape[1] > 2 else None


def _kruskal(table: npt.NDArray[np.float64]) -> float:
    return float(_stats().kruskal(*table.T).pvalue)


def _blocked_tukey(methods: Sequence[str], table: npt.NDArray[np.float64]) -> tuple[Pair, ...]:
    """Return Tukey's HSD for a randomised complete block design: levels of people are taken out."""
    n, k = table.shape
    residuals = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    freedom = (n - 1) * (k - 1)
    error = np.sqrt((residuals**2).sum() / freedom / n)
    reach = float(_stats().studentized_range.ppf(1 - SIGNIFICANT, k, freedom) * error)
    pairs = []
    for i, j in combinations(range(k), 2):
        difference = float(table[:, i].mean() - table[:, j].mean())
        ratio = abs(difference) / error if error else np.inf * abs(difference)
        p = float(_stats().studentized_range.sf(ratio, k, freedom)) if difference else 1.0
        pairs.append(
            Pair(methods[i], methods[j], difference, difference - reach, difference + reach, p)
        )
    return tuple(pairs)


def _ratings(
    files: Sequence[AnswerFile], trials: Mapping[str, Trial], question: str
) -> Iterable[Rating]:
    for file in files:
        for answer in file.answers:
            trial = trials[answer.trial]
            value = answer.identity if question == "identity" else answer.prompt
            if trial.method and value is not None:
                item = f"{trial.scene}|{trial.prompt}|{trial.seed}"
                yield Rating(file.participant, trial.method, item, value)


def _shortcomings(
    ratings: Mapping[str, Sequence[Rating]], methods: Sequence[str], n_participants: int
) -> Iterable[str]:
    if n_participants < MIN_PARTICIPANTS:
        yield f"{n_participants} participants count, at least {MIN_PARTICIPANTS} are needed"
    for question, given in ratings.items():
        for method in methods:
            n = sum(one.method == method for one in given)
            if n < MIN_RATINGS:
                yield f"{question} of {method}: {n} ratings, at least {MIN_RATINGS} are needed"


def _read(kind: type[Record], path: Path) -> Record:
    content = parse_json(read_text(path, JudgingError), path, JudgingError)
    problems: list[LoraSceneError] = []
    record = build(
        kind, content, problems, error=JudgingError, where=f"{path}: ", ignores_unknown=True
    )
    if record is None or problems:
        raise JudgingError.collect(problems, f"{path} is no file of a study")
    return record


def _refuse_strangers(key: Key, files: Sequence[AnswerFile], paths: Sequence[Path]) -> None:
    problems: list[JudgingError] = []
    seen: dict[str, Path] = {}
    for file, path in zip(files, paths, strict=True):
        if file.study != key.study:
            problems.append(
                JudgingError(
                    "answers to another study", where=path, expected=key.study, got=file.study
                )
            )
            continue
        unknown = {answer.trial for answer in file.answers} - key.trials.keys()
        if unknown:
            problems.append(JudgingError("answers to unknown trials", where=path, got=len(unknown)))
        if file.participant in seen:
            problems.append(
                JudgingError(
                    "one participant's answers twice",
                    where=path,
                    got=f"the same as {seen[file.participant]}",
                    hint="keep the later file",
                )
            )
        seen[file.participant] = path
    if problems:
        raise JudgingError.collect(problems, "the answers cannot be analysed")
