from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lora_scene.errors import JudgingError
from lora_scene.judging.plans import Plan, cells_of, drift_prompts, subsets_of, usual_prompts
from tests.judging import fakes


def test_the_powerset_of_three_has_seven_prompts() -> None:
    assert len(subsets_of((0, 1, 2), "powerset")) == 7


def test_above_four_concepts_the_powerset_is_thinned_to_its_edges() -> None:
    subsets = subsets_of(range(6), "powerset")
    assert len(subsets) == 6 + 5 + 1
    assert subsets[-1] == (0, 1, 2, 3, 4, 5)


def test_two_concepts_have_one_pair_and_no_second_whole() -> None:
    assert subsets_of((0, 2), "edges") == [(0,), (2,), (0, 2)]


def test_cells_name_handles_to_the_base_and_nouns_to_the_judge() -> None:
    cells = cells_of(Plan(prompts=("{} on grass",), seeds=(5,)), fakes.scene())
    assert cells[-1].asked.prompt == "<bear> and <bowl> on grass"
    assert cells[-1].plain == "bear and bowl on grass"
    assert cells[-1].asked.seed == 5


def test_drift_prompts_hold_no_handles() -> None:
    asked = drift_prompts(Plan(n_drift=3), fakes.scene())
    assert len(asked) == 3
    assert not any("<" in one.prompt for one in asked)
    assert [one.seed for one in asked] == [0, 1, 0]


@pytest.mark.parametrize(("n_prompts", "n_seeds"), [(6, 2), (2, 2), (3, 1), (1, 1)])
def test_drift_draws_nothing_twice_and_all_there_is_before_it_draws_less(
    n_prompts: int, n_seeds: int
) -> None:
    """Of two nouns, six prompts and two seeds it drew two of eight pictures twice."""
    prompts = tuple(f"{{}} on ground {n}" for n in range(n_prompts))
    plan, scene = Plan(prompts, seeds=tuple(range(n_seeds)), n_drift=1000), fakes.scene()
    every = {(p.replace("{}", n), s) for p in prompts for n in scene.nouns for s in plan.seeds}
    asked = [(one.prompt, one.seed) for one in drift_prompts(plan, scene)]
    assert len(asked) == len(set(asked))
    assert set(asked) == every
    few = drift_prompts(replace(plan, n_drift=2), scene)
    assert len({one.prompt.split()[0] for one in few}) == 2, "of both nouns"


@pytest.mark.parametrize("template", ["grass", "{} and {}", "a {{}}", "a {} on {ground}"])
def test_a_prompt_without_one_place_for_the_handles_is_refused(template: str) -> None:
    with pytest.raises(JudgingError, match=r"one \{\} each"):
        Plan((template,))


@pytest.mark.parametrize("twice", [{"prompts": ("a {}", "a {}")}, {"seeds": (3, 1, 3)}])
def test_the_same_pictures_twice_are_refused(twice: dict[str, Any]) -> None:
    """Diversity took equal pictures for those of two seeds."""
    with pytest.raises(JudgingError, match=r"(?s)each prompt and seed once.*(a \{\}|3)"):
        Plan(**twice)


def test_a_template_needs_a_place_for_the_handles() -> None:
    with pytest.raises(JudgingError, match="on grass"):
        Plan(prompts=("on grass",))


def test_each_judge_has_prompts_of_its_world() -> None:
    assert all(prompt.count("{}") == 1 for prompt in usual_prompts("mini"))
    assert len(usual_prompts("clip+dino")) == 10
