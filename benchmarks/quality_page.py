"""Write the tables and pictures of docs/quality.md and its pages, and the README's row.

From a benchmark; Q = python -m benchmarks.quality_page, R = benchmarks/results:

Q tables R/mini.jsonl docs/quality/methods.md
Q tables R/hard.jsonl docs/quality/hard.md --of hard
Q tables R/mini-earlier.jsonl docs/quality/earlier.md --of earlier
Q tables R/long-test.jsonl docs/quality.md README.md --of long
Q picture RESULTS docs/images/quality.png
Q picture RESULTS docs/images/long.png
Q picture RESULTS docs/images/hard.png --seed 1 --scenes h03-3 h08-2
Q picture RESULTS docs/images/grounds.png --scenes h01-2 h03-3

A table stands between `<!-- table: NAME -->` and `<!-- end -->`, or `NAME_OF` for that of other
rows; the text around, and tables of other rows, are left alone. The rows are a benchmark's
`results.jsonl`; the picture takes the whole folder of one.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from lora_scene.sheets import stacked
from lora_scene.workshop.benchmark_page import scene_sheet
from lora_scene.workshop.results import known_rows, read_rows
from lora_scene.workshop.statistics import (
    Interval,
    Row,
    by_scene,
    method_interval,
    paired_difference,
)
from lora_scene.workshop.tables import COMPARED, METRICS, told

SHORT = ("exact_set", "identity", "prompt_similarity", "missing_rate", "mixing_rate", "repeat_rate")
HEADLINE = (*SHORT, "identity_each", "layout_copy")
PART = (*SHORT, "layout_copy", "drift", "attention_iou")
METHODS = (
    "ours", "ours, by colours", "full", "full-ours", "ti-m", "db-m", "cd-m", "naive", "guided",
)  # fmt: skip
ON_HARD = ("ours, by colours", "ours, on grounds", "ours", "full")
PARTS = {
    "no-phase1": "phase 1",
    "no-mask": "the mask in the loss",
    "no-attention": "the attention loss",
    "no-union": "union sampling",
    "photo-outside": "the base's prediction outside (the photo in its place)",
    "pairwise": "nothing, but the pairwise term added",
    "naive": "training together (each thing alone, put together)",
}
SHOWN = ("t05-3", "t10-4")
TESTED = ("test", "test-hard")
_PLACE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def tables(rows: Sequence[Row], *, of: str = "") -> dict[str, str]:
    """Return every table in Markdown, by name; names end with what the rows are of."""
    tested = [row for row in rows if row["group"] == "test"]
    first = [row for row in tested if row["seed"] == 0]
    made = {
        "methods": markdown(
            "method",
            COMPARED,
            {m: [rounded(method_interval(tested, m, metric=k)) for k in COMPARED] for m in METHODS},
        ),
        "differences": markdown(
            "difference to full",
            COMPARED,
            {m: against(tested, m, "full", COMPARED) for m in METHODS if m != "full"},
        ),
        "headline": markdown(
            "difference to full fine-tuning",
            HEADLINE,
            {"ours, with 95 % intervals": against(tested, "ours", "full", HEADLINE)},
        ),
        "parts": markdown(
            "without",
            PART,
            {label: against(of_seeds(tested, m), m, "ours", PART) for m, label in PARTS.items()},
        ),
        "course": markdown(
            "image-forwards",
            SHORT,
            {
                f"{m}, {n}": [rounded(method_interval(first, name, metric=k)) for k in SHORT]
                for m in ("ours", "full")
                for n, name in ((400, f"{m} at 400"), (1600, m))
            },
        ),
        "weights": markdown(
            "weight of ours",
            SHORT,
            {w: [rounded(method_interval(first, "ours", metric=k, weight=w)) for k in SHORT]
             for w in ("0", "0.4", "0.7", "1", "1.2")},
        ),
        "many": markdown("things", SHORT, _many(rows)),
        "grounds": markdown("hard scenes", COMPARED, _grounds(rows)),
    }  # fmt: skip
    return {f"{name}_{of}" if of else name: table for name, table in made.items()}


def _many(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return the means over two scenes each of six, eight and ten things."""
    body = {}
    for n in (6, 8, 10):
        for method in ("ours", "full"):
            own = [row for row in rows if row["group"] == "many" and row["n_concepts"] == n]
            values = [by_scene(own, f"{method}, many", metric=k).values() for k in SHORT]
            body[f"{n}, {method}"] = [" and ".join(f"{v:.2f}" for v in one) for one in values]
    return body


