"""Small scenes made in code, in memory and on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from lora_scene.scenes.scene import Concept, Photo, Scene

BEAR = (slice(4, 20), slice(6, 18))  # rows, columns
BOWL = (slice(24, 30), slice(20, 36))


def rectangle(shape: tuple[int, int], region: tuple[slice, slice]) -> np.ndarray:
    mask = np.zeros(shape, dtype=np.float32)
    mask[region] = 1.0
    return mask


def photo(height: int = 32, width: int = 40, *regions: tuple[slice, slice]) -> Photo:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, size=(height, width, 3), dtype=np.uint8)
    masks = np.stack([rectangle((height, width), region) for region in regions or (BEAR, BOWL)])
    return Photo(pixels, masks, "img.png")


def scene(*photos: Photo) -> Scene:
    concepts = (Concept("<bear>", "teddy bear"), Concept("<bowl>", "bowl"))
    return Scene(concepts, photos or (photo(),), "scene")


def to_image(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(mask * 255).astype(np.uint8))


def write_reference_folder(folder: Path, example: Photo | None = None) -> Path:
    """Write img.png and mask0.png, mask1.png... and return the folder."""
    example = example or photo()
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(example.pixels).save(folder / "img.png")
    for k, mask in enumerate(example.masks):
        to_image(mask).save(folder / f"mask{k}.png")
    return folder


TOML = """
images = ["img.png"]
[[concepts]]
handle = "<bear>"
noun = "teddy bear"
masks = ["mask0.png"]
[[concepts]]
handle = "<bowl>"
masks = ["mask1.png"]
"""


def write_toml_folder(folder: Path, text: str = TOML, example: Photo | None = None) -> Path:
    """Write the same with a scene.toml."""
    write_reference_folder(folder, example)
    (folder / "scene.toml").write_text(text, encoding="utf-8")
    return folder
