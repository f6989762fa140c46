"""Which snapshot, at which weight: every pair draws the same seeds, and the best is recommended.

    snapshots x weights -> the same prompts and seeds -> judged -> one score a picture -> the pick

The prompts are neither training's nor `evaluate`'s, so that what is picked may be evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_scene.adapters.attachment import unload_adapter
from lora_scene.creating.requests import Sampling
from lora_scene.creating.studio import Studio, read_cast
from lora_scene.errors import JudgingError
from lora_scene.judging.evaluation import (
    Progress,
    attention_fit,
    check_learnt,
    draw_planned,
    measure_drift,
    refuse_equal_nouns,
    weigh,
)
from lora_scene.judging.judge import Judge
from lora_scene.judging.metrics import mean
from lora_scene.judging.plans import Plan, cells_of, drift_prompts
from lora_scene.judging.scores import Scores
from lora_scene.scenes.framing import frame_scene
from lora_scene.scenes.pictures import Pixels
from lora_scene.scenes.scene import Scene

WEIGHTS = (0.5, 0.7, 0.85, 1.0, 1.1)
PICK_PROMPTS = ("a photo of {} on a stone wall", "a photo of {} next to a window")
MINI_PICK_PROMPTS = ("a photo of {} on a wooden table", "a photo of {} in the sky")
NEIGHBOUR = 0.5  # a neighbouring cell's weight in the mean that a cell is chosen by
N_DRIFT = 4

Grid = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Tried:
    """One snapshot at one weight.

    Attributes:
        step: Of phase 2.
        weight: Of the LoRA.
        scores: (n,) one a picture, 0..1: see `picture_score`; the drift is taken off.
        summary: Metric to its mean; `drift`, `attention_iou` too.
        picture: (H, W, 3) uint8, of all things together at the first seed.
    """

    step: int
    weight: float
    scores: npt.NDArray[np.float64]
    summary: Mapping[str, float | None]
    picture: Pixels

    @property
    def score(self) -> float:
        """Return the mean over its pictures."""
        return float(self.scores.mean())


@dataclass(frozen=True, eq=False)
class Pick:
    """What came of it.

    Attributes:
        tried: Every pair, snapshots in order, weights rising.
        chosen: The recommended one.
        why: Why, in a sentence.
        judge: Its name.
        handles: Of the adapter.
    """

    tried: tuple[Tried, ...]
    chosen: Tried
    why: str
    judge: str
    handles: tuple[str, ...] = field(default=())

    @property
    def steps(self) -> tuple[int, ...]:
        """Return the snapshots' steps, rising."""
        return tuple(dict.fromkeys(one.step for one in self.tried))

    @property
    def weights(self) -> tuple[float, ...]:
        """Return the weights, rising."""
        return tuple(dict.fromkeys(one.weight for one in self.tried))

    @property
    def told(self) -> str:
        """Return what is recommended, and why."""
        return f"step {self.chosen.step} at weight {self.chosen.weight:g}: {self.why}"

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the pictures, as JSON can hold it."""
        cells = [
            {"step": o.step, "weight": o.weight, "score": round(o.score, 4), **o.summary}
            for o in self.tried
        ]
        chosen = {"step": self.chosen.step, "weight": self.chosen.weight}
        return {"judge": self.judge, "chosen": chosen, "why": self.why, "tried": cells}


def usual_plan(judge: str, sampling: Sampling, *, n_seeds: int = 2) -> Plan:
    """Return what each pair draws: each thing alone and, of two and more, pairs and all."""
    prompts = MINI_PICK_PROMPTS if judge == "mini" else PICK_PROMPTS
    seeds = tuple(range(100, 100 + n_seeds))  # not those that `evaluate` draws
    return Plan(prompts, "edges", seeds, sampling, n_drift=N_DRIFT)


def n_drawn(plan: Plan, scene: Scene, *, n_weights: int) -> int:
    """Return how many pictures a snapshot draws; without it those of the drift, once in all."""
    n_drift = len(drift_prompts(plan, scene))
    return n_weights * (len(cells_of(plan, scene)) + n_drift) + n_drift


def pick(
    studio: Studio,
    snapshots: Mapping[int, Path],
    scene: Scene,
    *,
    judge: Judge,
    plan: Plan,
    weights: Sequence[float] = WEIGHTS,
    progress: Progress | None = None,
) -> Pick:
    """Draw the same pictures with every snapshot at every weight, and recommend one pair.

    Args:
        studio: The bare base.
        snapshots: Step to adapter's folder.
        scene: What they learnt.
        judge: What pictures are weighed with.
        plan: What is drawn; its weight is not looked at.
        weights: Of the LoRA.
        progress: Called after every pair.

    Raises:
        JudgingError: No snapshot, no weight, the scene is another one, or two of its things have
            one noun and the judge finds things by nouns.
    """
    if not snapshots or not weights:
        raise JudgingError("nothing to choose from", expected="at least one snapshot and weight")
    refuse_equal_nouns(scene, judge)
    framed = frame_scene(scene, studio.backbone.canvas())
    tried: list[Tried] = []
    n_pairs = len(snapshots) * len(weights)
    for step, folder in sorted(snapshots.items()):
        for one in _try(studio, step, folder, framed, judge, plan, sorted(set(weights))):
            tried.append(one)
            if progress is not None:
                progress(len(tried), n_pairs)
    chosen, why = choose(tried)
    return Pick(tuple(tried), chosen, why, judge.name, scene.handles)


def _try(
    studio: Studio,
    step: int,
    folder: Path,
    framed: Scene,
    judge: Judge,
    plan: Plan,
    weights: Sequence[float],
) -> Iterator[Tried]:
    """Yield a snapshot at each weight; afterwards the base is as it was."""
    cast = read_cast([folder])
    loaded = cast.assembled(studio.pipeline, name=studio.backbone.name)
    try:
        check_learnt(loaded, framed)
        for weight in weights:
            own = replace(plan, weight=weight)
            cells = cells_of(own, framed)
            asked = [cell.asked for cell in cells]
            drawn = list(draw_planned(loaded, asked, own))
            weighed = weigh(cells, drawn, scene=framed, judge=judge)
            drift = measure_drift(loaded, framed, base=None, judge=judge, plan=own) or 0.0
            with loaded.weighted(weight):
                fit = mean(attention_fit(loaded, framed).values())
            summary = {**weighed.summary, "drift": drift, "attention_iou": fit}
            is_told = judge.finder is not None
            scores = [picture_score(one, fit, is_told=is_told) - drift for one in weighed.scores]
            shown = max(range(len(cells)), key=lambda n: len(cells[n].subset))  # of most things
            yield Tried(step, weight, np.array(scores), summary, weighed.pictures[shown])
    finally:
        for adapter in loaded.adapters:
            unload_adapter(studio.pipeline, adapter.name)


def picture_score(one: Scores, fit: float | None, *, is_told: bool) -> float:
    """Return a picture's score: the mean of what can be told of it, each 0..1.

    Identity of the things that it names, likeness to its prompt, attention on the masks, and,
    where a finder tells, whether it shows just what was asked for.
    """
    parts = [mean(one.identity.values()), one.prompt_similarity, fit]
    parts += [float(one.comparison.is_exact)] if is_told else []
    return mean(parts) or 0.0


def choose(tried: Sequence[Tried]) -> tuple[Tried, str]:
    """Return the pair to take, and why.

    A cell is weighed with its neighbours, which draw nearly the same pictures: so many more count.
    It has to beat the last step at weight 1, the usual choice, by more than a standard error of
    their difference, picture by picture; else that is taken.
    """
    steps = sorted({one.step for one in tried})
    weights = sorted({one.weight for one in tried})
    table = {(one.step, one.weight): one for one in tried}
    grid = np.array([[table[s, w].scores for w in weights] for s in steps])  # (S, W, n)
    blurred = _with_neighbours(grid)
    i, j = np.unravel_index(int(blurred.mean(axis=2).argmax()), grid.shape[:2])
    best = table[steps[i], weights[j]]
    usual = (len(steps) - 1, int(np.abs(np.array(weights) - 1.0).argmin()))
    last = table[steps[usual[0]], weights[usual[1]]]
    gains = blurred[i, j] - blurred[usual]
    error = float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else 0.0
    gain = float(gains.mean())
    if best is last:
        return last, f"nothing scores higher than the last step at weight {last.weight:g}"
    if gain <= error:
        return last, (
            f"step {best.step} at weight {best.weight:g} scores only {gain:+.3f} higher, within "
            f"its standard error of {error:.3f}: the last step at weight {last.weight:g} stays"
        )
    return best, (
        f"step {best.step} at weight {best.weight:g} scores {gain:+.3f} (standard error "
        f"{error:.3f}) above the last step at weight {last.weight:g}: {_told(best, last)}"
    )


def _with_neighbours(grid: Grid) -> Grid:
    """Return each cell's scores (S, W, n) averaged with those of the cells beside it."""
    total, weight = grid.copy(), np.ones(grid.shape[:2])
    for axis in (0, 1):
        for shift in (-1, 1):
            moved, counted = np.roll(grid, shift, axis), np.ones(grid.shape[:2])
            edge = 0 if shift == 1 else -1
            index: list[Any] = [slice(None)] * 2
            index[axis] = edge
            moved[tuple(index)], counted[tuple(index)] = 0, 0
            total, weight = total + NEIGHBOUR * moved, weight + NEIGHBOUR * counted
    mixed: Grid = total / weight[..., None]
    return mixed


def _told(best: Tried, last: Tried) -> str:
    """Return in words what two pairs differ in, as far as it is measured."""
    words = []
    names = {"identity": "identity", "prompt_similarity": "prompt", "drift": "drift"}
    for key, name in names.items():
        ours, theirs = best.summary.get(key), last.summary.get(key)
        if ours is not None and theirs is not None:
            words.append(f"{name} {ours:.2f} against {theirs:.2f}")
    return ", ".join(words)
