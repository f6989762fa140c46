"""Protocols: what a benchmark runs, from TOML files; every mistake is reported at once.

    name = "mini"
    base = "mini"                    every method's base
    judge = "mini"                   or clip+dino
    image_forwards = 1600            of each training, whatever the method
    reference = "full"               paired differences are taken against it
    [scenes]
    headline = ["scenes/t*"]         groups of scene folders, beside this file
    [drawing]
    prompts = ["a photo of {} on grass"]
    [curve]
    weights = [0.0, 0.5, 1.2]        of the adapter, besides 1
    [[methods]]
    name = "ours"
    recipe = "recipes/ours.toml"     beside this file, or the name of a shipped recipe
    scenes = ["headline"]
    seeds = [0, 1, 2]

Paths are relative to the file.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from lora_scene.creating.limits import MAX_GUIDANCE, MAX_STEPS
from lora_scene.creating.requests import Sampling
from lora_scene.documents import parse_toml, read_text
from lora_scene.errors import JudgingError, LoraSceneError
from lora_scene.forms import between, build
from lora_scene.judging.plans import MINI_PROMPTS, Plan, Subsets
from lora_scene.workshop.soundness import idle_keys, mismatches, undrawable

Kind = Literal["recipe", "separate", "guided"]


@dataclass(frozen=True)
class Drawing:
    """What is drawn with every trained method.

    Attributes:
        prompts: Templates with {}; held out from training and from any prior.
        subsets: See `plans.Plan`.
        seeds: Of each prompt and subset.
        steps: Of the solver.
        guidance: Classifier-free guidance.
        scheduler: The solver; `base` takes the base's own.
        n_drift: Prompts without handles.
        batch: Pictures drawn at once.
    """

    prompts: tuple[str, ...] = MINI_PROMPTS
    subsets: Subsets = "edges"
    seeds: tuple[int, ...] = (0, 1)
    steps: int = between(25, 1, MAX_STEPS)
    guidance: float = between(7.5, 0.0, MAX_GUIDANCE)
    scheduler: str = "base"
    n_drift: int = between(8, 0)
    batch: int = between(8, 1)


@dataclass(frozen=True)
class Course:
    """The course over the adapter's weight, drawn with a part of the prompts.

    Attributes:
        weights: Besides 1.
        n_prompts: The first so many prompts.
        seeds: Of the pictures.
        train_seeds: Trainings whose course is drawn.
    """

    weights: tuple[float, ...] = ()
    n_prompts: int = between(2, 1)
    seeds: tuple[int, ...] = (0,)
    train_seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Method:
    """A way to draw a scene's concepts.

    Attributes:
        name: In tables.
        kind: `recipe` trains once; `separate` trains each concept alone and loads all adapters
            together; `guided` trains nothing and leads the base by CLIP towards the concepts.
        recipe: A shipped recipe's name, or a TOML file.
        overrides: `section.key=value` each.
        scenes: Names of groups.
        seeds: Of training; of nothing for `guided`.
        image_forwards: 0 takes the protocol's.
        course_of: The method of which this is a shorter training; the report joins them by a line.
        guide_scale: Strength of `guided`.
        batch: Pictures that `guided` draws at once, which takes much memory; 0: the drawing's.
    """

    name: str
    kind: Kind = "recipe"
    recipe: str = ""
    overrides: tuple[str, ...] = ()
    scenes: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    image_forwards: int = between(0, 0)
    course_of: str = ""
    guide_scale: float = between(0.1, 0.0)
    batch: int = between(0, 0)


@dataclass(frozen=True)
class Protocol:
    """What a benchmark runs."""

    name: str
    base: str
    judge: str = "mini"
    clip: str = ""
    dino: str = ""
    finder: str = "attention"
    image_forwards: int = between(1600, 1)
    reference: str = ""
    note: str = ""
    scenes: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    drawing: Drawing = Drawing()
    curve: Course = Course()
    methods: tuple[Method, ...] = ()
    folder: Path = Path()

    @property
    def plan(self) -> Plan:
        """Return what is drawn at weight 1."""
        drawing = self.drawing
        return Plan(
            prompts=drawing.prompts,
            subsets=drawing.subsets,
            seeds=drawing.seeds,
            sampling=Sampling(drawing.steps, drawing.guidance, drawing.scheduler),
            n_drift=drawing.n_drift,
            batch_size=drawing.batch,
        )

    def curve_plan(self, weight: float) -> Plan:
        """Return what is drawn at another weight."""
        prompts = self.drawing.prompts[: self.curve.n_prompts]
        return replace(self.plan, prompts=prompts, seeds=self.curve.seeds, weight=weight, n_drift=0)

    def runs(self) -> Iterator[Attempt]:
        """Yield every run, the methods interleaved, so that any part of them is a fair sample."""
        found = [
            Attempt(method, group, scene, seed)
            for method in self.methods
            for group in method.scenes
            for scene in self.scenes[group]
            for seed in method.seeds
        ]
        order = {method.name: i for i, method in enumerate(self.methods)}
        yield from sorted(
            found, key=lambda run: (run.seed, run.group, str(run.scene), order[run.method.name])
        )


@dataclass(frozen=True)
class Attempt:
    """One method on one scene with one training seed."""

    method: Method
    group: str
    scene: Path
    seed: int

    @property
    def key(self) -> str:
        """Return its folder's name, unique in the protocol."""
        return f"{self.method.name}/{self.group}-{self.scene.name}-s{self.seed}"


def read_protocol(path: Path) -> Protocol:
    """Read a protocol.

    Raises:
        JudgingError: Everything that is wrong with it, collected.
    """
    table = parse_toml(read_text(path, JudgingError), path, JudgingError)
    problems: list[LoraSceneError] = []
    read = build(Protocol, table, problems, error=JudgingError, omit=("folder",), is_toml=True)
    if read is not None:
        scenes = _scenes(read.scenes, path.parent, problems)
        read = replace(read, scenes=scenes, folder=path.parent)
        problems += [] if problems else [*mismatches(read), *undrawable(read), *idle_keys(table)]
    if problems or read is None:
        raise JudgingError.collect(problems, f"protocol {path}")
    keys = [run.key for run in read.runs()]
    doubled = [key for key in dict.fromkeys(keys) if keys.count(key) > 1]
    if doubled:
        where, hint = f"protocol {path}", "call groups or scenes otherwise"
        raise JudgingError("two runs would share a folder", where=where, got=doubled[0], hint=hint)
    return read


def chosen_runs(protocol: Protocol, part: tuple[int, int]) -> list[Attempt]:
    """Return every n-th run of a protocol from the i-th on, `part` being (i, n), 1-based.

    Raises:
        JudgingError: There is no such part.
    """
    number, n_parts = part
    if not 1 <= number <= n_parts:
        raise JudgingError("no such part", where="part", expected="i/n, i from 1 to n", got=part)
    return list(protocol.runs())[number - 1 :: n_parts]


def _scenes(
    groups: Mapping[str, tuple[Path, ...]], folder: Path, problems: list[LoraSceneError]
) -> dict[str, tuple[Path, ...]]:
    """Return the folders that each group's patterns name, relative to `folder` or absolute."""
    scenes: dict[str, tuple[Path, ...]] = {}
    for name, patterns in groups.items():
        for one in patterns:
            named = [folder / found for found in glob.glob(str(one), root_dir=folder)]
            paths = sorted(found for found in named if found.is_dir())
            scenes[name] = (*scenes.get(name, ()), *paths)
            if not paths:
                where, got = f"scenes.{name}", folder / one
                problems.append(JudgingError("no such scene folder", where=where, got=got))
    return scenes