def _grounds(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return methods on the hard scenes, and what lies between ours by colours and others."""
    hard, ours = [row for row in rows if row["group"] == "test-hard"], "ours, by colours"
    body = {m: [rounded(method_interval(hard, m, metric=k)) for k in COMPARED] for m in ON_HARD}
    for other in ("full", "ours"):
        shared = of_seeds(of_seeds(hard, ours), other)
        seeds = sorted({row["seed"] for row in shared if row["method"] == ours})
        told = f"by colours minus {other}, training seeds {', '.join(map(str, seeds))}"
        body[told] = against(shared, ours, other, COMPARED)
    return body


def of_seeds(rows: Sequence[Row], method: str) -> list[Row]:
    """Return rows of the training seeds that a method was run with."""
    seeds = {row["seed"] for row in rows if row["method"] == method}
    return [row for row in rows if row["seed"] in seeds]


def against(rows: Sequence[Row], method: str, reference: str, metrics: Sequence[str]) -> list[str]:
    """Return a method's paired differences to another, one text a metric."""
    pairs = (paired_difference(rows, method, reference=reference, metric=k) for k in metrics)
    return [rounded(one, signed=True) for one in pairs]


def rounded(one: Interval | None, *, signed: bool = False) -> str:
    """Write a mean and its interval in two digits."""
    return told(one, signed=signed, digits=2)


def markdown(corner: str, metrics: Sequence[str], body: Mapping[str, Sequence[str]]) -> str:
    """Return a table without the lines and columns that hold nothing."""
    kept = {name: cells for name, cells in body.items() if set(cells) - {"–", ""}}
    known = [
        i for i in range(len(metrics)) if any(cells[i] not in ("–", "") for cells in kept.values())
    ]
    lines = [[corner, *(METRICS[metrics[i]] for i in known)]]
    lines += [[name, *(cells[i] for i in known)] for name, cells in kept.items()]
    text = ["| " + " | ".join(line) + " |\n" for line in lines]
    text.insert(1, "|---|" + "---:|" * len(known) + "\n")
    return "".join(text)


def filled(page: str, made: Mapping[str, str]) -> str:
    """Return a page with these tables written anew."""

    def table(found: re.Match[str]) -> str:
        return f"{found[1]}\n{made[found[2]]}\n{found[3]}" if found[2] in made else found[0]

    return _PLACE.sub(table, page)


def picture(results: Path, scenes: Sequence[str], seed: int) -> Image.Image:
    """Draw what the methods made of some of the scenes, with a training seed."""
    rows = [row for row in read_rows(results) if row["group"] in TESTED and row["pictures"]]
    sheets = []
    for scene in scenes:
        of = {row["method"]: row for row in rows if row["scene"] == scene and row["seed"] == seed}
        sheets.append(scene_sheet([of[method] for method in METHODS if method in of], results))
    return stacked(sheets)


def main() -> None:
    """Write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("tables", "picture"))
    parser.add_argument("source", type=Path)
    parser.add_argument("targets", type=Path, nargs="+")
    parser.add_argument("--of", default="", help="of the tables' names: hard, long, earlier")
    parser.add_argument("--scenes", nargs="+", default=SHOWN, help="of the picture")
    parser.add_argument("--seed", type=int, default=0, help="of the picture's trainings")
    asked = parser.parse_args()
    if asked.what == "picture":
        [target] = asked.targets
        picture(asked.source, asked.scenes, asked.seed).save(target, optimize=True)
        return
    made = tables(list(known_rows(asked.source).values()), of=asked.of)
    for target in asked.targets:
        target.write_text(filled(target.read_text("utf-8"), made), encoding="utf-8")


if __name__ == "__main__":
    main()
