"""Compose the benchmark's hard scenes: things that touch, stand on each other, or share a noun.

    python -m benchmarks.hard_scenes --cache DIR --out benchmarks/scenes

Four kinds, drawn in the style that the embedded base never saw:

- `touching`: things beside and before each other, with true occlusion;
- `stacked`: a thing that stands on or in another, and hides a part of it;
- `twins`: two things of one noun that differ, and others;
- `sizes`: a small thing beside a large one.

Most drawings have their hues turned, so that no setting was tuned on them and twins differ in
nothing else. `dh*` are for development and `h*` for tests; they share no drawing.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.mini_world.backgrounds import BACKGROUNDS, paint_background
from benchmarks.mini_world.compose import SIDE, paste, shrink
from benchmarks.mini_world.drawings import HELD_OUT_STYLE, Drawings, load_drawings
from benchmarks.mini_world.nouns import noun_set
from lora_scene.creating.requests import Request
from lora_scene.judging.evaluation import weigh
from lora_scene.judging.judge import Judge, load_judge
from lora_scene.judging.plans import Cell
from lora_scene.judging.watched_drawing import Drawn
from lora_scene.scenes.folder_names import MANIFEST_NAME
from lora_scene.scenes.handles import Concept
from lora_scene.scenes.manifest import Manifest, manifest_text
from lora_scene.scenes.scene import load_scene

Kind = Literal["touching", "stacked", "twins", "sizes"]

VISIBLE = 0.6
"""The least share of a thing that others leave visible."""

HIDDEN = 0.08
"""The least share of some thing that is hidden, where things touch or stand on each other."""


APART = 5
"""The least gap between things that neither touch nor stand on each other, px."""

N_TRIES = 60


@dataclass(frozen=True)
class Thing:
    """One thing of a scene.

    Attributes:
        noun: Its class noun.
        turn: How far the drawing's hues are turned, degrees; 0 is the drawing of the plain scenes.
        size: Its longer side, px.
    """

    noun: str
    turn: int
    size: int


@dataclass(frozen=True)
class Hard:
    """A scene to be composed: its kind, and its things from the back to the front."""

    kind: Kind
    things: tuple[Thing, ...]


def _hard(kind: Kind, *things: tuple[str, int, int]) -> Hard:
    return Hard(kind, tuple(Thing(*thing) for thing in things))


SCENES: dict[str, Hard] = {
    "dh01-2": _hard("touching", ("dog", 160, 34), ("penguin", 0, 30)),
    "dh02-2": _hard("touching", ("rocket", 120, 34), ("owl", 0, 30)),
    "dh03-3": _hard("touching", ("burger", 0, 28), ("mushroom", 220, 28), ("dog", 0, 30)),
    "dh04-3": _hard("touching", ("owl", 200, 28), ("rocket", 0, 30), ("penguin", 140, 28)),
    "dh05-2": _hard("stacked", ("burger", 60, 34), ("penguin", 0, 24)),
    "dh06-2": _hard("stacked", ("mushroom", 0, 36), ("owl", 120, 24)),
    "dh07-3": _hard("stacked", ("rocket", 240, 34), ("dog", 0, 24), ("mushroom", 0, 24)),
    "dh08-2": _hard("twins", ("dog", 0, 30), ("dog", 180, 30)),
    "dh09-2": _hard("twins", ("mushroom", 0, 30), ("mushroom", 120, 30)),
    "dh10-3": _hard("twins", ("owl", 0, 26), ("owl", 160, 26), ("burger", 0, 26)),
    "dh11-2": _hard("sizes", ("rocket", 60, 46), ("mushroom", 0, 16)),
    "dh12-3": _hard("sizes", ("owl", 0, 40), ("burger", 0, 16), ("penguin", 200, 18)),
    "h01-2": _hard("touching", ("cat", 180, 34), ("panda", 0, 30)),
    "h02-2": _hard("touching", ("car", 240, 34), ("cactus", 0, 32)),
    "h03-3": _hard("touching", ("house", 150, 30), ("frog", 200, 28), ("pineapple", 0, 30)),
    "h04-3": _hard("touching", ("sunflower", 270, 30), ("donut", 0, 26), ("cat", 90, 28)),
    "h05-2": _hard("stacked", ("donut", 160, 36), ("frog", 0, 24)),
    "h06-2": _hard("stacked", ("car", 120, 38), ("panda", 0, 24)),
    "h07-3": _hard("stacked", ("house", 220, 34), ("cat", 0, 24), ("apple", 240, 22)),
    "h08-2": _hard("twins", ("cat", 0, 30), ("cat", 200, 30)),
    "h09-2": _hard("twins", ("apple", 0, 28), ("apple", 100, 28)),
    "h10-3": _hard("twins", ("car", 60, 28), ("car", 200, 28), ("sunflower", 0, 26)),
    "h11-2": _hard("sizes", ("pineapple", 280, 46), ("apple", 0, 18)),
    "h12-3": _hard("sizes", ("panda", 0, 40), ("donut", 240, 18), ("cactus", 90, 20)),
}
"""The things of each scene, from the back to the front."""


def compose_hard(
    hard: Hard, drawings: Drawings, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw places until every rule of the kind holds, and paint the scene.

    Returns:
        The picture (SIDE, SIDE, 3) uint8, and the masks (K, SIDE, SIDE) bool of what is visible of
        each thing; the first thing is the farthest back.
    """
    ground = list(BACKGROUNDS)[int(rng.integers(len(BACKGROUNDS)))]
    picture = paint_background(ground, SIDE, rng)
    parts = [drawing_of(thing, drawings) for thing in hard.things]
    while True:
        boxes = _places(hard.kind, [part.shape[:2] for part in parts], rng)
        canvas = picture.copy()
        wholes = np.array(
            [paste(canvas, part, *box) for part, box in zip(parts, boxes, strict=True)]
        )
        masks = np.array([w & ~wholes[k + 1 :].any(axis=0) for k, w in enumerate(wholes)])
        shares = masks.sum(axis=(1, 2)) / wholes.sum(axis=(1, 2))
        if shares.min() < VISIBLE:
            continue
        if hard.kind in ("touching", "stacked") and shares.min() > 1 - HIDDEN:
            continue
        if hard.kind in ("twins", "sizes") and not _apart(wholes):
            continue
        return canvas, masks


