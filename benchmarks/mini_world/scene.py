"""Compose a scene to learn from: drawings of the held-out style, with masks and scene.toml.

python -m benchmarks.mini_world.scene --cache DIR --out DIR --background sand cat car
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.mini_world.backgrounds import BACKGROUNDS
from benchmarks.mini_world.compose import Composition, Sprites, compose
from benchmarks.mini_world.drawings import HELD_OUT_STYLE, load_drawings
from benchmarks.mini_world.nouns import noun_set

IMAGE = "img.png"
MANIFEST = "scene.toml"


def manifest(nouns: tuple[str, ...]) -> str:
    """Return the text of scene.toml: one concept a noun, its handle the noun in brackets."""
    concepts = [
        f'\n[[concepts]]\nhandle = "<{noun}>"\nnoun = "{noun}"\nmasks = ["mask{number}.png"]\n'
        for number, noun in enumerate(nouns)
    ]
    return f'images = ["{IMAGE}"]\n' + "".join(concepts)


def save_scene(scene: Composition, folder: Path) -> None:
    """Write a scene's picture, masks and manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene.picture).save(folder / IMAGE)
    for number, mask in enumerate(scene.masks):
        Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(folder / f"mask{number}.png")
    (folder / MANIFEST).write_text(manifest(scene.nouns))


def main() -> None:
    """Compose from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder of the drawings")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--background", choices=BACKGROUNDS, default="sand")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("nouns", nargs="+", metavar="NOUN", help="one to four")
    options = parser.parse_args()
    chosen = [noun for noun in noun_set("core64") if noun.word in options.nouns]
    sprites = Sprites(load_drawings(options.cache), chosen, [HELD_OUT_STYLE])
    rng = np.random.default_rng(options.seed)
    save_scene(compose(sprites, options.nouns, options.background, rng), options.out)


if __name__ == "__main__":
    main()
