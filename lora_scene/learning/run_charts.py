"""The curves of one or several runs, as SVG texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_scene.learning.run_record import Line, RunRecord
from lora_scene.plotting import COLOURS, QUIET, as_svg, plotted

SIZE = (4.2, 2.3)  # inches, of 72 points
PLACE = (0.15, 0.19, 0.81, 0.78)  # of the axes: left, bottom, width, height
WIDE = ((5.8, 1.9), (0.07, 0.24, 0.88, 0.72))  # size and place of the chart of losses alone
MOST_POINTS = 48  # of a line; more steps are averaged in bins, with a band of where they lie
MOST_TICKS = 5  # intervals of an axis: each tick costs as much as a curve
BAND = (10, 90)  # percentiles
TITLES = {
    "diffusion": "masked loss",
    "attention": "attention loss",
    "pairwise": "overlap of maps",
    "prior": "prior loss",
    "norm": "gradient norm",
    "seconds": "seconds a step",
}

LOGARITHMIC = ("gradient norm", "learning rate")
MOST_BANDS = 4  # of more curves, bands would hide each other
DOTTED = {"marker": ".", "markersize": 6}  # of few points, which are shown
DASHED = {"linestyle": "--"}

Values = npt.NDArray[np.float64]
Frame = tuple[tuple[float, float], tuple[float, float, float, float]]  # size, place


@dataclass(frozen=True)
class Chart:
    """A picture of curves.

    Attributes:
        title: What it shows.
        svg: The picture.
    """

    title: str
    svg: str


@dataclass(frozen=True)
class Curve:
    """A line.

    Attributes:
        colour: Its number among `COLOURS`: of several runs, the run's.
        label: In the legend of a run alone.
        points: (n, 2), steps over both phases and values.
        style: Of matplotlib's `plot`.
    """

    colour: int
    label: str
    points: Values
    style: Mapping[str, Any]


def draw_charts(runs: Sequence[RunRecord]) -> list[Chart]:
    """Draw what was measured, a chart a quantity; quantities that are always 0 are left out."""
    weights = [replace(c, style=DASHED) for c in _of_steps(runs, "weights_lr", "weights")]
    if len(runs) == 1:
        weights = [replace(c, colour=1, style={}) for c in weights]
    wanted = [
        ("held loss, of draws never trained on", _looks(runs, lambda line: line.get("loss"))),
        ("attention on the masks, IoU", _fits(runs)),
        *((title, _of_steps(runs, key)) for key, title in TITLES.items()),
        ("learning rate", [*_of_steps(runs, "rows_lr", "rows"), *weights]),
    ]
    marks = sorted({run.n_first for run in runs if run.n_first})
    charts = []
    for title, curves in wanted:
        shown = [curve for curve in curves if len(curve.points) and curve.points[:, 1].any()]
        if shown:
            has_legend = len(runs) == 1 < len(shown)
            is_log = title in LOGARITHMIC
            charts.append(Chart(title, _draw(shown, marks, is_log=is_log, has_legend=has_legend)))
    return charts


def draw_losses(run: RunRecord) -> Chart:
    """Draw both losses of a run in one chart, whose title says their latest means."""
    found = {TITLES[key]: _of_steps([run], key)[0] for key in ("diffusion", "attention")}
    shown = [(title, c) for title, c in found.items() if len(c.points) and c.points[:, 1].any()]
    if not shown:
        return Chart("", "")
    curves = [replace(c, colour=n, label=title) for n, (title, c) in enumerate(shown)]
    told = [f"{curve.label} {binned(*curve.points.T)[1][-1]:.3g}" for curve in curves]
    marks = [run.n_first] if 0 < run.n_first < curves[0].points[-1, 0] else []
    return Chart(", ".join(told), _draw(curves, marks, is_log=False, has_legend=True, frame=WIDE))


def colour_of(n: int) -> tuple[str, float]:
    """Return a curve's colour and opacity; after all colours they come again, fainter."""
    return COLOURS[n % len(COLOURS)], 1 - 0.5 * (n // len(COLOURS) % 2)


def _looks(runs: Sequence[RunRecord], value: Callable[[Line], float | None]) -> list[Curve]:
    return [
        _curve(n, "", [(run.place(x), value(x)) for x in run.looks], DOTTED)
        for n, run in enumerate(runs)
    ]


def _fits(runs: Sequence[RunRecord]) -> list[Curve]:
    """Return each handle's IoU of a run alone, or the mean of each of several."""
    if len(runs) > 1:
        return _looks(runs, lambda line: _mean(line.get("ious", {})))
    run = runs[0]
    handles = dict.fromkeys(handle for line in run.looks for handle in line.get("ious", {}))
    return [
        _curve(
            n, handle, [(run.place(x), x.get("ious", {}).get(handle)) for x in run.looks], DOTTED
        )
        for n, handle in enumerate(handles)
    ]


def _of_steps(runs: Sequence[RunRecord], key: str, label: str = "") -> list[Curve]:
    return [
        _curve(n, label, [(run.place(x), x.get(key)) for x in run.steps])
        for n, run in enumerate(runs)
    ]


def _curve(
    colour: int,
    label: str,
    points: Sequence[tuple[int, float | None]],
    style: Mapping[str, Any] = MappingProxyType({}),
) -> Curve:
    there = [(step, value) for step, value in points if value is not None]
    return Curve(colour, label, np.array(there, float).reshape(-1, 2), style)


def _draw(
    curves: Sequence[Curve],
    marks: Sequence[int],
    *,
    is_log: bool,
    has_legend: bool,
    frame: Frame = (SIZE, PLACE),
) -> str:
    size, place = frame
    with plotted(size) as figure:
        figure.set_layout_engine("none")  # which draws a figure several times
        axes = figure.add_axes(place, xlabel="steps")
        axes.grid(visible=True, axis="y")
        axes.margins(x=0.01)
        axes.locator_params(nbins=MOST_TICKS)
        axes.locator_params("x", integer=True)
        for curve in curves:
            colour, opacity = colour_of(curve.colour)
            x, middle, low, high = binned(*curve.points.T)
            if len(curves) <= MOST_BANDS:
                axes.fill_between(x, low, high, color=colour, alpha=0.14, linewidth=0)
            style = {"linewidth": 1.6, "color": colour, "alpha": opacity, **curve.style}
            axes.plot(x, middle, label=curve.label, **style)
        for mark in marks:
            axes.axvline(mark, color=QUIET, linewidth=0.8, linestyle=":")
        values = np.concatenate([curve.points[:, 1] for curve in curves])
        lowest = float(values.min())
        if is_log and 0 < 10 * lowest < values.max():  # of less than a decade no tick has a number
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")  # words stay words: no markup of powers
            axes.yaxis.set_minor_formatter("")
        elif lowest >= 0:
            axes.set_ylim(bottom=0)
        if has_legend:
            axes.legend(frameon=False, fontsize=8.5, ncols=2)
        return as_svg(figure)


def binned(steps: Values, values: Values) -> tuple[Values, Values, Values, Values]:
    """Return at most `MOST_POINTS` points: steps, means, and the band that values lie in.

    Args:
        steps: (n,), rising.
        values: (n,).
    """
    if len(steps) <= MOST_POINTS:
        return steps, values, values, values
    parts = np.array_split(np.arange(len(steps)), MOST_POINTS)
    low, high = np.array([np.percentile(values[p], BAND) for p in parts]).T
    x, middle = (np.array([a[p].mean() for p in parts]) for a in (steps, values))
    return x, middle, low, high


def _mean(ious: Mapping[str, float]) -> float | None:
    return sum(ious.values()) / len(ious) if ious else None
