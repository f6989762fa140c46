"""The curves of one or several runs, as SVG texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_scene.learning.run_record import RunRecord
from lora_scene.plotting import COLOURS, QUIET, as_svg, plotted

SIZE = (5.4, 2.7)  # inches, of 72 points
PLACE = (0.125, 0.16, 0.855, 0.81)  # of the axes: left, bottom, width, height
WIDE = ((5.8, 1.9), (0.075, 0.24, 0.91, 0.72))  # size and place of the chart of losses alone
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
        label: In the legend; empty for none.
        steps: (n,), over both phases.
        values: (n,).
        is_dotted: Whether its points are few, and shown.
    """

    label: str
    steps: Values
    values: Values
    is_dotted: bool = False


def draw_charts(runs: Sequence[RunRecord]) -> list[Chart]:
    """Draw what was measured, a chart a quantity; quantities that are always 0 are left out."""
    charts = []
    is_alone = len(runs) == 1
    wanted: list[tuple[str, list[Curve], bool]] = [
        ("held loss, of draws never trained on", _looks(runs, "loss"), False),
        ("attention on the masks, IoU", _fits(runs), False),
    ]
    for key, title in TITLES.items():
        wanted.append((title, _of_steps(runs, key), key == "norm"))
    rates = [c for key in ("rows_lr", "weights_lr") for c in _of_steps(runs, key, is_named=True)]
    wanted.append(("learning rate", rates, True))
    marks = sorted({run.n_first for run in runs if run.n_first})
    for title, curves, is_log in wanted:
        shown = [curve for curve in curves if len(curve.steps) and curve.values.any()]
        if shown:
            is_named = not is_alone or len(shown) > 1
            svg = _draw(shown, marks, is_log=is_log, has_legend=is_named)
            charts.append(Chart(title, svg))
    return charts


def draw_losses(run: RunRecord) -> Chart:
    """Draw both losses of a run in one chart, whose title says their latest means."""
    found = {TITLES[key]: _of_steps([run], key)[0] for key in ("diffusion", "attention")}
    curves = [replace(c, label=title) for title, c in found.items() if c.values.any()]
    if not curves:
        return Chart("", "")
    told = [f"{curve.label} {binned(curve.steps, curve.values)[1][-1]:.3g}" for curve in curves]
    marks = [run.n_first] if 0 < run.n_first < curves[0].steps[-1] else []
    return Chart(", ".join(told), _draw(curves, marks, is_log=False, has_legend=True, frame=WIDE))


def _looks(runs: Sequence[RunRecord], key: str) -> list[Curve]:
    return [_curve(run.name, [(run.place(x), x.get(key)) for x in run.looks], True) for run in runs]


def _fits(runs: Sequence[RunRecord]) -> list[Curve]:
    """Return each handle's IoU of a run alone, or the mean of each of several."""
    if len(runs) == 1:
        run = runs[0]
        handles = dict.fromkeys(handle for line in run.looks for handle in line.get("ious", {}))
        return [
            _curve(h, [(run.place(x), x.get("ious", {}).get(h)) for x in run.looks], True)
            for h in handles
        ]
    return [
        _curve(run.name, [(run.place(x), _mean(x.get("ious", {}))) for x in run.looks], True)
        for run in runs
    ]


def _of_steps(runs: Sequence[RunRecord], key: str, *, is_named: bool = False) -> list[Curve]:
    kind = key.removesuffix("_lr") if is_named else ""
    curves = []
    for run in runs:
        label = kind if len(runs) == 1 else f"{run.name} {kind}".strip()
        curves.append(_curve(label, [(run.place(x), x.get(key)) for x in run.steps], False))
    return curves


def _curve(label: str, points: Sequence[tuple[int, float | None]], is_dotted: bool) -> Curve:
    there = [(step, value) for step, value in points if value is not None]
    steps, values = zip(*there, strict=True) if there else ((), ())
    return Curve(label, np.array(steps, float), np.array(values, float), is_dotted)


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
        for n, curve in enumerate(curves):
            colour = COLOURS[n % len(COLOURS)]
            x, middle, low, high = binned(curve.steps, curve.values)
            axes.fill_between(x, low, high, color=colour, alpha=0.14, linewidth=0)
            style: dict[str, Any] = {"marker": ".", "markersize": 6} if curve.is_dotted else {}
            axes.plot(x, middle, color=colour, linewidth=1.6, label=curve.label, **style)
        for mark in marks:
            axes.axvline(mark, color=QUIET, linewidth=0.8, linestyle=":")
        if is_log and all((curve.values > 0).all() for curve in curves):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")  # words stay words: no markup of powers
            axes.yaxis.set_minor_formatter("")
        elif min(float(curve.values.min()) for curve in curves) >= 0:
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
