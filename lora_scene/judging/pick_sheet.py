"""The pick as one picture: steps against weights, scores below, the recommended pair framed."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from lora_scene.judging.picking import Pick, Tried
from lora_scene.sheets import wrapped

CELL = 176  # pixels
GAP, FRAME, EDGE = 14, 5, 36
LABEL = 92  # pixels left of the rows
STRIP = 30  # pixels of a score, below its picture
PAPER, INK, QUIET, ACCENT = "#fcfcfa", "#1c1e21", "#666b73", "#d9593d"
LOW, HIGH = np.array([238, 238, 233]), np.array([59, 125, 216])  # of the bar of a score


def draw_pick(pick: Pick) -> Image.Image:
    """Draw a pick as a sheet."""
    table = {(one.step, one.weight): one for one in pick.tried}
    width = 2 * EDGE + LABEL + len(pick.weights) * (CELL + GAP) - GAP
    head, words = ImageFont.load_default(28), ImageFont.load_default(17)
    chosen = pick.chosen
    title = f"Take step {chosen.step} at weight {chosen.weight:g}"
    lines = wrapped(f"{pick.why}.", words, width - 2 * EDGE)
    lines += wrapped(f"Judged by {pick.judge}, on {len(chosen.scores)} pictures a cell.", words,
                     width - 2 * EDGE)  # fmt: skip
    top = EDGE + 44 + 24 * len(lines) + 22
    tall = CELL + STRIP + GAP
    sheet = Image.new("RGB", (width, top + 28 + len(pick.steps) * tall + EDGE - GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((EDGE, EDGE), title, INK, head)
    for n, line in enumerate(lines):
        draw.text((EDGE, EDGE + 44 + 24 * n), line, QUIET, words)
    for j, weight in enumerate(pick.weights):
        x = EDGE + LABEL + j * (CELL + GAP) + CELL / 2
        draw.text((x, top), f"weight {weight:g}", INK, words, anchor="ma")
    scores = [one.score for one in pick.tried]
    for i, step in enumerate(pick.steps):
        y = top + 28 + i * tall
        draw.text((EDGE, y + CELL / 2), f"step\n{step}", INK, words, anchor="lm")
        for j, weight in enumerate(pick.weights):
            corner = (EDGE + LABEL + j * (CELL + GAP), y)
            one = table[step, weight]
            _draw_cell(sheet, draw, one, corner, (min(scores), max(scores)), words)
            if one is chosen:
                box = (corner[0] - FRAME - 2, y - FRAME - 2, corner[0] + CELL + FRAME + 1,
                       y + CELL + STRIP + FRAME - 3)  # fmt: skip
                draw.rounded_rectangle(box, 9, outline=ACCENT, width=FRAME)
    return sheet


def _draw_cell(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    one: Tried,
    corner: tuple[int, int],
    span: tuple[float, float],
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
) -> None:
    """Draw a picture, and below it its score as number and bar."""
    picture = Image.fromarray(one.picture)
    small = picture.width <= CELL // 2
    how = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
    sheet.paste(ImageOps.pad(picture, (CELL, CELL), how, color=PAPER), corner)
    share = (one.score - span[0]) / max(span[1] - span[0], 1e-9)
    left, top = corner[0], corner[1] + CELL
    draw.text((left, top + 5), f"{one.score:.2f}", INK, font)
    bar = (left + 52, top + 12, left + CELL - 1, top + 18)
    draw.rounded_rectangle(bar, 3, fill=tuple(LOW))
    if share > 0.02:
        end = bar[0] + round(share * (bar[2] - bar[0]))
        draw.rounded_rectangle((bar[0], bar[1], max(end, bar[0] + 6), bar[3]), 3, fill=tuple(HIGH))
