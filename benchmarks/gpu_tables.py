"""The tables of a day on a GPU, from the lines that `benchmarks.gpu_day` wrote.

    python -m benchmarks.gpu_tables gpu.jsonl --page benchmarks/notes/gpu.md

Without `--page` they are printed. In the page they stand between two marks and replace what stood
there, so that no figure is ever typed. Of lines about the same thing the last counts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

BEGIN, END = (
    "<!-- gpu tables: written by benchmarks/gpu_tables.py -->",
    "<!-- end of gpu tables -->",
)
CONTENDERS = {
    "ours": "this package",
    "ours, asking": "this package, asking the base",
    "reference": "published algorithm",
    "diffusers": "plain diffusers LoRA",
}
Line = Mapping[str, Any]


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def latest(lines: Iterable[Line], *keys: str) -> dict[tuple[Any, ...], Line]:
    """Return the last line for each combination of `keys`, in the order of the first."""
    return {tuple(line.get(key) for key in keys): line for line in lines}


def step_times(lines: Sequence[Line]) -> str:
    """Tabulate milliseconds a step and the share of the device's arithmetic, a phase a column."""
    found = latest(
        (line for line in lines if "peak_teraflop_per_s" in line),
        *("base", "contender", "concepts", "optimizer", "phase"),
    )
    variants = dict.fromkeys(key[:-1] for key in found)
    rows = []
    for base, name, n, optimizer in variants:
        lines_of_phases = [found.get((base, name, n, optimizer, phase)) for phase in (1, 2)]
        cells = map(_step_cell, lines_of_phases)
        rows.append([base, CONTENDERS.get(name, name), n, optimizer or "", *cells])
    heads = ("base", "contender", "concepts", "optimizer", "phase 1, ms", "phase 2, ms")
    return table(heads, rows) if rows else ""


def _step_cell(line: Line | None) -> str:
    if line is None:
        return ""
    if not line["fits"]:
        return "does not fit"
    low, _, high = (1000 * value for value in line["quartiles_s"])
    apart = ", alone" if line["apart"] else ""
    share = f", {100 * line['share_of_peak']:.0f} % of its products"
    return f"{1000 * line['median_s']:.0f} ({low:.0f}-{high:.0f}){share}{apart}"


def peaks(lines: Sequence[Line]) -> str:
    """Tabulate peaks in GB (10^9 bytes) beside the estimate."""
    found = latest(
        (line for line in lines if "passed" in line),
        *("recipe", "contender", "phase", "imitated_gib"),
    )
    rows = []
    for (recipe, name, phase, card), line in found.items():
        taken = [line.get(kind) for kind in ("allocated_bytes", "reserved_bytes", "step_bytes")]
        parts = line.get("estimated_parts")
        expected = sum(parts.values()) if parts else None
        outcome = "passed" if line["passed"] else "out of memory"
        limit = f"{card:g} GiB" if card else "whole"
        row = [recipe, CONTENDERS.get(name, name), phase, limit, outcome]
        rows.append([*row, *map(_gigabytes, [*taken, expected])])
    heads = ("recipe", "contender", "phase", "card", "outcome", "allocated", "reserved")
    return table((*heads, "rise in a step", "estimated"), rows) if rows else ""


def _gigabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e9:.2f}"


def trainings(parts: Mapping[str, Line]) -> str:
    """Tabulate the demo scene's trainings and the gradients' cosines, a dtype a row."""
    rows = []
    for dtype in ("fp32", "bf16", "fp16"):
        cosine = parts.get(f"gradients in {dtype}", {})
        run = parts.get(f"training in {dtype}", {})
        if not cosine and not run:
            continue
        told = run.get("summary", {})
        cells: list[object] = [""] * 5
        if told:
            size = _gigabytes(told["peak_bytes"])
            judged = run.get("judged", {}).get("summary", {})
            marks = [f"{judged[key]:.2f}" if judged else "" for key in ("exact_set", "identity")]
            cells = [f"{told['seconds']:.0f}", size, told["n_skipped"], *marks]
        elif run:
            cells = ["failed", *[""] * 4]
        angles = [
            f"{cosine[key]:.4f} ({cosine[f'{key}_least']:.4f})" if key in cosine else ""
            for key in ("rows", "factors")
        ]
        rows.append([dtype, *cells, *angles])
    heads = (
        "dtype",
        "seconds",
        "peak, GB",
        "skipped steps",
        "exact set",
        "identity",
        "cosine, rows (least)",
        "factors (least)",
    )
    return table(heads, rows) if rows else ""


def programs(parts: Mapping[str, Line]) -> str:
    """Tabulate how each program of the day ended."""
    rows = [
        [name, _outcome(line["exit"]), line["seconds"]]
        for name, line in parts.items()
        if "exit" in line
    ]
    return table(("part", "end", "seconds"), rows) if rows else ""


def _outcome(code: int | None) -> str:
    if code is None:
        return "stopped: out of its time"
    return f"exit {code}" if code else "ended well"


def day(lines: Sequence[Line]) -> str:
    """Tabulate the command lines of a whole day, start and loading counted."""
    rows = [
        [line["verb"], _outcome(line["exit"]), line["seconds"], line["peak_gb"]]
        for line in lines
        if "verb" in line
    ]
    heads = ("command", "end", "seconds", "memory beside the card's, GB")
    return table(heads, rows) if rows else ""


def sections(lines: Sequence[Line]) -> Iterator[str]:
    """Yield the page's part, a heading and a table at a time."""
    parts = {key[0]: line for key, line in latest(lines, "part").items() if key[0]}
    about = lines[-1]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    yield f"## On a GPU (measured)\n{about['device']}; commit {about['commit']}; {versions}."
    own = parts.get("own share", {}).get("context_bytes")
    if own is not None:
        yield f"CUDA itself takes {own / 1e9:.2f} GB of the card beside torch's allocator."
    for heading, text in (
        ("### Time of a step, medians with quartiles", step_times(lines)),
        ("### Peak memory, GB", peaks(lines)),
        ("### The demo scene in each dtype; gradients' cosine with float32's", trainings(parts)),
        ("### A day with SD 1.5, 512 px: 100 + 100 steps of recipe `sd15`", day(lines)),
        ("### How each part ended", programs(parts)),
    ):
        if text:
            yield f"{heading}\n\n{text}"


def put(page: str, text: str) -> str:
    """Return a page with `text` between its marks.

    Raises:
        ValueError: The page has no marks.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no line {BEGIN!r} with {END!r} after it")
    return f"{head}{BEGIN}\n{text}\n{END}{tail}"


def main() -> None:
    """Print the tables, or put them into a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lines", type=Path)
    parser.add_argument("--page", type=Path, help="a Markdown page with the marks")
    given = parser.parse_args()
    lines = [json.loads(line) for line in given.lines.read_text("utf-8").splitlines()]
    text = "\n\n".join(sections(lines))
    if given.page is None:
        print(text)
        return
    given.page.write_text(put(given.page.read_text("utf-8"), text), "utf-8", newline="\n")


if __name__ == "__main__":
    main()
