"""A part of a GPU's day that fails, hangs or finds no time left is told, and stops no other."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from benchmarks.gpu_day import Part, run, timed, untimed

HANGS = """
import subprocess, sys
print('begun', flush=True)
subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])
"""


def part(*programs: str, kept: dict[str, Path] | None = None, seconds: int = 30) -> Part:
    return Part("a part", seconds, [["-c", program] for program in programs], kept or {})


def soon(seconds: float = 30) -> float:
    return time.perf_counter() + seconds


def test_programs_follow_each_other_and_their_files_are_kept(tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    first = f"open({str(told)!r}, 'w').write('{json.dumps({'seconds': 3, 'pictures': [1]})}')"
    found = run(part(first, "print('second')", kept={"summary": told}), "cpu", soon())
    assert (found["exit"], found["end"], found["summary"]) == (0, ["second"], {"seconds": 3})


def test_the_first_that_fails_ends_the_part(tmp_path: Path) -> None:
    kept = {"summary": tmp_path / "never written"}
    found = run(part("raise SystemExit('no room')", "print('second')", kept=kept), "cpu", soon())
    assert (found["exit"], found["end"]) == (1, ["no room"])


def test_what_hangs_is_stopped_with_its_own_programs() -> None:
    found = run(part(HANGS, "print('second')"), "cpu", soon(4))
    assert found["exit"] is None
    assert found["seconds"] < 40  # they held its output open for 60
    assert found["end"] == ["begun", "", "stopped: out of its time"]


def test_what_finds_no_time_left_is_not_begun() -> None:
    found = run(part("print('begun')"), "cpu", soon(0))
    assert (found["exit"], found["end"]) == (None, ["not begun: no time was left"])


@pytest.mark.parametrize("is_short", [True, False])
def test_every_part_names_the_device_and_has_a_name_of_its_own(
    tmp_path: Path, is_short: bool
) -> None:
    lines = tmp_path / "lines.jsonl"
    parts = [
        each
        for chosen in (untimed, timed)
        for each in chosen("cuda", lines, tmp_path, is_short=is_short)
    ]
    assert len({each.name for each in parts}) == len(parts)
    for each in parts:
        assert each.name == "tests" or all("cuda" in program for program in each.programs)
