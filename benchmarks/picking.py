"""Is what `pick` takes better than the last step at weight 1, and does patience cost anything?

    python -m benchmarks.picking t01-2 t02-2 --out picking.jsonl     # a row each
    python -m benchmarks.picking --table picking.jsonl...

Each scene is learnt once by the recipe `mini`. `pick` chooses with its own prompts; then every
pair is judged on the prompts of `evaluate`, which it has not seen. A run that ends early is the
snapshot of the step at which its patience ran out: steps are the same until then.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.records import circumstances, write
from lora_scene.creating.requests import Sampling
from lora_scene.creating.studio import open_studio
from lora_scene.judging.judge import load_judge
from lora_scene.judging.picking import Tried, pick, usual_plan
from lora_scene.judging.plans import MINI_PROMPTS
from lora_scene.learning.patience import is_idle
from lora_scene.learning.run_lines import RunLines
from lora_scene.learning.run_record import snapshots_of
from lora_scene.learning.runs import HELD
from lora_scene.learning.training import train
from lora_scene.recipe import load_recipe
from lora_scene.scenes.scene import load_scene
from lora_scene.workshop.statistics import interval

SCENES = Path(__file__).parent / "scenes"
WEIGHTS = (0.7, 0.85, 1.0, 1.1)
STRIDE = 50  # steps between snapshots, and between looks
SHOWN = (300, 500, 700, 900)  # snapshots that are chosen between; all serve the early stop
PATIENCE = (100, 200, 400)
N_STEPS = 10  # of the solver, while choosing and while judging


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Train, pick and judge a scene; return its row."""
    scene = load_scene(SCENES / name)
    n = SHOWN[-1] // STRIDE
    recipe = load_recipe("mini", [f"run.snapshots={n}", f"run.watch={n}"])
    result = train(scene, recipe, out=folder, device="cpu")
    studio, judge = open_studio([], base="mini", device="cpu"), load_judge("mini")
    sampling = Sampling(N_STEPS, studio.backbone.usual_guidance)
    kept = snapshots_of(folder)
    plan = usual_plan(judge.name, sampling)
    few = {step: kept[step] for step in SHOWN}
    found = pick(studio, few, scene, judge=judge, plan=plan, weights=WEIGHTS)
    unseen = replace(plan, prompts=MINI_PROMPTS[:4], seeds=(0,))
    judged = pick(studio, few, scene, judge=judge, plan=unseen, weights=WEIGHTS)
    stops = {str(p): stop_of(folder, p) for p in PATIENCE}
    asked = {step: kept[step] for step in stops.values() if step not in SHOWN}
    early = (
        pick(studio, asked, scene, judge=judge, plan=unseen, weights=(1.0,)).tried if asked else ()
    )
    return {
        "scene": name,
        "seconds": round(result.seconds, 1),
        "chosen": [found.chosen.step, found.chosen.weight],
        "why": found.why,
        "stops": stops,
        "cells": [_cell(one) for one in (*judged.tried, *early)],
        "picking": [_cell(one) for one in found.tried],
        **circumstances("cpu"),
    }


def stop_of(folder: Path, patience: int) -> int:
    """Return the step of phase 2 after which a run with this patience would have ended."""
    lines = [line for line in RunLines(folder / HELD).lines() if line["phase"] == 2]
    for n in range(1, len(lines) + 1):
        if is_idle(lines[:n], patience):
            return int(lines[n - 1]["step"])
    return SHOWN[-1]


def _cell(one: Tried) -> dict[str, Any]:
    figures = {k: None if v is None else round(float(v), 4) for k, v in one.summary.items()}
    return {"step": one.step, "weight": one.weight, "score": round(one.score, 4), **figures}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what the rows say: means over scenes and their paired 95 % intervals."""
    gains, gaps, lasts, bests = [], [], [], []
    for row in rows:
        cells = {(c["step"], c["weight"]): c["score"] for c in row["cells"]}
        shown = [s for (step, _), s in cells.items() if step in SHOWN]
        last, best, own = cells[SHOWN[-1], 1.0], max(shown), cells[tuple(row["chosen"])]
        gains.append(own - last)
        gaps.append(best - own)
        lasts.append(last)
        bests.append(best - last)
    lines = [f"{len(rows)} scenes; last step at weight 1: {np.mean(lasts):.3f}"]
    lines.append(f"pick minus last: {told(gains)}; chosen: {[row['chosen'] for row in rows]}")
    lines.append(f"best cell minus pick: {told(gaps)}; best cell minus last: {told(bests)}")
    for p in map(str, PATIENCE):
        differences, steps = [], []
        for row in rows:
            cells = {(c["step"], c["weight"]): c["score"] for c in row["cells"]}
            differences.append(cells[row["stops"][p], 1.0] - cells[SHOWN[-1], 1.0])
            steps.append(row["stops"][p])
        lines.append(f"patience {p}: ends at {steps}, minus last: {told(differences)}")
    return "\n".join(lines)


def told(values: Sequence[float]) -> str:
    """Return a mean and its interval in words."""
    found = interval(values)
    assert found is not None
    return f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def main() -> None:
    """Measure scenes, or print the table of what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", nargs="*")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path, nargs="+")
    options = parser.parse_args()
    for name in options.scenes:
        with tempfile.TemporaryDirectory() as folder:
            write(measure(name, Path(folder) / "run"), options.out)
    if options.table:
        lines = [x for path in options.table for x in path.read_text("utf-8").splitlines()]
        print(table([json.loads(line) for line in lines]))


if __name__ == "__main__":
    main()
