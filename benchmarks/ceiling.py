"""The ceiling: what the judge gives to the real drawings of a scene, on the grounds asked for.

    python -m benchmarks.ceiling --cache DIR [--protocol TOML] [--json FILE]

Every picture of the protocol is composed by the world itself, from the drawings that the scene
shows, in fresh places, and passed through the base's autoencoder: no adapter on this base can be
better.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.mini_world.backgrounds import BACKGROUNDS
from benchmarks.mini_world.compose import SIZES, Sprites, compose
from benchmarks.mini_world.drawings import HELD_OUT_STYLE, load_drawings
from benchmarks.mini_world.nouns import noun_set
from lora_scene.creating.sampling import decode
from lora_scene.creating.studio import Studio, open_studio
from lora_scene.judging.evaluation import Evaluation, weigh
from lora_scene.judging.judge import load_judge
from lora_scene.judging.metrics import mean
from lora_scene.judging.plans import Cell, cells_of
from lora_scene.judging.watched_drawing import Drawn
from lora_scene.scenes.framing import frame_scene
from lora_scene.scenes.scene import Scene, load_scene
from lora_scene.workshop.protocol import read_protocol

_NO_MAPS = np.zeros((0, 1, 1), np.float32)


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
            with torch.no_grad():
                pixels = decode(studio, studio.backbone.encode_picture(pixels).mean[None])[0]
        yield Drawn(cell.asked, pixels, tuple(scene.handles[k] for k in cell.subset), _NO_MAPS)


def main() -> None:
    """Weigh the real drawings of every scene of each group; print means over scenes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", required=True, type=Path, help="folder of the drawings")
    parser.add_argument(
        "--protocol", type=Path, default=Path(__file__).parent / "protocols" / "mini.toml"
    )
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    protocol = read_protocol(options.protocol)
    studio = open_studio([], base=protocol.base)
    judge = load_judge(protocol.judge)
    sprites = Sprites(load_drawings(options.cache), noun_set("mini16"), (HELD_OUT_STYLE,))

    figures: dict[str, dict[str, dict[str, float | None]]] = {}
    for way, through in (("drawings", None), ("through the autoencoder", studio)):
        for group, folders in protocol.scenes.items():
            scenes = [
                frame_scene(load_scene(folder), studio.backbone.canvas()) for folder in folders
            ]
            if max(len(scene.things) for scene in scenes) > max(SIZES):
                continue  # more things than the world can place without overlap
            results: list[Evaluation] = []
            for scene in scenes:
                cells = cells_of(protocol.plan, scene)
                drawn = compose_cells(cells, scene, sprites, studio=through)
                results.append(weigh(cells, drawn, scene=scene, judge=judge))
            means = {
                name: mean(result.summary[name] for result in results)
                for name in results[0].summary
            }
            figures.setdefault(group, {})[way] = means
            print(f"{group}, {len(results)} scenes, {way}:")
            print("  ", ", ".join(f"{k} {v:.3f}" for k, v in means.items() if v is not None))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
