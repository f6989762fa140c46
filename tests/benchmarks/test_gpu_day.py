"""A part of a GPU's day that fails, hangs or finds no time left is told, and stops no other."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from benchmarks.gpu_day import Part, main, result_of, run, timed, untimed

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
    assert (found["exit"], found["end"]) == (
        None,
        ["not begun for want of time: -c print('begun')"],
    )


def test_a_first_program_that_took_all_the_time_keeps_what_it_did(tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    first = f"import time; open({str(told)!r}, 'w').write('{{}}'); time.sleep(3.5)"
    found = run(part(first, "print('second')", kept={"summary": told}, seconds=4), "cpu", soon())
    assert (found["exit"], found["summary"]) == (None, {})
    assert found["seconds"] >= 3.5
    assert found["end"] == ["not begun for want of time: -c print('second')"]


def test_a_part_that_leaves_no_file_has_failed(tmp_path: Path) -> None:
    found = run(part("print('done')", kept={"summary": tmp_path / "told.json"}), "cpu", soon())
    assert (found["exit"], found["end"]) == (1, ["done", "did not leave told.json"])


def test_an_error_of_our_own_is_that_part_s_alone() -> None:
    done: Future[dict] = Future()
    done.set_exception(ValueError("no JSON"))
    assert result_of(done) == {"exit": 1, "seconds": 0, "end": ["ValueError('no JSON')"]}


def test_a_part_that_is_none_is_refused(monkeypatch, capsys, tmp_path: Path) -> None:
    words = ["gpu_day", "--out", str(tmp_path / "lines"), "--parts", "stepp"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit):
        main()
    assert "no part begins with 'stepp'; there are training in fp32" in capsys.readouterr().err


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
