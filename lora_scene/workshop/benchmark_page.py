"""The report of a benchmark: one HTML file that needs nothing else, and its tables as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lora_scene.errors import JudgingError
from lora_scene.files import write_text
from lora_scene.pages import fill_page, inlined, inlined_file
from lora_scene.scenes.pictures import Pixels, open_image
from lora_scene.sheets import contact_sheet
from lora_scene.workshop.fingerprints import refuse_mixed
from lora_scene.workshop.plots import Dot, pareto_plot
from lora_scene.workshop.results import read_rows, scene_folder
from lora_scene.workshop.statistics import Row, method_interval, methods_of
from lora_scene.workshop.tables import Table, cost_table, difference_table, quality_table

CELL = 160  # pixels of a picture on a sheet
N_SHEETS = 6  # scenes that are shown
N_COLUMNS = 7  # pictures of each method on a scene's sheet
N_FAILURES = 6  # of each method
HTML, MARKDOWN = "report.html", "report.md"


def write_report(
    out: Path,
    *,
    title: str,
    methods: Sequence[str] = (),
    reference: str = "",
    note: str = "",
    rows: Sequence[Row] | None = None,
) -> Path:
    """Write `report.html` and `report.md` into RESULTS.

    Args:
        out: RESULTS.
        title: The protocol's name.
        methods: Their order in tables; those that are not named come last.
        reference: The method that differences are taken against.
        note: Words of the protocol's author.
        rows: Which; None takes all that are there.

    Returns:
        The HTML file.

    Raises:
        JudgingError: No run is finished, or the rows do not compare.
    """
    rows = read_rows(out) if rows is None else rows
    if not rows:
        raise JudgingError("no run is finished, so there is nothing to report", where=out)
    refuse_mixed(rows, out)
    order = {method: position for position, method in enumerate(methods)}
    rows = sorted(rows, key=lambda row: order.get(row["method"], len(order)))
    tables = report_tables(rows, reference)
    head = _summary_line(rows)
    markdown = "\n".join([f"## {title}", "", head, "", *(t.as_markdown() for t in tables)])
    write_text(out / MARKDOWN, markdown)
    page = fill_page(
        "workshop",
        "benchmark_page.html",
        title=title,
        head=head,
        note=note,
        groups=[_group_part(rows, group, tables) for group in _groups_of(rows)],
        costs=tables[-1],
        sheets=_sheets([row for row in rows if row["pictures"]], out),
        failures=_failures(rows, out),
    )
    write_text(out / HTML, page)
    return out / HTML


def _groups_of(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["group"] for row in rows))


def _group_part(rows: Sequence[Row], group: str, tables: Sequence[Table]) -> dict[str, Any]:
    """Return what the page shows of a group of scenes."""
    return {
        "name": group,
        "plot": inlined_file(
            group_plot([row for row in rows if row["group"] == group]).encode(), "svg+xml"
        ),
        "tables": [table for table in tables if table.title.startswith(f"{group}: ")],
    }


def report_tables(rows: Sequence[Row], reference: str) -> list[Table]:
    """Return the tables: quality and differences of each group of scenes, then costs."""
    tables: list[Table] = []
    for group in _groups_of(rows):
        tables.append(quality_table(rows, group))
        differences = difference_table(rows, group, reference=reference)
        if differences is not None:
            tables.append(differences)
    return [*tables, cost_table(rows)]


def group_plot(rows: Sequence[Row]) -> str:
    """Draw identity against prompt, and each method's course over the weight and over steps."""
    places = {method: _place(rows, method, label=method) for method in methods_of(rows)}
    found = {method: place for method, place in places.items() if place is not None}
    course_of = {row["method"]: row["course_of"] for row in rows}
    whole = {name for name in found if course_of[name] not in found or course_of[name] == name}
    points = {name: place for name, place in found.items() if course_of[name] not in whole - {name}}
    curves = []
    for method in points:
        courses = (_course(rows, method), _course_over_steps(rows, method))
        curves += [(method, course) for course in courses if len(course) > 1]
    if not points:
        return ""
    return pareto_plot(points, curves, x_title="prompt similarity", y_title="identity similarity")


def _course(rows: Sequence[Row], method: str) -> list[Dot]:
    """Return a method's places at rising weights."""
    weights = {weight for row in rows if row["method"] == method for weight in row["curve"]}
    places = [_place(rows, method, label=w, weight=w) for w in sorted(weights, key=float)]
    return [place for place in places if place is not None]


