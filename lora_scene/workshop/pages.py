"""Pages from templates: whatever strangers' files say is shown, never obeyed."""

from __future__ import annotations

from importlib import resources
from typing import Any


def render(template: str, **values: Any) -> str:
    """Fill a template of this room.

    Values are escaped; data for scripts goes through `tojson`, which leaves no `<`, `>` or `&`.

    Args:
        template: Its file, such as `report.html`.
        values: What it names.
    """
    from jinja2 import Environment, StrictUndefined

    text = (resources.files("lora_scene.workshop") / template).read_text("utf-8")
    engine = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return engine.from_string(text).render(values)
