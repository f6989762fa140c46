from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lora_scene import folder_lock
from lora_scene.errors import FileError, LoraSceneWarning
from lora_scene.folder_lock import LOCK, locked, process_record

HOLD = """
import pathlib, sys, lora_scene.folder_lock as lock
with lock.locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def _holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_folder_held_by_another_process_says_by_which_and_is_free_after_its_death(
    tmp_path: Path,
) -> None:
    with _holder(tmp_path) as holder:
        with pytest.raises(FileError, match=rf"process {holder.pid} on .*, since \d{{4}}-"):
            locked(tmp_path).__enter__()
        holder.kill()
    assert (tmp_path / LOCK).exists(), "a killed holder leaves its record"
    with locked(tmp_path):
        assert str(os.getpid()) in (tmp_path / LOCK).read_text()
    assert os.listdir(tmp_path) == []


def test_a_thread_may_hold_a_folder_twice_and_another_thread_may_not(tmp_path: Path) -> None:
    problems: list[BaseException] = []

    def other() -> None:
        try:
            with locked(tmp_path):
                pass
        except FileError as error:
            problems.append(error)

    with locked(tmp_path), locked(tmp_path / "." / ""):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(problems) == 1
    with locked(tmp_path):
        pass


def test_a_short_writer_waits_for_another_one_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_lock, "_SILENCE", 0.02)
    held, done = threading.Event(), []

    def other() -> None:
        with locked(tmp_path):
            held.set()
            time.sleep(0.2)
            done.append("other")

    thread = threading.Thread(target=other)
    thread.start()
    held.wait()
    told = rf"process {os.getpid()} on .* writes into this folder; waiting up to 60 s"
    with pytest.warns(LoraSceneWarning, match=told), locked(tmp_path, wait=60):
        assert done == ["other"]
    thread.join()


def test_where_a_file_system_has_no_locks_the_record_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_lock, "_lock", lambda handle, path: False)
    with locked(tmp_path):
        record = (tmp_path / LOCK).read_text()
        with pytest.raises(FileError, match=f"process {os.getpid()} on"):
            folder_lock._acquire(tmp_path / LOCK, 0.0, "")
    start = process_record()[2]
    for stale in (
        record.replace(f'"pid": {os.getpid()}', '"pid": 4194305'),
        record.replace(f'"start": {start}', f'"start": {start - 1000}'),
        "damaged",
        "",
    ):
        (tmp_path / LOCK).write_text(stale)
        with locked(tmp_path):
            pass
    (tmp_path / LOCK).write_text(record.replace('"host": "', '"host": "0'))
    with pytest.raises(FileError, match="another process"), locked(tmp_path):
        pass


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    out = tmp_path / "out"
    out.mkdir()
    (out / LOCK).symlink_to(victim)
    with pytest.raises(FileError, match="symbolic link"), locked(out):
        pass
    assert victim.read_text() == "theirs"
