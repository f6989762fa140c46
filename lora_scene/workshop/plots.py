"""Plots as SVG texts: of the same bytes for the same points, readable on light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_scene.plotting import COLOURS, as_svg, plotted
from lora_scene.workshop.statistics import Interval

SIZE = (8.4, 5.0)  # inches, of 72 points


@dataclass(frozen=True)
class Dot:
    """A method's place in the plane.

    Attributes:
        x: Across.
        y: Up.
        label: Beside it; empty for none.
    """

    x: Interval
    y: Interval
    label: str = ""


def pareto_plot(
    points: Mapping[str, Dot],
    curves: Sequence[tuple[str, Sequence[Dot]]],
    *,
    x_title: str,
    y_title: str,
) -> str:
    """Draw methods as crosses of their intervals, and their courses as lines.

    Args:
        points: Method to its place.
        curves: A method and its places, at rising weights or after more and more steps.
        x_title: Below.
        y_title: Beside.

    Returns:
        An SVG.
    """
    with plotted(SIZE) as figure:
        axes = figure.add_subplot(xlabel=f"{x_title} →", ylabel=f"{y_title} →")
        axes.grid(visible=True)
        colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(points)}
        for n, (name, line) in enumerate(curves):
            _draw_course(axes, line, colours[name], gid=f"course-{n}")
        drawn: list[Any] = [
            axes.errorbar(
                point.x.mean, point.y.mean, _reach(point.y), _reach(point.x),
                fmt="o", color=colours[name], markersize=6, linewidth=1.4,
            )
            for name, point in points.items()
        ]  # fmt: skip
        legend = figure.legend(drawn, ["."] * len(drawn), loc="outside right upper", frameon=False)
        for text, name in zip(legend.get_texts(), points, strict=True):
            text.set_text(name)  # as a label, a name that begins with _ would be left out
        return as_svg(figure)


def _draw_course(axes: Any, line: Sequence[Dot], colour: str, *, gid: str) -> None:
    x, y = [p.x.mean for p in line], [p.y.mean for p in line]
    axes.plot(x, y, "--", color=colour, linewidth=1.1, marker=".", markersize=5, gid=gid)
    for place, point in zip(zip(x, y, strict=True), line, strict=True):
        axes.annotate(point.label, place, (4, 4), textcoords="offset points", fontsize=7.5)


def _reach(one: Interval) -> list[list[float]]:
    """Return how far an interval goes below and above its mean, as matplotlib wants it."""
    return [[max(one.mean - one.low, 0.0)], [max(one.high - one.mean, 0.0)]]
