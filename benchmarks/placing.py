"""Whether things that are led to places stand there, adapter by adapter.

    python -m benchmarks.placing ADAPTER SCENE [ADAPTER SCENE ...] [--out FILE]

Two things of a scene, each led to one half of the picture as `generate --at` leads them, both ways
round, on two grounds, two seeds each: the share of their attention that lies inside their boxes,
and of things of which the judge finds one between its box's left and right edges.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.records import circumstances, write
from lora_scene.creating.rendering import checked, render
from lora_scene.creating.requests import Box, Control, Place, Request, Sampling
from lora_scene.creating.studio import Studio, open_studio
from lora_scene.judging.finding import Sighting
from lora_scene.judging.judge import Judge, load_judge
from lora_scene.judging.scores import find_things
from lora_scene.judging.watched_drawing import Drawn
from lora_scene.scenes.framing import frame_scene
from lora_scene.scenes.scene import Scene, load_scene

BOXES: tuple[Box, Box] = ((0.05, 0.2, 0.48, 0.8), (0.52, 0.2, 0.95, 0.8))
GROUNDS = ("on grass", "in the snow")
SEEDS = (0, 1)
SAMPLING = Sampling(12, 3.5, "dpm++")


def is_between(sighting: Sighting, box: Box) -> bool:
    """Tell whether the middle of what was found lies between a box's left and right edges."""
    columns = np.nonzero(sighting.region)[1]
    middle = (columns.mean() + 0.5) / sighting.region.shape[1]
    return bool(box[0] <= middle <= box[2])


def placed(
    studio: Studio, scene: Scene, judge: Judge, *, grounds: Sequence[str] = GROUNDS
) -> Iterator[tuple[float, bool]]:
    """Draw the pictures; yield a thing's attention inside its box, and whether it stands there.

    Args:
        studio: The base with the adapter.
        scene: The adapter's scene, framed; its first two things are led.
        judge: Finds things.
        grounds: What prompts end with.
    """
    pair = scene.things[:2]
    for boxes in (BOXES, BOXES[::-1]):
        wanted = dict(zip(pair, boxes, strict=True))
        places = tuple(Place(scene.handles[k], box) for k, box in wanted.items())
        names = " and ".join(scene.handles[k] for k in pair)
        requests = [
            checked(
                studio,
                Request(f"a photo of {names} {ground}", seed, control=Control(places=places),
                        sampling=SAMPLING),
            )
            for ground in grounds
            for seed in SEEDS
        ]  # fmt: skip
        done = render(studio, requests)
        handles = tuple(scene.handles[k] for k in pair)
        for request, pixels, inside in zip(requests, done.pixels, done.inside, strict=True):
            drawn = Drawn(request, pixels, handles, np.zeros((0, 1, 1), np.float32))
            found = find_things(drawn, scene, judge)
            for k, box in wanted.items():
                own = [one for one in found if k == one.owner or k in one.twins]
                yield inside[scene.handles[k]], any(is_between(one, box) for one in own)


def main() -> None:
    """Write a line an adapter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="+", metavar="ADAPTER SCENE")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if len(given.pairs) % 2:
        parser.error("an adapter and its scene, in turn")
    judge, about = load_judge("mini", device="cpu"), circumstances("cpu")
    for adapter, place in zip(given.pairs[::2], given.pairs[1::2], strict=True):
        studio = open_studio([adapter], base="mini", device="cpu")
        scene = frame_scene(load_scene(place), studio.backbone.canvas())
        inside, stands = zip(*placed(studio, scene, judge), strict=True)
        means = {"inside": float(np.mean(inside)), "in_place": float(np.mean(stands))}
        write({"adapter": adapter, "scene": Path(place).name, **means, **about}, given.out)


if __name__ == "__main__":
    main()
