from __future__ import annotations

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


def test_a_template_needs_a_place_for_the_handles() -> None:
    with pytest.raises(JudgingError, match="on grass"):
        Plan(prompts=("on grass",))


def test_each_judge_has_prompts_of_its_world() -> None:
    assert all(prompt.count("{}") == 1 for prompt in usual_prompts("mini"))
    assert len(usual_prompts("clip+dino")) == 10
