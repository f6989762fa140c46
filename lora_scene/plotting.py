"""How every plot looks: readable on light and dark, words as words, the same bytes every time."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

QUIET = "#83878e"  # of axes and their words
COLOURS = (
    "#3b7dd8", "#d9593d", "#3f9c5a", "#9457c2", "#c98a12", "#21a0a8",
    "#c2487f", "#76777d", "#7a8f1f", "#5a5fc7", "#a0622d", "#2d6f6a",
)  # fmt: skip
SETTINGS: Mapping[str, Any] = {
    "svg.hashsalt": "lora_scene",
    "svg.fonttype": "none",  # words stay words
    "text.parse_math": False,  # a name may hold dollars
    "font.family": "sans-serif",
    "font.size": 9.5,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), QUIET),
    **dict.fromkeys(("axes.edgecolor", "grid.color"), QUIET),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    "grid.alpha": 0.25,
}


@contextmanager
def plotted(size: tuple[float, float]) -> Iterator[Any]:
    """Give an empty figure, in the house's colours while it is drawn.

    Args:
        size: Width and height, inches of 72 points.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(dict(SETTINGS)):
        yield Figure(size, layout="constrained")


def as_svg(figure: Any) -> str:
    """Return a figure as an SVG without a background; call it while the figure is `plotted`."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    for part in (figure, *figure.axes):
        part.patch.set(facecolor="none", edgecolor="none")
    file = io.StringIO()
    FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})  # `savefig` draws it twice
    return file.getvalue()
