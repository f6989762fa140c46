"""What is drawn to judge an adapter: prompts, subsets of its handles, seeds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice, pairwise, product
from typing import TYPE_CHECKING, Literal

from lora_scene.creating.requests import Request, Sampling
from lora_scene.errors import JudgingError
from lora_scene.recipe.templates import fill, is_template
from lora_scene.scenes.scene import Scene
from lora_scene.scenes.union import prompt_for

if TYPE_CHECKING:
    from lora_scene.judging.kept_pictures import KeptPictures

Subsets = Literal["singles", "powerset", "edges"]

PAPER_PROMPTS = (
    "a photo of {} at the beach",
    "a photo of {} in the jungle",
    "a photo of {} in the snow",
    "a photo of {} in the street",
    "a photo of {} on top of a pink fabric",
    "a photo of {} on top of a wooden floor",
    "a photo of {} with a city in the background",
    "a photo of {} with a mountain in the background",
    "a photo of {} with the Eiffel tower in the background",
    "a photo of {} floating on top of water",
)
"""The paper's ten (Break-A-Scene, supplement)."""

MINI_PROMPTS = (
    "a photo of {} on grass",
    "a photo of {} on sand",
    "a photo of {} in the snow",
    "a photo of {} on water",
    "a photo of {} at night",
    "a photo of {} by a brick wall",
)
"""Places of the mini world, as its base's captions call them."""

MAX_POWERSET = 4  # concepts; above, `edges` are taken: 2^K pictures a prompt would be too many


def usual_prompts(judge: str) -> tuple[str, ...]:
    """Return the prompts that go with a judge."""
    return MINI_PROMPTS if judge == "mini" else PAPER_PROMPTS


@dataclass(frozen=True)
class Plan:
    """What is drawn to judge an adapter.

    Attributes:
        prompts: Templates with one {} for the handles; none of them was trained on.
        subsets: `singles`, `powerset`, or `edges`: each handle alone, neighbouring pairs, all.
        seeds: Of each prompt and subset.
        sampling: Solver, steps, guidance.
        weight: Factor of the adapter's weights.
        n_drift: Prompts without handles that are drawn with and without the adapter, at most.
        batch_size: Pictures drawn at once.
        kept: What holds the pictures until there is a result; None holds none.
    """

    prompts: tuple[str, ...] = MINI_PROMPTS
    subsets: Subsets = "powerset"
    seeds: tuple[int, ...] = (0, 1)
    sampling: Sampling = field(default_factory=Sampling)
    weight: float = 1.0
    n_drift: int = 8
    batch_size: int = 8
    kept: KeptPictures | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        wrong = [prompt for prompt in self.prompts if not is_template(prompt)]
        if wrong or not self.prompts or not self.seeds:
            raise JudgingError(
                "nothing to draw can be made of this plan",
                expected="at least one seed, and prompts with one {} each and no other brace",
                got=", ".join(map(repr, wrong)) or "no prompts or no seeds",
            )
        given = Counter((*self.prompts, *self.seeds))
        if doubled := [repr(one) for one, times in given.items() if times > 1]:
            raise JudgingError(
                "the same pictures would be drawn twice, and count as different ones",
                expected="each prompt and seed once",
                got=", ".join(doubled),
            )


@dataclass(frozen=True)
class Cell:
    """One picture of a plan.

    Attributes:
        subset: The concepts that it names, indices.
        asked: The prompt with handles, and the seed.
        plain: The prompt with class nouns.
    """

    subset: tuple[int, ...]
    asked: Request
    plain: str


def cells_of(plan: Plan, scene: Scene) -> list[Cell]:
    """Return every picture of a plan: prompts times subsets times seeds."""
    cells = []
    for template in plan.prompts:
        for subset in subsets_of(scene.things, plan.subsets):
            prompt = prompt_for([scene.handles[k] for k in subset], None, template)
            plain = prompt_for([scene.nouns[k] for k in subset], None, template)
            cells += [
                Cell(subset, Request(prompt, seed, weight=plan.weight), plain)
                for seed in plan.seeds
            ]
    return cells


def subsets_of(things: Sequence[int], kind: Subsets) -> list[tuple[int, ...]]:
    """Return the subsets of concepts that prompts name, small ones first."""
    singles: list[tuple[int, ...]] = [(k,) for k in things]
    if kind == "singles" or len(things) < 2:
        return singles
    if kind == "powerset" and len(things) <= MAX_POWERSET:
        return [s for n in range(1, len(things) + 1) for s in combinations(things, n)]
    pairs = list(pairwise(things))
    whole = [tuple(things)] if len(things) > 2 else []
    return [*singles, *pairs, *whole]


def drift_prompts(plan: Plan, scene: Scene) -> list[Request]:
    """Return prompts with class nouns alone, one seed each, spread over templates and nouns.

    As many as the plan wants, or as there are; none twice.
    """
    nouns = [scene.nouns[k] for k in scene.things]
    sizes = len(plan.prompts), len(nouns), len(plan.seeds)
    around = range(math.lcm(*sizes))  # after so many, a walk through all three is where it began
    places = (
        (i % sizes[0], (i + j) % sizes[1], (i + k) % sizes[2])
        for j, k, i in product(range(sizes[1]), range(sizes[2]), around)
    )
    asked = dict.fromkeys((fill(plan.prompts[p], nouns[n]), plan.seeds[s]) for p, n, s in places)
    return [Request(*one, weight=plan.weight) for one in islice(asked, plan.n_drift)]
