"""A picture to point at, by mouse, finger or keys; what is pointed at is told as shares of it."""

from __future__ import annotations

import base64
import io
from importlib import resources
from typing import Any

import gradio as gr
from PIL import Image

QUALITY = 88  # of the JPEG that is shown; nothing is computed from it

TEMPLATE = """
<figure class="canvas">
  {{#if value}}<img src="{{value}}" alt="{{alt}}" draggable="false">{{else}}<p>{{empty}}</p>{{/if}}
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
    return gr.HTML(
        "",
        html_template=TEMPLATE,
        js_on_load=resources.files("lora_scene.page").joinpath("canvas.js").read_text("utf-8"),
        elem_id=elem_id,
        elem_classes="canvas-frame",
        label=label,
        alt=label,
        empty=empty,
    )


def as_source(picture: Image.Image) -> str:
    """Return a picture as the source of an `img`."""
    file = io.BytesIO()
    picture.convert("RGB").save(file, format="JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
