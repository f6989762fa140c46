"""Contact sheets: labelled grids and strips of pictures, legible whatever the pictures' size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lora_scene.creating.sampling import Pixels

MIN_CELL = 160  # pixels; smaller pictures are enlarged by a whole factor, pixel by pixel
FONT_SHARE = 0.08  # of a cell's width
MIN_FONT = 14  # pixels
MARGIN = 6  # pixels between cells
PAPER, INK, ABSENT = "white", "black", "lightgrey"


def contact_sheet(
    cells: Sequence[Sequence[Pixels | None]],
    *,
    columns: Sequence[str] = (),
    rows: Sequence[str] = (),
) -> Image.Image:
    """Lay pictures out in a grid, with a label above each column and left of each row.

    Args:
        cells: Rows of pictures (H, W, 3) uint8, of any sizes; None leaves a grey cell.
        columns: One label a column, or none.
        rows: One label a row, or none.
    """
    pictures = [picture for row in cells for picture in row if picture is not None]
    factor = enlargement(pictures)
    width = max(picture.shape[1] for picture in pictures) * factor
    height = max(picture.shape[0] for picture in pictures) * factor
    font = ImageFont.load_default(max(MIN_FONT, round(FONT_SHARE * width)))
    gutter = width + MARGIN if any(rows) else 0
    head = _text_height(columns, font, width) + MARGIN if any(columns) else 0
    n_columns = max(len(row) for row in cells)
    sheet = Image.new(
        "RGB",
        (gutter + n_columns * (width + MARGIN) + MARGIN, head + len(cells) * (height + MARGIN)),
        PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    for j, label in enumerate(columns):
        _write(draw, label, font, (gutter + MARGIN + j * (width + MARGIN), MARGIN // 2), width)
    for i, row in enumerate(cells):
        top = head + i * (height + MARGIN)
        if any(rows):
            _write(draw, rows[i], font, (MARGIN, top), width)
        for j, picture in enumerate(row):
            corner = (gutter + MARGIN + j * (width + MARGIN), top)
            if picture is None:
                draw.rectangle((*corner, corner[0] + width - 1, corner[1] + height - 1), ABSENT)
            else:
                sheet.paste(_enlarged(picture, factor), corner)
    return sheet


def strip(pictures: Sequence[Pixels], *, labels: Sequence[str] = ()) -> Image.Image:
    """Lay pictures out in one row."""
    return contact_sheet([list(pictures)], columns=labels)


def stacked(sheets: Sequence[Image.Image]) -> Image.Image:
    """Lay sheets under each other, left sides flush."""
    whole = Image.new("RGB", (max(s.width for s in sheets), sum(s.height for s in sheets)), PAPER)
    top = 0
    for sheet in sheets:
        whole.paste(sheet, (0, top))
        top += sheet.height
    return whole


def enlargement(pictures: Sequence[Pixels]) -> int:
    """Return the whole factor that makes the widest picture at least `MIN_CELL` wide."""
    widest = max(int(picture.shape[1]) for picture in pictures)
    return -(-MIN_CELL // widest)


def _enlarged(picture: Pixels, factor: int) -> Image.Image:
    return Image.fromarray(np.repeat(np.repeat(picture, factor, axis=0), factor, axis=1))


def _write(
    draw: ImageDraw.ImageDraw,
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    corner: tuple[int, int],
    width: int,
) -> None:
    draw.multiline_text(corner, "\n".join(_wrapped(text, font, width)), INK, font)


def _text_height(
    texts: Sequence[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> int:
    probe = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    boxes = [
        probe.multiline_textbbox((0, 0), "\n".join(_wrapped(text, font, width)), font)
        for text in texts
    ]
    return int(max(box[3] for box in boxes)) + MARGIN


def _wrapped(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> list[str]:
    """Break a text into lines that are no wider than `width`, between words where it can be."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            joined = f"{line} {word}".strip()
            if font.getlength(joined) <= width or not line:
                line = joined
            else:
                lines.append(line)
                line = word
        lines.append(line)
    return lines
