"""How often the base itself shows each noun once, by the number of nouns in its prompt.

    python -m benchmarks.layouts [--out FILE]

The pictures of the protocol `mini` on its twelve test scenes, with class nouns in the handles'
place: every thing alone, in pairs and all of them, three places, two seeds. What counts is that the
judge finds each named noun once, whatever it looks like, and none of the scene's others: whoever
learns looks on this base, and leaves its layouts alone, draws no more exact sets than that.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a line a number of nouns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", default="t*", help="of benchmarks/scenes")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    studio = open_studio([], base="mini", device="cpu")
    finder = load_judge("mini", device="cpu").finder
    assert finder is not None, "the embedded judge finds things by their nouns"
    once: dict[int, list[bool]] = defaultdict(list)
    for folder in sorted(SCENES.glob(given.scenes)):
        scene = frame_scene(load_scene(folder), studio.backbone.canvas())
        for n, is_once in shown_once(studio, scene, finder):
            once[n].append(is_once)
    about = circumstances("cpu")
    for n, told in sorted(once.items()):
        line = {"nouns": n, "pictures": len(told), "shown_once": sum(told) / len(told)}
        write({"scenes": given.scenes, **line, **about}, given.out)


if __name__ == "__main__":
    main()
