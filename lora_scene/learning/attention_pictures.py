"""Where each handle looks, as pictures: its attention as heat over the photo, a file a stop.

maps/masks.jpg       the photos with their masks
maps/00400-0.jpg     <steps over both phases>-<number of the concept>
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from lora_scene.learning.held import Maps
from lora_scene.learning.runs import MAPS
from lora_scene.picture_writing import write_picture
from lora_scene.scenes.framing import frame
from lora_scene.scenes.overlay import draw_overlay
from lora_scene.scenes.pictures import Pixels
from lora_scene.scenes.scene import Scene
from lora_scene.size import Size

MASKS = Path(MAPS) / "masks.jpg"
SIDE = 256  # pixels of a picture's longer side
STRONGEST = 0.85  # opacity of the heat where attention is strongest


def save_masks(scene: Scene, out: Path) -> Path:
    """Write the photos with their masks."""
    picture = draw_overlay(scene)
    picture.thumbnail((3 * SIDE, 3 * SIDE), Image.Resampling.LANCZOS)
    return write_picture(out / MASKS, picture, root=out)


def save_maps(maps: Maps, scene: Scene, out: Path, step: int) -> list[Path]:
    """Write each concept's map (K, r_h, r_w) over the first photo; `step` counts both phases."""
    shape = (maps.shape[2], maps.shape[1])
    factor = SIDE / max(shape)
    size = Size(round(shape[0] * factor), round(shape[1] * factor))
    shown = next(photo for photo in scene.photos if photo.present)
    photo = frame(shown, size, focus=scene.things).pixels
    paths = [out / MAPS / f"{step:05}-{k}.jpg" for k in range(len(maps))]
    for path, own in zip(paths, maps, strict=True):
        heat = Image.fromarray(own / max(float(own.max()), 1e-9)).resize(size, 3)
        write_picture(path, heated(photo, np.asarray(heat, np.float32)), root=out)
    return paths


def heated(photo: Pixels, heat: Maps) -> Image.Image:
    """Return a photo (H, W, 3) under heat (H, W), 0..1: clear where cold, bright where hot."""
    from matplotlib import colormaps

    share = np.clip(heat, 0, 1)
    colours = colormaps["inferno"](share)[..., :3] * 255
    opacity = (STRONGEST * np.sqrt(share))[..., None]
    grey = photo.mean(axis=-1, keepdims=True) * 0.8
    mixed = (1 - opacity) * grey + opacity * colours
    return Image.fromarray(mixed.round().astype(np.uint8))
