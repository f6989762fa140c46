"""A brush over a photo, and its mask back at the photo's own size, pixel for pixel."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np
import numpy.typing as npt

from lora_scene.errors import SceneError
from lora_scene.scenes.pictures import Mask, Pixels
from lora_scene.scenes.scene import INSIDE

COLOUR = (0, 158, 115)
SIZE = 24  # pixels of the brush to begin with


class Brush:
    """Gradio's editor with one layer, which is the mask.

    The photo goes in at its own size, and the canvas takes that; a mask that comes back at
    another size is refused, not stretched.
    """

    def __init__(self, label: str, *, can_upload: bool = False, elem_id: str | None = None) -> None:
        self.editor = gr.ImageEditor(
            label=label,
            type="numpy",
            image_mode="RGBA",
            sources=("upload",) if can_upload else (),
            transforms=(),
            layers=False,
            brush=gr.Brush(
                default_size=SIZE, colors=[f"rgb{COLOUR}"], color_mode="fixed", default_color="auto"
            ),
            eraser=gr.Eraser(default_size=SIZE),
            buttons=["fullscreen"],
            elem_id=elem_id,
        )

    def value(self, photo: Pixels, mask: Mask | None = None) -> dict[str, Any]:
        """Return what lays a photo (H, W, 3) and a mask (H, W) before the person."""
        height, width = photo.shape[:2]
        layer = np.zeros((height, width, 4), dtype=np.uint8)
        if mask is not None:
            layer[mask >= INSIDE] = (*COLOUR, 255)
        return {"background": photo, "layers": [layer], "composite": None}

    def read(self, value: Any, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """Return what is painted, (H, W) of the photo.

        Raises:
            SceneError: Nothing was laid there, or it came back at another size.
        """
        layers = (value or {}).get("layers") or []
        if not layers:
            raise SceneError("nothing is painted yet", hint="bring the photo here, and paint")
        painted = np.any([np.asarray(layer)[..., 3] >= 128 for layer in layers], axis=0)
        if painted.shape != tuple(shape[:2]):
            raise SceneError(
                "what was painted is not of the photo's size",
                expected=f"{shape[1]} x {shape[0]}",
                got=f"{painted.shape[1]} x {painted.shape[0]}",
                hint="bring the photo here again",
            )
        return np.asarray(painted, dtype=np.bool_)
