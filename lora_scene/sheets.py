"""Contact sheets: labelled grids and strips of pictures, legible whatever the pictures' size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from lora_scene.scenes.pictures import Pixels

MIN_CELL = 160  # pixels; smaller pictures are enlarged by a whole factor, pixel by pixel
FONT_SHARE = 0.08  # of a cell's width
MIN_FONT = 14  # pixels
MARGIN = 6  # pixels between cells
PAPER, INK, ABSENT = "white", "black", "lightgrey"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def contact_sheet(
    cells: Sequence[Sequence[Pixels | None]],
    *,
    columns: Sequence[str] = (),
    rows: Sequence[str] = (),
    like: Pixels | None = None,
) -> Image.Image:
    """Lay pictures out in a grid, with a label above each column and left of each row.

    Args:
        cells: Rows of pictures (H, W, 3) uint8, of any sizes; None leaves a grey cell.
        columns: One label a column, or none.
        rows: One label a row, or none.
        like: A picture of whose size all cells are, others fitted in; None takes the largest.
    """
    pictures = [picture for row in cells for picture in row if picture is not None]
    factor = enlargement([like] if like is not None else pictures)
    sized = [like] if like is not None else pictures
    width = max(picture.shape[1] for picture in sized) * factor
    height = max(picture.shape[0] for picture in sized) * factor
    font = ImageFont.load_default(max(MIN_FONT, round(FONT_SHARE * width)))
    gutter = width + MARGIN if any(rows) else 0
    head = _text_height(columns, font, width) + MARGIN if any(columns) else 0
    tall = max(height, _text_height(rows, font, width)) if any(rows) else height
    n_columns = max(len(row) for row in cells)
    sheet = Image.new(
        "RGB",
        (gutter + n_columns * (width + MARGIN) + MARGIN, head + len(cells) * (tall + MARGIN)),
        PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    for j, label in enumerate(columns):
        _write(draw, label, font, (gutter + MARGIN + j * (width + MARGIN), MARGIN // 2), width)
    for i, row in enumerate(cells):
        top = head + i * (tall + MARGIN)
        if any(rows):
            _write(draw, rows[i], font, (MARGIN, top), width)
        for j, picture in enumerate(row):
            corner = (gutter + MARGIN + j * (width + MARGIN), top)
            if picture is None:
                draw.rectangle((*corner, corner[0] + width - 1, corner[1] + height - 1), ABSENT)
            else:
                shown = _shown(picture, factor, (width, height), is_fitted=like is not None)
                sheet.paste(shown, corner)
    return sheet


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


def _shown(picture: Pixels, factor: int, cell: tuple[int, int], *, is_fitted: bool) -> Image.Image:
    """Return a picture enlarged pixel by pixel; one of another size than its cell, fitted in."""
    height, width = (side * factor for side in picture.shape[:2])
    if is_fitted and (width, height) != cell:
        return ImageOps.pad(Image.fromarray(picture), cell, color=PAPER)
    return Image.fromarray(np.repeat(np.repeat(picture, factor, axis=0), factor, axis=1))


def _write(
    draw: ImageDraw.ImageDraw,
    text: str,
    font: Font,
    corner: tuple[int, int],
    width: int,
) -> None:
    draw.multiline_text(corner, "\n".join(wrapped(text, font, width)), INK, font)


def _text_height(texts: Sequence[str], font: Font, width: int) -> int:
    probe = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    boxes = [
        probe.multiline_textbbox((0, 0), "\n".join(wrapped(text, font, width)), font)
        for text in texts
    ]
    return int(max(box[3] for box in boxes)) + MARGIN


def wrapped(text: str, font: Font, width: int) -> list[str]:
    """Break a text into lines that are no wider than `width`, between words where it can be."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in _pieces(paragraph, font, width):
            joined = f"{line} {word}".strip()
            if font.getlength(joined) <= width or not line:
                line = joined
            else:
                lines.append(line)
                line = word
        lines.append(line)
    return lines


def _pieces(text: str, font: Font, width: int) -> Iterator[str]:
    """Yield the words of a text, those that are wider than `width` in parts."""
    for word in text.split():
        start = 0
        for end in range(1, len(word) + 1):
            if font.getlength(word[start : end + 1]) > width or end == len(word):
                yield word[start:end]
                start = end
