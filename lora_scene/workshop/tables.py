"""The report's tables: rows of a benchmark to cells, and cells to Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lora_scene.workshop.statistics import (
    Interval,
    Row,
    method_interval,
    methods_of,
    paired_difference,
)

METRICS: Mapping[str, str] = {
    "exact_set": "exact set ↑",
    "identity": "identity ↑",
    "prompt_similarity": "prompt ↑",
    "missing_rate": "missing ↓",
    "mixing_rate": "mixing ↓",
    "repeat_rate": "repeats ↓",
    "identity_each": "identity, each copy ↑",
    "unlike_rate": "unlike copies ↓",
    "off_diagonal": "off-diagonal ↓",
    "layout_copy": "places copied ↓",
    "background": "background kept ↓",
    "diversity": "diversity ↑",
    "drift": "drift ↓",
    "attention_iou": "attention IoU ↑",
}
COMPARED = (
    "exact_set",
    "identity",
    "prompt_similarity",
    "missing_rate",
    "mixing_rate",
    "repeat_rate",
    "identity_each",
    "unlike_rate",
    "layout_copy",
    "diversity",
    "drift",
)


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: Above it.
        header: One a column.
        rows: The texts.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def as_markdown(self) -> str:
        """Return it as Markdown."""
        lines = [f"### {self.title}", "", _line(self.header)]
        lines.append("|" + "---|" + "---:|" * (len(self.header) - 1))
        lines += [_line(row) for row in self.rows]
        return "\n".join(lines) + "\n"


def quality_table(rows: Sequence[Row], group: str) -> Table:
    """Return every metric's mean and 95 % interval, one row per method."""
    own = [row for row in rows if row["group"] == group]
    scenes = _n_scenes(own)
    body = []
    for method in methods_of(own):
        means = [method_interval(own, method, metric=metric) for metric in METRICS]
        body.append((method, *(told(one, n_scenes=scenes) for one in means)))
    over = f"{scenes} scenes, with 95 % intervals" if scenes > 1 else "1 scene"
    title = f"{group}: means over {over}"
    return Table(title, ("method", *METRICS.values()), tuple(body))


def difference_table(rows: Sequence[Row], group: str, *, reference: str) -> Table | None:
    """Return the paired differences to a method, or None where it is not in the group."""
    own = [row for row in rows if row["group"] == group]
    others = [method for method in methods_of(own) if method != reference]
    if reference not in methods_of(own) or not others:
        return None
    scenes, body = _n_scenes(own), []
    for method in others:
        differences = [
            paired_difference(own, method, reference=reference, metric=metric)
            for metric in COMPARED
        ]
        body.append((method, *(told(one, signed=True, n_scenes=scenes) for one in differences)))
    header = ("method", *(METRICS[metric] for metric in COMPARED))
    return Table(f"{group}: difference to {reference}, scene by scene", header, tuple(body))


def cost_table(rows: Sequence[Row]) -> Table:
    """Return what each method costs, in means over its runs."""
    body = []
    for method in methods_of(rows):
        own = [row for row in rows if row["method"] == method]

        def mean(key: str, own: Sequence[Row] = own) -> float:
            return sum(float(row[key]) for row in own) / len(own)

        body.append(
            (
                method,
                f"{len(own)}",
                f"{mean('n_parameters'):,.0f}",
                f"{mean('n_bytes') / 1e6:.2f}",
                f"{mean('image_forwards'):,.0f}",
                f"{mean('seconds'):.0f}",
                f"{mean('peak_bytes') / 1e9:.2f}",
            )
        )
    header = (
        "method", "runs", "trained numbers", "file MB", "image-forwards", "training s", "peak GB"
    )  # fmt: skip
    return Table("What it costs, means over runs", header, tuple(body))


def told(one: Interval | None, *, signed: bool = False, digits: int = 3, n_scenes: int = 1) -> str:
    """Write a mean and its interval, or a dash; of fewer than `n_scenes`, of how many."""
    if one is None:
        return "–"
    mean, low, high = (
        _number(value, signed=signed, digits=digits) for value in (one.mean, one.low, one.high)
    )
    if one.n == 1:
        return f"{mean} (1 scene)"
    return f"{mean} [{low}, {high}]" + (f" ({one.n} scenes)" if one.n < n_scenes else "")


def _n_scenes(rows: Sequence[Row]) -> int:
    return len({row["scene"] for row in rows})


def _number(value: float, *, signed: bool, digits: int) -> str:
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("+-")  # no zero has a sign


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
