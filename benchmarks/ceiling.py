"""The ceiling: what the judge gives to the real drawings of a scene, on the grounds asked for.

    python -m benchmarks.ceiling (--cache DIR | --cut-out) [--protocol TOML] [--json FILE]

Every picture of the protocol is composed by the world itself, from the drawings that the scene
shows, in fresh places, and passed through the base's autoencoder: no adapter on this base can be
better. Below it lies how well the base draws what it was trained on: asked by nouns, and weighed
against its own drawings of them, the nearest of a noun's three.

With `--cut-out` the things are cut out of the photo and put onto the ground in their places, for
scenes whose drawings the world has not, such as the hard ones with their turned hues.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.mini_world.backgrounds import BACKGROUNDS, paint_background
from benchmarks.mini_world.compose import SIZES, Sprites, compose
from benchmarks.mini_world.drawings import HELD_OUT_STYLE, load_drawings
from benchmarks.mini_world.nouns import noun_set
from lora_scene.creating.generation import draw
from lora_scene.creating.sampling import decode
from lora_scene.creating.studio import Studio, open_studio
from lora_scene.judging.evaluation import Evaluation, weigh
from lora_scene.judging.judge import Judge, load_judge
from lora_scene.judging.metrics import mean
from lora_scene.judging.plans import Cell, Plan, cells_of
from lora_scene.judging.watched_drawing import Drawn
from lora_scene.scenes.canvas import Canvas
from lora_scene.scenes.framing import frame_scene
from lora_scene.scenes.pictures import Pixels
from lora_scene.scenes.scene import Photo, Scene, load_scene
from lora_scene.workshop.protocol import read_protocol

_NO_MAPS = np.zeros((0, 1, 1), np.float32)

Way = Callable[[Sequence[Cell], Scene], tuple[Iterable[Drawn], Scene]]
"""From a plan's pictures to what is drawn, and to the scene whose photos it is weighed against."""


def ground_of(prompt: str) -> str:
    """Return the background that a prompt ends with, by the phrase that the captions use.

    Raises:
        ValueError: No background is called so.
    """
    for name, phrases in BACKGROUNDS.items():
        if any(prompt.endswith(phrase) for phrase in phrases):
            return name
    raise ValueError(f"no background of the mini world is called as in {prompt!r}")


def compose_cells(
    cells: Sequence[Cell], scene: Scene, sprites: Sprites, *, studio: Studio | None
) -> Iterator[Drawn]:
    """Compose what each prompt asks for.

    Args:
        cells: The pictures of a plan.
        scene: Says which nouns the concepts have.
        sprites: The drawings, one a noun.
        studio: Whose autoencoder the pictures pass through; None leaves them as they are.
    """
    for number, cell in enumerate(cells):
        rng = np.random.default_rng([cell.asked.seed, number])
        nouns = [scene.nouns[k] for k in cell.subset]
        pixels = compose(sprites, nouns, ground_of(cell.plain), rng).picture
        if studio is not None:
            pixels = _through(studio, pixels)
        yield Drawn(cell.asked, pixels, tuple(scene.handles[k] for k in cell.subset), _NO_MAPS)


def cut_out_cells(cells: Sequence[Cell], scene: Scene, studio: Studio) -> Iterator[Drawn]:
    """Put what each prompt names, as the photo has it, onto the ground that it asks for.

    Args:
        cells: The pictures of a plan.
        scene: Framed; its first photo is cut.
        studio: Whose autoencoder the pictures pass through.
    """
    photo = scene.photos[0]
    for number, cell in enumerate(cells):
        rng = np.random.default_rng([cell.asked.seed, number])
        ground = paint_background(ground_of(cell.plain), photo.size.width, rng)
        opacity = photo.masks[list(cell.subset)].max(axis=0)[..., None]
        mixed = opacity * photo.pixels + (1 - opacity) * ground
        pixels = _through(studio, np.rint(mixed).astype(np.uint8))
        yield Drawn(cell.asked, pixels, tuple(scene.handles[k] for k in cell.subset), _NO_MAPS)


@torch.no_grad()
def _through(studio: Studio, pixels: Pixels) -> Pixels:
    """Return a picture as the autoencoder gives it back."""
    return decode(studio, studio.backbone.encode_picture(pixels).mean[None])[0]


