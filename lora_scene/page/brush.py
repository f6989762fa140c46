"""A brush over a photo, and its mask back at the photo's own size, pixel for pixel."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np
import numpy.typing as npt

from lora_scene.errors import SceneError
from lora_scene.scenes.pictures import Mask, Pixels
from lora_scene.scenes.scene import INSIDE

ADDS, TAKES = (0, 158, 115), (213, 94, 0)  # colours of strokes, far apart for every eye
TINT = 0.5  # of a mask over the photo
SIZE = 24  # pixels of the brush before there is a photo
SHARE = 1 / 24  # of a photo's longer side: the brush's size to begin with


class Brush:
    """Gradio's editor: strokes over a photo, which goes in and comes back at its own size.

    The editor loses layers that are laid into it. So a mask is only seen, as a tint of the photo,
    and strokes change it; what comes back at another size is refused, not stretched.
    """

    def __init__(self, label: str, *, takes: bool = False, can_upload: bool = False) -> None:
        self._colours = [f"rgb{colour}" for colour in ((ADDS, TAKES) if takes else (ADDS,))]
        self.editor = gr.ImageEditor(
            label=label,
            type="numpy",
            image_mode="RGBA",
            sources=("upload",) if can_upload else (),
            transforms=(),
            layers=False,
            brush=self._stroke(SIZE),
            eraser=gr.Eraser(default_size=SIZE),
            buttons=["fullscreen"],
        )

    def _stroke(self, size: int) -> Any:
        return gr.Brush(
            default_size=size,
            colors=list(self._colours),
            color_mode="fixed",
            default_color=self._colours[0],
        )

    def value(self, photo: Pixels, mask: Mask | None = None) -> Any:
        """Return what lays a photo (H, W, 3) before the person, tinted where a mask (H, W) is."""
        if mask is not None:
            tinted = (1 - TINT) * photo + TINT * np.array(ADDS)
            photo = np.where((mask >= INSIDE)[..., None], tinted.round().astype(np.uint8), photo)
        size = max(round(max(photo.shape[:2]) * SHARE), 2)
        laid = {"background": photo, "layers": [], "composite": None}
        return gr.update(value=laid, brush=self._stroke(size), eraser=gr.Eraser(default_size=size))

    def changed(self, value: Any, mask: Mask) -> npt.NDArray[np.bool_]:
        """Return a mask (H, W) as the strokes change it.

        Raises:
            SceneError: See `read`.
        """
        painted = self.read(value, mask.shape)
        colours = np.stack([np.asarray(layer)[..., :3] for layer in value["layers"]]).max(axis=0)
        takes = painted & (colours[..., 0] > colours[..., 1])  # red above green, as in `TAKES`
        return np.asarray(((mask >= INSIDE) | painted) & ~takes)

    def photo(self, value: Any) -> Pixels:
        """Return the photo under the strokes, (H, W, 3) uint8.

        Raises:
            SceneError: There is none.
        """
        photo = (value or {}).get("background")
        if photo is None:
            raise SceneError("no photo is there", hint="bring the work's photo, or upload one")
        return np.ascontiguousarray(np.asarray(photo)[..., :3])

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
