"""Measure how far the judge tells drawings apart, as `evaluate` uses it.

    python -m benchmarks.mini_world.likeness --judge DIR --cache DIR

Prints the cosines of found and cut-out things with a drawing of the held-out style: for the same
drawing in another scene, for another style's drawing of the same noun, for other nouns. The
floor from which two things count as the same (`judge.MINI_FLOOR`) should lie between the first two.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.mini_world.backgrounds import BACKGROUNDS
from benchmarks.mini_world.compose import Composition, Sprites, compose
from benchmarks.mini_world.drawings import HELD_OUT_STYLE, load_drawings
from benchmarks.mini_world.nouns import noun_set, noun_sets
from lora_scene.judging.finding import cut_out
from lora_scene.judging.judge import MINI_FLOOR
from lora_scene.judging.mini import MiniJudge
from lora_scene.scenes.scene import Concept

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def looks(judge: MiniJudge, scenes: Sequence[Composition]) -> NDArray[np.float32]:
    """Return (n, d) unit rows: the largest thing that is found in each scene of one thing."""
    cuts = []
    for scene in scenes:
        found = judge.find(scene.picture, [Concept("<thing>", scene.nouns[0])])
        region = max((one.region for one in found), key=lambda one: one.sum(), default=None)
        cuts.append(cut_out(scene.picture, scene.masks[0] if region is None else region))
    return judge.embed_pictures(cuts)


def main() -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judge", type=Path, required=True, help="judge folder")
    parser.add_argument("--cache", type=Path, required=True, help="folder of the drawings")
    parser.add_argument("--nouns", choices=noun_sets(), default="mini16")
    parser.add_argument("--n", type=int, default=8, help="scenes a noun")
    options = parser.parse_args()
    judge, drawings = MiniJudge(options.judge), load_drawings(options.cache)
    nouns = noun_set(options.nouns)
    own, other = Sprites(drawings, nouns, [HELD_OUT_STYLE]), Sprites(drawings, nouns)
    rng = np.random.default_rng(12)
    names = list(BACKGROUNDS)

    def draw(sprites: Sprites, noun: str, n: int) -> NDArray[np.float32]:
        grounds = [names[i] for i in rng.integers(len(names), size=n)]
        return looks(judge, [compose(sprites, [noun], ground, rng) for ground in grounds])

    learnt = {noun: draw(own, noun, options.n) for noun in own.nouns}
    fresh = {noun: draw(own, noun, options.n) for noun in own.nouns}
    styles = {noun: draw(other, noun, options.n) for noun in own.nouns}
    kinds = {
        "same drawing": [learnt[n] @ fresh[n].T for n in learnt],
        "same noun, other style": [learnt[n] @ styles[n].T for n in learnt],
        "other noun": [learnt[n] @ fresh[m].T for n in learnt for m in learnt if n != m],
    }
    for kind, tables in kinds.items():
        cosines = np.concatenate([table.ravel() for table in tables])
        quantiles = {q: round(float(np.quantile(cosines, q)), 2) for q in QUANTILES}
        share = round(float((cosines >= MINI_FLOOR).mean()), 3)
        print(json.dumps({"kind": kind, "quantiles": quantiles, "above_floor": share}))


if __name__ == "__main__":
    main()
