"""Pages from templates: whatever strangers' files say is shown, never obeyed."""

from __future__ import annotations

import base64
import io
from importlib import resources
from typing import Any

from PIL import Image


def fill_page(room: str, template: str, **values: Any) -> str:
    """Fill a template.

    Values are escaped; data for scripts goes through `tojson`, which leaves no `<`, `>` or `&`.

    Args:
        room: The package that it lies in, such as `workshop`.
        template: Its file, such as `benchmark_page.html`.
        values: What it names.
    """
    from jinja2 import Environment, StrictUndefined

    text = (resources.files(f"lora_scene.{room}") / template).read_text("utf-8")
    engine = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return engine.from_string(text).render(values)


def inlined(image: Image.Image, *, quality: int = 0) -> str:
    """Return a picture as a `data:` address: as PNG, or as WebP of a quality, 1..100."""
    file = io.BytesIO()
    if quality:
        image.save(file, format="WEBP", quality=quality)
    else:
        image.save(file, format="PNG", optimize=True)
    return inlined_file(file.getvalue(), "webp" if quality else "png")


def inlined_file(content: bytes, kind: str) -> str:
    """Return a picture's file as a `data:` address; an empty one stays empty.

    Args:
        content: The file's bytes.
        kind: What they are, such as `jpeg` or `svg+xml`.
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}" if content else ""
