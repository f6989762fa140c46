"""How often the base itself shows each noun once, by the number of nouns in its prompt.

    python -m benchmarks.layouts [--out FILE]
    python -m benchmarks.layouts --rows benchmarks/results/mini.jsonl --method ours [--out FILE]

The pictures of the protocol `mini` on its twelve test scenes, with class nouns in the handles'
place: every thing alone, in pairs and all of them, three places, two seeds. What counts is that the
judge finds each named noun once, whatever it looks like, and none of the scene's others: whoever
learns looks on this base, and leaves its layouts alone, draws no more exact sets than that. Of a
method's rows the same is counted from the marks that they keep, and the exact sets beside it.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.records import circumstances, write
from lora_scene.creating.rendering import checked, render
from lora_scene.creating.requests import Request, Sampling
from lora_scene.creating.studio import Studio, open_studio
from lora_scene.judging.finding import Finder
from lora_scene.judging.judge import load_judge
from lora_scene.judging.plans import Plan, cells_of
from lora_scene.scenes.framing import frame_scene
from lora_scene.scenes.scene import Scene, load_scene
from lora_scene.workshop.results import known_rows, unpack
from lora_scene.workshop.statistics import Row

SCENES = Path(__file__).parent / "scenes"
PROMPTS = ("a photo of {} on grass", "a photo of {} in the snow", "a photo of {} by a brick wall")
PLAN = Plan(PROMPTS, "edges", (0, 1), Sampling(12, 3.5, "dpm++"))


def shown_once(studio: Studio, scene: Scene, finder: Finder) -> Iterator[tuple[int, bool]]:
    """Draw a scene's pictures by nouns; yield how many are named, and whether each is there once.

    Args:
        studio: The bare base.
        scene: Framed to its size; its things have nouns of their own.
        finder: The judge's finder.
    """
    cells = cells_of(PLAN, scene)
    for start in range(0, len(cells), PLAN.batch_size):
        batch = cells[start : start + PLAN.batch_size]
        asked = [Request(cell.plain, cell.asked.seed, sampling=PLAN.sampling) for cell in batch]
        done = render(studio, [checked(studio, one) for one in asked])
        for cell, pixels in zip(batch, done.pixels, strict=True):
            found = finder.find(pixels, scene.concepts)
            owners = sorted(one.owner for one in found if one.owner is not None)
            yield len(cell.subset), owners == sorted(cell.subset)


def marked(rows: Iterable[Row], method: str) -> Iterator[tuple[int, bool, bool]]:
    """Yield how many things each picture of a method names, whether each is there once, is exact.

    Args:
        rows: Of scenes whose things have nouns of their own.
        method: Its name.
    """
    for row in rows:
        if row["method"] == method:
            for one in unpack(row["compared"]):
                owners = sorted(owner for owner in one.owners if owner is not None)
                yield len(one.named), owners == sorted(one.named), one.is_exact


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a line a number of nouns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", default="t*", help="of benchmarks/scenes")
    parser.add_argument("--rows", type=Path, help="of a benchmark")
    parser.add_argument("--method", default="ours", help="of the rows")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    if given.rows:
        told = list(marked(known_rows(given.rows).values(), given.method))
        for n in sorted({n for n, _, _ in told}):
            once, exact = zip(*((o, e) for m, o, e in told if m == n), strict=True)
            line = {"of": given.method, "nouns": n, "pictures": len(once)}
            line |= {"shown_once": sum(once) / len(once), "exact": sum(exact) / len(exact)}
            write({**line, **circumstances("cpu")}, given.out)
        return
    studio = open_studio([], base="mini", device="cpu")
    finder = load_judge("mini", device="cpu").finder
    assert finder is not None, "the embedded judge finds things by their nouns"
    found: dict[int, list[bool]] = defaultdict(list)
    for folder in sorted(SCENES.glob(given.scenes)):
        scene = frame_scene(load_scene(folder), studio.backbone.canvas())
        for n, is_once in shown_once(studio, scene, finder):
            found[n].append(is_once)
    about = circumstances("cpu")
    for n, each in sorted(found.items()):
        line = {"of": "base", "nouns": n, "pictures": len(each)}
        write({**line, "shown_once": sum(each) / len(each), **about}, given.out)


if __name__ == "__main__":
    main()
