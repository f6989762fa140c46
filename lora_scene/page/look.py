"""How the page looks, and how it says things; nothing is loaded from elsewhere."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

TITLE = "lora_scene"
WAY = {
    "Photo": "One is enough; several of the same things are better.",
    "Things": "Click on each: it is outlined, and gets a name to call it by in prompts.",
    "Train": "A small adapter is learnt for your base model, in a process of its own.",
    "Pictures": "Draw your things in new places, or into other photos.",
    "Share": "Files for every interface, checked; a card; a hub if you like.",
}


def theme() -> Any:
    """Return the theme: system fonts, teal on paper."""
    return gr.themes.Base(
        primary_hue="teal",
        neutral_hue="stone",
        text_size="md",
        radius_size="md",
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
    ).set(
        body_background_fill="#faf9f7",
        block_border_width="1px",
        block_shadow="none",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_text_color="white",
        body_text_color_subdued="#57534e",
        body_text_color_subdued_dark="#d6d3d1",
        block_label_text_color="#44403c",
        block_label_text_color_dark="#e7e5e4",
        block_info_text_color="#57534e",
        block_info_text_color_dark="#d6d3d1",
    )


def style() -> str:
    """Return the page's style sheet."""
    return resources.files("lora_scene.page").joinpath("look.css").read_text("utf-8")


def script() -> str:
    """Return what the browser runs as the page opens."""
    return resources.files("lora_scene.page").joinpath("typed.js").read_text("utf-8")


def masthead(name: str = "") -> str:
    """Return the head of the page, with the work at hand."""
    what = plain(name) if name else "From one photo to new pictures of its things"
    return f'<div id="masthead"><h1>{TITLE}</h1><p>{what}</p></div>'


def way() -> str:
    """Return what will be done, step by step, for who is here for the first time."""
    steps = "".join(f"<li><b>{name}</b>{what}</li>" for name, what in WAY.items())
    return f'<ol class="way">{steps}</ol>'


def said(fault: str = "", remarks: Sequence[str] = ()) -> str:
    """Return what went wrong, or what a person should know, as the command line words it."""
    parts = [f'<div class="said fault" role="alert">{plain(fault)}</div>'] if fault else []
    if remarks:
        text = plain("\n".join(dict.fromkeys(remarks)))
        parts.append(f'<div class="said remark" role="status">{text}</div>')
    return "".join(parts)


def facts(lines: Sequence[str], doubts: Sequence[str] = ()) -> str:
    """Return a list of facts, and of doubts."""
    rows = [f"<li>{plain(line)}</li>" for line in lines]
    rows += [f'<li class="doubt">{plain(doubt)}</li>' for doubt in doubts]
    return f'<ul class="facts">{"".join(rows)}</ul>' if rows else ""


def curve_figure(told: str, svg: str) -> str:
    """Return a drawing of losses, whose words are as readable as the page's."""
    if not svg:
        return ""
    drawing = svg[svg.index("<svg") :].replace(
        "<svg", f'<svg role="img" aria-label="{plain(told)}"', 1
    )
    return f'<figure class="curves"><h2>Losses</h2>{drawing}</figure>'


def pictures(title: str, rows: Mapping[str, Sequence[tuple[Path, str]]]) -> str:
    """Return rows of pictures that lie in the page's folder.

    Args:
        title: What they are.
        rows: A row's name to its pictures and what each shows, which is told below the last row.
    """
    if not any(rows.values()):
        return ""
    *_, last = rows
    drawn = ""
    for name, row in rows.items():
        figures = "".join(_figure(path, words, name == last) for path, words in row)
        named = f"<h3>{plain(name)}</h3>" if name else ""
        drawn += f'{named}<div class="grid" style="--n: {len(row)}">{figures}</div>'
    return f'<section class="pictures"><h2>{plain(title)}</h2>{drawn}</section>'


def _figure(path: Path, words: str, is_told: bool) -> str:
    source = f"/gradio_api/file={plain(quote(str(path.absolute())))}"
    caption = f"<figcaption>{plain(words)}</figcaption>" if is_told else ""
    return f'<figure><img src="{source}" alt="{plain(words)}">{caption}</figure>'


def hint(text: str) -> Any:
    """Return a line that explains."""
    return gr.HTML(f'<p class="hint">{plain(text)}</p>')


def plain(text: str) -> str:
    """Return text for HTML: what anybody wrote stays text."""
    return html.escape(text)
