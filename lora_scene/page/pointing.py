"""A picture to point at, by mouse, finger or keys; what is pointed at is told as shares of it."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from lora_scene.scenes.overlay import draw_masks
from lora_scene.scenes.scene import Photo

SIDE, PAPER = 512, 236  # of an empty sheet: pixels, grey
QUALITY = 88  # of the JPEG that is shown; nothing is computed from it

TEMPLATE = """
<figure class="canvas">
  {{#if value}}<img src="{{value}}" alt="LABEL" draggable="false">{{else}}<p>EMPTY</p>{{/if}}
  <span class="band"></span><span class="cross"></span>
</figure>
"""


def canvas(label: str, empty: str, elem_id: str) -> Any:
    """Return a canvas; it tells `point` (x, y) and `box` (left, top, right, bottom), 0..1.

    Args:
        label: What it is, for those who don't see it.
        empty: What stands there without a picture.
        elem_id: Its id on the page.
    """
    words = {"LABEL": html.escape(label), "EMPTY": html.escape(empty)}  # props may come later
    return gr.HTML(
        "",
        html_template=re.sub("LABEL|EMPTY", lambda word: words[word[0]], TEMPLATE),
        js_on_load=resources.files("lora_scene.page").joinpath("canvas.js").read_text("utf-8"),
        elem_id=elem_id,
        elem_classes="canvas-frame",
        label=label,
    )


def sheet(boxes: Mapping[str, tuple[float, float, float, float] | None]) -> str:
    """Return an empty sheet as a source, with boxes (left, top, right, bottom), 0..1, by name."""
    masks = np.zeros((len(boxes), SIDE, SIDE), dtype=np.float32)
    for mask, box in zip(masks, boxes.values(), strict=True):
        left, top, right, bottom = (round(side * SIDE) for side in box or (0, 0, 0, 0))
        mask[top:bottom, left:right] = 1.0
    pixels = np.full((SIDE, SIDE, 3), PAPER, dtype=np.uint8)
    return as_source(draw_masks(Photo(pixels, masks, "sheet"), list(boxes)))


def as_source(picture: Image.Image) -> str:
    """Return a picture as the source of an `img`."""
    file = io.BytesIO()
    picture.convert("RGB").save(file, format="JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
