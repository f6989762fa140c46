"""The tables of a GPU's day say what its lines say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.gpu_tables import BEGIN, END, put, sections

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ABOUT = {"device": "cuda: Card", "commit": "abc1234", "versions": {"torch": "2"}}
STEP = {
    "base": "sd15",
    "contender": "ours",
    "concepts": 3,
    "optimizer": "adamw8bit",
    "phase": 1,
    "fits": True,
    "median_s": 0.2,
    "quartiles_s": [0.19, 0.2, 0.22],
    "share_of_peak": 0.41,
    "apart": False,
    "peak_teraflop_per_s": 300.0,
    **ABOUT,
}
PEAK = {
    "recipe": "sd15-6gb",
    "contender": "ours",
    "phase": 2,
    "passed": True,
    "imitated_gib": 6.0,
    "allocated_bytes": 2_900_000_000,
    "reserved_bytes": 3_100_000_000,
    "estimated_parts": {"UNet": 1_700_000_000, "activations": 1_300_000_000},
    **ABOUT,
}
SUMMARY = {"seconds": 61.2, "peak_bytes": 800_000_000, "n_skipped": 2}
JUDGED = {"summary": {"exact_set": 0.5, "identity": 0.831}}
LEARNT = {"summary": SUMMARY, "judged": JUDGED}
COSINES = {"rows": 0.99961, "rows_least": 0.7824, "factors": 0.9999, "factors_least": 0.9952}
LINES = [
    {"part": "own share", "context_bytes": 430_000_000, **ABOUT},
    {"part": "tests", "exit": 1, "seconds": 12.5, **ABOUT},
    {**STEP, "median_s": 9.0},
    STEP,
    {**STEP, "phase": 2, "fits": False},
    PEAK,
    {**PEAK, "phase": 1, "passed": False, "allocated_bytes": None, "reserved_bytes": None},
    {"part": "training in fp16", "exit": 0, "seconds": 70.0, **LEARNT, **ABOUT},
    {"part": "training in bf16", "exit": 1, "seconds": 3.0, **ABOUT},
    {"part": "gradients in bf16", **COSINES, **ABOUT},
    {"part": "a whole day", "exit": None, "seconds": 220.1, **ABOUT},
    {"verb": "train", "exit": 0, "seconds": 77.3, "peak_gb": 4.17, **ABOUT},
]


def test_every_figure_has_its_place_and_the_last_of_two_counts() -> None:
    text = "\n\n".join(sections(LINES))
    for row in (
        "cuda: Card; commit abc1234; torch 2.",
        "CUDA itself takes 0.43 GB",
        "| this package | 3 | adamw8bit | 200 (190-220), 41 % of its products | does not fit |",
        "| sd15-6gb | this package | 2 | 6 GiB | passed | 2.90 | 3.10 |  | 3.00 |",
        "| sd15-6gb | this package | 1 | 6 GiB | out of memory |  |  |  | 3.00 |",
        "| bf16 | failed |  |  |  |  | 0.9996 (0.7824) | 0.9999 (0.9952) |",
        "| fp16 | 61 | 0.80 | 2 | 0.50 | 0.83 |  |  |",
        "| tests | exit 1 | 12.5 |",
        "| training in fp16 | ended well | 70.0 |",
        "| a whole day | stopped: out of its time | 220.1 |",
        "| train | ended well | 77.3 | 4.17 |",
    ):
        assert row in text, row
    assert "9000" not in text


def test_the_page_s_tables_are_those_of_the_kept_lines() -> None:
    kept = (BENCHMARKS / "results" / "gpu.jsonl").read_text("utf-8").splitlines()
    page = (BENCHMARKS / "notes" / "gpu.md").read_text("utf-8")
    assert put(page, "\n\n".join(sections([json.loads(line) for line in kept]))) == page


def test_the_page_keeps_all_but_what_stands_between_the_marks() -> None:
    page = f"above\n{BEGIN}\nold\n{END}\nbelow\n"
    assert put(page, "new") == f"above\n{BEGIN}\nnew\n{END}\nbelow\n"
    with pytest.raises(ValueError, match="no line"):
        put("above\n", "new")
