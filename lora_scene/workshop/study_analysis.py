"""What a study says: means, deviations, tests, agreement, and whether it is enough to conclude.

After Break-A-Scene's study: ratings from 1 to 5, Kruskal-Wallis, then Tukey's HSD. A
participant's ratings are not independent of each other, so the tests see one mean per participant
and method. Every participant rates every method, so what a method is told apart by are differences
within participants: Friedman's test, and Tukey's HSD with participants as blocks. Kruskal-Wallis,
which takes the methods' ratings for those of different people, stands beside as the paper has it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_scene.errors import JudgingError
from lora_scene.extras import optional
from lora_scene.workshop.study_answers import (
    Rating,
    is_careful,
    is_checked,
    ratings_of,
    read_answers,
)

QUESTIONS = ("identity", "prompt")
MIN_PARTICIPANTS = 10  # below, no test is made
MIN_RATINGS = 30  # of each method and question
SIGNIFICANT = 0.05


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
        unchecked: Participants who count and answered no check.
        shortcomings: Why nothing can be concluded; empty if something can.
    """

    questions: tuple[QuestionResult, ...]
    n_participants: int
    excluded: tuple[str, ...]
    unchecked: tuple[str, ...]
    shortcomings: tuple[str, ...]


def analyse_study(key: Path, answers: Sequence[Path]) -> StudyResult:
    """Analyse the answers of a study.

    Args:
        key: The study's key.json.
        answers: The participants' files.

    Raises:
        JudgingError: See `read_answers`; or scipy is not installed.
    """
    _stats()
    meaning, files = read_answers(key, answers)
    trials = meaning.trials
    excluded = tuple(f.participant for f in files if not is_careful(f.answers, trials))
    kept = [file for file in files if file.participant not in excluded]
    ratings = {question: ratings_of(kept, trials, question) for question in QUESTIONS}
    short = tuple(_shortcomings(ratings, meaning.methods, len(kept)))
    questions = tuple(
        judge_question(question, given, has_tests=not short) for question, given in ratings.items()
    )
    unchecked = tuple(f.participant for f in kept if not is_checked(f.answers, trials))
    return StudyResult(questions, len(kept), excluded, unchecked, short)


def judge_question(
    question: str, ratings: Sequence[Rating], *, has_tests: bool = True
) -> QuestionResult:
    """Summarise one question's ratings, and test them if that is allowed."""
    by_method: defaultdict[str, list[float]] = defaultdict(list)
    units: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for one in sorted(ratings, key=lambda one: one.method):
        by_method[one.method].append(one.value)
        units[one.item, one.method].append(one.value)
    scores = [_score(method, values) for method, values in by_method.items()]
    friedman_p, kruskal_p = None, None
    pairs: tuple[Pair, ...] = ()
    table = _means(list(by_method), ratings)
    if has_tests and min(table.shape) > 1 and table.min() < table.max():
        kruskal_p = float(_stats().kruskal(*table.T).pvalue)
        if len(scores) > 2:
            friedman_p = float(_stats().friedmanchisquare(*table.T).pvalue)
        pairs = _blocked_tukey(list(by_method), table)
    return QuestionResult(
        question,
        tuple(sorted(scores, key=lambda one: -one.mean)),
        krippendorff_alpha(list(units.values())),
        friedman_p,
        kruskal_p,
        pairs,
    )


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
    given: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in ratings:
        given[one.participant][one.method].append(one.value)
    whole = [own for own in given.values() if len(own) == len(methods)]
    means = [[float(np.mean(own[method])) for method in methods] for own in whole]
    return np.array(means).reshape(len(whole), len(methods))


def _stats() -> Any:
    return optional("scipy.stats", error=JudgingError, where="tests of significance")


def _score(method: str, values: Sequence[float]) -> MethodScore:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return MethodScore(method, float(np.mean(values)), deviation, len(values))


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
        low, high = difference - reach, difference + reach
        pairs.append(Pair(methods[i], methods[j], difference, low, high, p))
    return tuple(pairs)


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