def _apart(wholes: NDArray[np.bool_]) -> bool:
    """Tell whether things (K, SIDE, SIDE) lie APART px from each other at least."""
    grown = [cv2.dilate(whole.astype(np.uint8), np.ones((APART, APART))) for whole in wholes]
    return bool(np.sum(grown, axis=0).max() < 2)


def drawing_of(thing: Thing, drawings: Drawings) -> NDArray[np.uint8]:
    """Return the drawing of a thing, (h, w, 4) uint8, its hues turned."""
    code = next(noun.code for noun in noun_set("mini16") if noun.word == thing.noun)
    found = drawings.find(HELD_OUT_STYLE, code)
    if found is None:
        raise FileNotFoundError(f"no drawing {code} of a {thing.noun} among the drawings")
    part = shrink(found, thing.size).copy()
    if thing.turn:
        hsv = np.array(Image.fromarray(part[..., :3]).convert("HSV"))
        hsv[..., 0] += np.uint8(round(thing.turn * 256 / 360))  # bytes: a whole turn is 256
        part[..., :3] = np.asarray(Image.fromarray(hsv, mode="HSV").convert("RGB"))
    return part


def _places(
    kind: Kind, shapes: Sequence[tuple[int, ...]], rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Draw (top, left) of each (height, width), inside the picture."""
    rooms = [(SIDE - height, SIDE - width) for height, width in shapes]
    boxes = [(int(rng.integers(down + 1)), int(rng.integers(right + 1))) for down, right in rooms]
    if kind == "stacked":  # the second stands on the first: its feet a third into it
        (height, width), (top, left) = shapes[0], boxes[0]
        above = top + round(height * rng.uniform(0.15, 0.4)) - shapes[1][0]
        beside = left + round((width - shapes[1][1]) * rng.uniform(0.2, 0.8))
        boxes[1] = (min(max(above, 0), rooms[1][0]), min(max(beside, 0), rooms[1][1]))
    return boxes


def write_hard(
    folder: Path, hard: Hard, picture: NDArray[np.uint8], masks: NDArray[np.bool_]
) -> None:
    """Write the photo, a mask per thing, and the manifest; twins are told apart by a number."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(folder / "img0.png")
    nouns = [thing.noun for thing in hard.things]
    concepts = []
    for k, noun in enumerate(nouns):
        number = nouns[:k].count(noun)
        concepts.append(Concept(f"<{noun[:3]}{number + 1 if number else ''}>", noun))
        Image.fromarray(masks[k].astype(np.uint8) * 255).save(folder / f"mask{k}.png")
    files = tuple((f"mask{k}.png",) for k in range(len(nouns)))
    manifest = Manifest(folder, ("img0.png",), tuple(concepts), files)
    (folder / MANIFEST_NAME).write_text(manifest_text(manifest), "utf-8")


def is_read(folder: Path, judge: Judge) -> bool:
    """Tell whether the judge reads a scene's photo right; what it cannot read, it cannot judge."""
    scene = load_scene(folder)
    asked = Request("")
    cell = Cell(scene.things, asked, " and ".join(scene.nouns))
    drawn = Drawn(asked, scene.photos[0].pixels, scene.handles, np.zeros((0, 1, 1), np.float32))
    read = weigh([cell], [drawn], scene=scene, judge=judge)
    return read.summary["exact_set"] == 1.0


def main() -> None:
    """Write every hard scene: the first of its draws that the judge reads right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", required=True, type=Path, help="folder of the drawings")
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()
    drawings = load_drawings(options.cache)
    judge = load_judge("mini")
    for number, (name, hard) in enumerate(SCENES.items()):
        for attempt in range(N_TRIES):
            rng = np.random.default_rng([2, number, attempt])
            write_hard(options.out / name, hard, *compose_hard(hard, drawings, rng))
            if is_read(options.out / name, judge):
                break
        else:
            raise SystemExit(f"{name}: the judge reads none of {N_TRIES} draws right")
        print(name, hard.kind, *(thing.noun for thing in hard.things), f"draw {attempt}")


if __name__ == "__main__":
    main()
