"""Plots as SVG texts: no plotting library, sharp at any size, light and dark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from lora_scene.workshop.statistics import Interval

WIDTH, HEIGHT = 760, 480
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 16, 52
COLOURS = (
    "#3b7dd8", "#d9593d", "#3f9c5a", "#9457c2", "#c98a12", "#21a0a8",
    "#c2487f", "#76777d", "#7a8f1f", "#5a5fc7", "#a0622d", "#2d6f6a",
)  # fmt: skip


@dataclass(frozen=True)
class Point:
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
    points: Mapping[str, Point],
    curves: Sequence[tuple[str, Sequence[Point]]],
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
    """
    everything = [*points.values(), *(point for _, line in curves for point in line)]
    if not everything:
        return ""
    across = _scale([v for p in everything for v in (p.x.low, p.x.high)], LEFT, WIDTH - RIGHT)
    up = _scale([v for p in everything for v in (p.y.low, p.y.high)], HEIGHT - BOTTOM, TOP)
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(points)}
    body = [_axes(across, up, x_title, y_title)]
    for name, line in curves:
        body.append(_curve(line, across, up, colours[name]))
    for name, point in points.items():
        body.append(_cross(name, point, across, up, colours[name]))
    body.append(_legend(points, colours))
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_title)} against '
        f'{escape(x_title)}" class="plot">{"".join(body)}</svg>'
    )


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    place: Callable[[float], float]

    def ticks(self) -> list[float]:
        step = (self.high - self.low) / 4
        return [self.low + n * step for n in range(5)]


def _scale(values: Sequence[float], start: float, end: float) -> _Scale:
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.05
    low, high = low - margin, high + margin
    return _Scale(low, high, lambda v: start + (v - low) / (high - low) * (end - start))


def _axes(across: _Scale, up: _Scale, x_title: str, y_title: str) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<rect class="field" x="{LEFT}" y="{TOP}" width="{right - LEFT}" '
             f'height="{bottom - TOP}"/>']  # fmt: skip
    for tick in across.ticks():
        x = across.place(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{tick:.3f}</text>')
    for tick in up.ticks():
        y = up.place(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:.3f}</text>')
    middle = (TOP + bottom) / 2
    parts.append(f'<text class="title" x="{(LEFT + right) / 2}" y="{HEIGHT - 10}" '
                 f'text-anchor="middle">{escape(x_title)} →</text>')  # fmt: skip
    parts.append(f'<text class="title" transform="translate(14 {middle}) rotate(-90)" '
                 f'text-anchor="middle">{escape(y_title)} →</text>')  # fmt: skip
    return "".join(parts)


def _cross(name: str, point: Point, across: _Scale, up: _Scale, colour: str) -> str:
    x, y = across.place(point.x.mean), up.place(point.y.mean)
    ends = (across.place(point.x.low), across.place(point.x.high))
    tops = (up.place(point.y.low), up.place(point.y.high))
    return (
        f'<g stroke="{colour}" fill="{colour}"><title>{escape(name)}: {point.x.mean:.3f}, '
        f'{point.y.mean:.3f}</title>'
        f'<line x1="{ends[0]:.1f}" y1="{y:.1f}" x2="{ends[1]:.1f}" y2="{y:.1f}"/>'
        f'<line x1="{x:.1f}" y1="{tops[0]:.1f}" x2="{x:.1f}" y2="{tops[1]:.1f}"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5"/></g>'
    )  # fmt: skip


def _curve(line: Sequence[Point], across: _Scale, up: _Scale, colour: str) -> str:
    places = [(across.place(p.x.mean), up.place(p.y.mean), p.label) for p in line]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>'
        f'<text class="weight" x="{x + 5:.1f}" y="{y - 5:.1f}">{escape(label)}</text>'
        for x, y, label in places
    )
    return (
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5" '
        f'stroke-dasharray="4 3"/>{dots}'
    )


def _legend(points: Mapping[str, Point], colours: Mapping[str, str]) -> str:
    x = WIDTH - RIGHT + 18
    return "".join(
        f'<circle cx="{x}" cy="{TOP + 10 + 22 * i}" r="5" fill="{colours[name]}"/>'
        f'<text x="{x + 12}" y="{TOP + 14 + 22 * i}">{escape(name)}</text>'
        for i, name in enumerate(points)
    )
