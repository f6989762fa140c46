from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from lora_scene.errors import JudgingError
from lora_scene.workshop.study_analysis import analyse_study, judge_question, krippendorff_alpha
from lora_scene.workshop.study_answers import Rating

METHODS = ("full", "naive", "ours")
N_ITEMS = 5
BETTER = {"ours": 1.0, "full": 1.0, "naive": -1.0}


def write_key(folder: Path) -> Path:
    trials = {
        f"{method}{i}": {"method": method, "scene": "s", "prompt": f"p{i}", "seed": 0}
        for method in METHODS
        for i in range(N_ITEMS)
    }
    trials |= {"c0": {"check": "own", "scene": "s"}, "c1": {"check": "other", "scene": "s"}}
    path = folder / "key.json"
    path.write_text(json.dumps({"study": "x", "methods": METHODS, "trials": trials}))
    return path


def write_answers(folder: Path, name: str, *, seed: int = 0, careful: bool = True) -> Path:
    rng = np.random.default_rng(seed)
    answers = []
    for method in METHODS:
        for i in range(N_ITEMS):
            values = np.clip(np.round(3 + BETTER[method] + rng.normal(0, 0.7, 2)), 1, 5)
            identity, prompt = map(int, values)
            answers.append({"trial": f"{method}{i}", "identity": identity, "prompt": prompt})
    answers.append({"trial": "c0", "identity": 5 if careful else 1, "prompt": 3})
    answers.append({"trial": "c1", "identity": 1 if careful else 5, "prompt": 3})
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"study": "x", "participant": name, "answers": answers}))
    return path


@pytest.fixture
def crowd(tmp_path):
    return [write_answers(tmp_path, f"p{n}", seed=n) for n in range(12)]


def test_a_clear_difference_is_found_and_a_small_one_is_not_claimed(crowd, tmp_path) -> None:
    result = analyse_study(write_key(tmp_path), crowd)
    identity, _ = result.questions
    assert result.shortcomings == ()
    assert result.n_participants == 12
    assert [score.method for score in identity.scores][-1] == "naive"
    assert identity.kruskal_p < 0.001
    verdicts = {(pair.first, pair.second): pair.is_significant for pair in identity.pairs}
    expected = {("full", "naive"): True, ("naive", "ours"): True, ("full", "ours"): False}
    assert verdicts == expected


def test_means_and_tests_are_those_of_the_plain_formulas() -> None:
    table = {"a": [1, 2, 4], "b": [3, 5, 5]}
    ratings = [
        Rating(f"p{i}", method, "item", value)
        for method, values in table.items()
        for i, value in enumerate(values)
    ]
    result = judge_question("identity", ratings)
    best = result.scores[0]
    assert (best.method, best.mean) == ("b", 13 / 3)
    assert best.deviation == pytest.approx(np.std(table["b"], ddof=1))
    assert result.kruskal_p == pytest.approx(stats.kruskal(*table.values()).pvalue)
    [pair] = result.pairs
    assert pair.difference == pytest.approx(7 / 3 - 13 / 3)
    paired = stats.ttest_rel(*table.values())
    assert pair.p == pytest.approx(paired.pvalue, rel=1e-3)
    bounds = paired.confidence_interval()
    assert (pair.low, pair.high) == pytest.approx((bounds.low, bounds.high), rel=1e-3)


def test_a_small_difference_is_found_among_people_of_different_levels() -> None:
    rng = np.random.default_rng(0)
    ratings = []
    for person in range(12):
        level = rng.normal(3, 1)
        for method, shift in (("a", 0.0), ("b", 0.2), ("c", 0.4)):
            value = level + shift + rng.normal(0, 0.2)
            ratings.append(Rating(f"p{person}", method, "item", value))
    result = judge_question("identity", ratings)
    table = [[r.value for r in ratings if r.method == m] for m in "abc"]
    assert result.friedman_p == pytest.approx(stats.friedmanchisquare(*table).pvalue)
    assert result.friedman_p < 0.01 < 0.2 < result.kruskal_p
    verdicts = {(pair.first, pair.second): pair.is_significant for pair in result.pairs}
    assert verdicts[("a", "c")]


def test_who_rated_only_some_methods_is_left_out_of_the_tests() -> None:
    whole = [Rating(f"p{i}", m, "x", v) for i in range(4) for m, v in (("a", i % 3), ("b", 2))]
    more = [*whole, Rating("late", "a", "x", 5)]
    one, other = (judge_question("prompt", given) for given in (whole, more))
    assert one.pairs == other.pairs


def test_alpha_is_that_of_krippendorffs_own_example() -> None:
    raters = (
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    )
    units = [[v for v in unit if v is not None] for unit in zip(*raters, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.849, abs=5e-4)
    assert krippendorff_alpha([[1], [2]]) is None
    assert krippendorff_alpha([[1, 1], [3, 3]]) == pytest.approx(1)


def test_too_few_answers_give_means_and_no_conclusion(crowd, tmp_path) -> None:
    result = analyse_study(write_key(tmp_path), crowd[:3])
    assert "3 participants count, at least 10" in result.shortcomings[0]
    assert any("15 ratings, at least 30" in one for one in result.shortcomings)
    for question in result.questions:
        assert question.kruskal_p is None
        assert question.pairs == ()
        assert len(question.scores) == 3


def test_who_fails_the_checks_does_not_count(crowd, tmp_path) -> None:
    careless = write_answers(tmp_path, "careless", careful=False)
    result = analyse_study(write_key(tmp_path), [*crowd, careless])
    assert result.excluded == ("careless",)
    assert result.n_participants == 12


def test_who_answered_no_check_counts_and_is_named(crowd, tmp_path) -> None:
    told = json.loads(crowd[0].read_text())
    answers = [one for one in told["answers"] if one["trial"] not in ("c0", "c1")]
    crowd[0].write_text(json.dumps({**told, "answers": answers}))
    result = analyse_study(write_key(tmp_path), crowd)
    assert (result.n_participants, result.unchecked) == (12, ("p0",))


def test_strange_files_are_refused_all_at_once(crowd, tmp_path) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"study": "y", "participant": "q", "answers": []}))
    with pytest.raises(JudgingError, match="2 problems") as caught:
        analyse_study(write_key(tmp_path), [crowd[0], crowd[0], other])
    assert "twice" in str(caught.value)
    assert "another study" in str(caught.value)


def test_a_picture_that_one_participant_answers_twice_counts_for_no_two(crowd, tmp_path) -> None:
    told = json.loads(crowd[0].read_text())
    crowd[0].write_text(json.dumps({**told, "answers": [*told["answers"], *told["answers"][:2]]}))
    with pytest.raises(JudgingError, match=r"more than one answer[\s\S]*2 too many"):
        analyse_study(write_key(tmp_path), crowd)


@pytest.mark.parametrize("text", ["no json", "[1]", "{}"])
def test_a_file_that_is_no_answer_is_refused(tmp_path, text) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(JudgingError, match=r"not valid JSON|expected a section|study: missing"):
        analyse_study(write_key(tmp_path), [tmp_path / "a.json"])


def test_equal_ratings_are_not_tested() -> None:
    ratings = [Rating("p", method, "i", 3) for method in ("a", "b")]
    result = judge_question("prompt", ratings)
    assert result.kruskal_p is None
    assert result.agreement is None