def _course_over_steps(rows: Sequence[Row], method: str) -> list[Dot]:
    """Return a method's places after more and more image-forwards, its own place last."""
    forwards = {
        row["method"]: row["image_forwards"]
        for row in rows
        if method in (row["method"], row["course_of"])
    }
    ordered = sorted(forwards, key=lambda name: float(forwards[name]))
    places = [_place(rows, name, label=f"{forwards[name]} f") for name in ordered]
    return [place for place in places if place is not None]


def _place(
    rows: Sequence[Row], method: str, *, label: str, weight: str | None = None
) -> Dot | None:
    x, y = (
        method_interval(rows, method, metric=metric, weight=weight)
        for metric in ("prompt_similarity", "identity")
    )
    return None if x is None or y is None else Dot(x, y, label)


def _summary_line(rows: Sequence[Row]) -> str:
    hours = sum(row["seconds"] + row["judging_seconds"] for row in rows) / 3600
    scenes = {(row["group"], row["scene"]) for row in rows}
    judges = ", ".join(sorted({row["judge"] for row in rows}))
    return (
        f"Runs: {len(rows)}. Methods: {len(methods_of(rows))}. Scenes: {len(scenes)}. "
        f"Judge: {judges}. Hours of one process: {hours:.2f}."
    )


def _sheets(rows: Sequence[Row], out: Path) -> list[tuple[str, str]]:
    """Return the names of some scenes, and all methods' pictures of each."""
    scenes = list(dict.fromkeys(map(_scene_of, rows)))
    return [
        (scene, inlined(scene_sheet([r for r in rows if _scene_of(r) == (group, scene)], out)))
        for group, scene in scenes[:N_SHEETS]
    ]


def _scene_of(row: Row) -> tuple[str, str]:
    return row["group"], row["scene"]


def scene_sheet(rows: Sequence[Row], out: Path) -> Image.Image:
    """Draw a scene's photo, then each method's pictures of the same prompts.

    Args:
        rows: Of one scene, with pictures; of a method's several rows the first is shown.
        out: RESULTS.
    """
    first = {row["method"]: row for row in reversed(rows)}
    picked = _telling_pictures(rows[0])
    nouns = rows[0]["nouns"]
    named = "plain" if len(set(nouns)) == len(nouns) else "prompt"  # or two things had one name
    columns = ["photo", *(one[named] for one in picked)]
    photo = _thumbnail(scene_folder(out, rows[0]) / "photo0.png")
    cells = []
    for method in methods_of(rows):
        drawn = {_asked(one): one["file"] for one in first[method]["pictures"]}
        files = [drawn.get(_asked(one)) for one in picked]
        folder = out / "runs" / first[method]["key"]
        cells.append([photo, *(_thumbnail(folder / f) if f else None for f in files)])
    return contact_sheet(cells, columns=columns, rows=methods_of(rows))


def _asked(one: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what a picture was asked for, by whatever method: two things may have one noun."""
    return one["plain"], one["seed"], *one["subset"]


def _telling_pictures(row: Row) -> list[Mapping[str, Any]]:
    """Return pictures of one seed, each of another subset: all concepts, each alone, then others.

    The prompts take turns.
    """
    seed = row["pictures"][0]["seed"]
    of: dict[tuple[int, ...], list[Mapping[str, Any]]] = {}
    for one in row["pictures"]:
        if one["seed"] == seed:
            of.setdefault(tuple(one["subset"]), []).append(one)
    largest = max(map(len, of))
    subsets = sorted(of, key=lambda subset: (len(subset) < largest, len(subset), subset))
    return [of[subset][i % len(of[subset])] for i, subset in enumerate(subsets[:N_COLUMNS])]


def _failures(rows: Sequence[Row], out: Path) -> str:
    """Draw the pictures with the most missing and mixed concepts, methods down; none if none is."""
    worst: dict[str, list[tuple[int, str]]] = {}
    for row in rows:
        for one in row["pictures"]:
            n_wrong = len(one["missing"]) + len(one["mixed"])
            if n_wrong:
                place = (-n_wrong, str(out / "runs" / row["key"] / one["file"]))
                worst.setdefault(row["method"], []).append(place)
    cells = [
        [_thumbnail(Path(path)) for _, path in sorted(own)[:N_FAILURES]] for own in worst.values()
    ]
    is_there = any(cell is not None for row in cells for cell in row)
    return inlined(contact_sheet(cells, rows=list(worst))) if is_there else ""


def _thumbnail(path: Path) -> Pixels | None:
    """Return a picture, small; None, which leaves its place empty, where it was deleted since."""
    if not path.is_file():
        return None
    small = open_image(path)[0].convert("RGB")
    if max(small.size) > CELL:
        small.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
    return np.asarray(small)