def draw_known(cells: Sequence[Cell], scene: Scene, studio: Studio, plan: Plan) -> list[Drawn]:
    """Let the untouched base draw what each prompt asks for, by nouns.

    Args:
        cells: The pictures of a plan.
        scene: Names the handles.
        studio: The base.
        plan: How it draws.
    """
    asked = [replace(cell.asked, prompt=cell.plain, sampling=plan.sampling) for cell in cells]
    pictures = dict(draw(studio, asked, batch_size=plan.batch_size))
    return [
        Drawn(
            cell.asked, pictures[i].pixels, tuple(scene.handles[k] for k in cell.subset), _NO_MAPS
        )
        for i, cell in enumerate(cells)
    ]


def known_scene(scene: Scene, sprites: Sprites) -> Scene:
    """Return the scene with photos of every drawing of its nouns that the base was trained on."""
    rng = np.random.default_rng(0)
    photos = []
    for k, noun in enumerate(scene.nouns):
        for number in range(sprites.n_of(noun)):
            one = compose(sprites, [noun], "grass", rng, drawings=[number])
            masks = np.zeros((len(scene.nouns), *one.picture.shape[:2]), np.float32)
            masks[k] = one.masks[0]
            photos.append(Photo(one.picture, masks, f"drawing {number} of {noun}"))
    return replace(scene, photos=tuple(photos))


def measure(
    folders: Sequence[Path], way: Way, *, plan: Plan, canvas: Canvas, judge: Judge
) -> dict[str, float | None]:
    """Return the means over scenes of what a way is given."""
    results: list[Evaluation] = []
    for folder in folders:
        scene = frame_scene(load_scene(folder), canvas)
        cells = cells_of(plan, scene)
        drawn, weighed = way(cells, scene)
        results.append(weigh(cells, drawn, scene=weighed, judge=judge))
    names = results[0].summary
    return {name: mean(result.summary[name] for result in results) for name in names}


def ways_of_drawing(cache: Path, studio: Studio, plan: Plan) -> dict[str, Way]:
    """Return the ways that have the drawings themselves, by name.

    Args:
        cache: Folder of the drawings.
        studio: The base.
        plan: How it draws.
    """
    drawings, nouns = load_drawings(cache), noun_set("mini16")
    own, known = Sprites(drawings, nouns, (HELD_OUT_STYLE,)), Sprites(drawings, nouns)
    return {
        "drawings": lambda cells, scene: (compose_cells(cells, scene, own, studio=None), scene),
        "through the autoencoder": lambda cells, scene: (
            compose_cells(cells, scene, own, studio=studio), scene
        ),
        "the base, of its own drawings": lambda cells, scene: (
            draw_known(cells, scene, studio, plan), known_scene(scene, known)
        ),
    }  # fmt: skip


def main() -> None:
    """Weigh every scene of each group in each way; print means over scenes."""
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--cache", type=Path, help="folder of the drawings")
    source.add_argument("--cut-out", action="store_true", help="take the things from the photos")
    parser.add_argument(
        "--protocol", type=Path, default=Path(__file__).parent / "protocols" / "mini.toml"
    )
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    protocol = read_protocol(options.protocol)
    studio = open_studio([], base=protocol.base)
    plan, judge, canvas = protocol.plan, load_judge(protocol.judge), studio.backbone.canvas()
    ways: dict[str, Way] = {
        "cut out": lambda cells, scene: (cut_out_cells(cells, scene, studio), scene)
    }
    if options.cache:
        ways = ways_of_drawing(options.cache, studio, plan)
    figures: dict[str, dict[str, dict[str, float | None]]] = {}
    for way, drawn in ways.items():
        for group, folders in protocol.scenes.items():
            if max(len(load_scene(folder).things) for folder in folders) > max(SIZES):
                continue  # more things than the world can place without overlap
            means = measure(folders, drawn, plan=plan, canvas=canvas, judge=judge)
            figures.setdefault(group, {})[way] = means
            print(f"{group}, {len(folders)} scenes, {way}:")
            print("  ", ", ".join(f"{k} {v:.3f}" for k, v in means.items() if v is not None))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
