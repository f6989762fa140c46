"""A run's lines of JSON: what was measured of its steps, and what it told."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lora_scene.errors import FileError
from lora_scene.faults import told_plainly
from lora_scene.files import write_json
from lora_scene.learning.events import StepDone
from lora_scene.ownership import KEY, seal_json
from lora_scene.targets import refuse_foreign

FIRST = (b'{"phase": ', b'{"time": "')  # how the lines of runs begin
LARGEST = 3.5e38  # of float32, and above every count


class RunLines:
    """One file of a run: a line a step, each step once, however often it was taken up again.

    Args:
        path: A `.jsonl` file, which need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def refuse_foreign(self) -> None:
        """Refuse a file that no run wrote; a kill may have left the last line half.

        Raises:
            FileError: It is somebody else's, or cannot be written.
        """
        refuse_foreign(self._path, self._path.parent, force=True)
        if not self._path.is_file():
            return
        *whole, rest = self._path.read_bytes().split(b"\n")
        is_begun = any(first.startswith(rest[: len(first)]) for first in FIRST)
        if len(self._whole()) < len(whole) or not (whole or is_begun):
            refuse_foreign(self._path, self._path.parent)

    def forget(self) -> None:
        """Delete what an earlier run wrote, a half line too; what is somebody else's stays."""
        with suppress(FileError):
            self.refuse_foreign()
            self._path.unlink(missing_ok=True)

    def cut(self, phase: int, step: int) -> None:
        """Forget what lies behind a step that the run goes on from; a half line goes too."""
        if not self._path.is_file():
            return
        kept = [line for line in self.lines() if (line["phase"], line["step"]) <= (phase, step)]
        if kept:
            write_json(self._path, kept, force=True)  # its lines are ours, also if the last is half
        else:
            self._path.unlink()

    def add(self, event: StepDone) -> None:
        """Append a step."""
        rates = {f"{name}_lr": rate for name, rate in event.rates.items()}
        own = {"norm": event.norm, **rates, "seconds": event.seconds}
        skipped = {"skipped": event.fault} if event.fault else {}
        self.append({"phase": event.phase, "step": event.step, **event.losses, **own, **skipped})

    def append(self, line: Mapping[str, Any]) -> None:
        """Append a line, which names its phase and step, or a time."""
        with told_plainly(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(seal_json({k: _plain(v) for k, v in line.items()})) + "\n")

    def lines(self) -> list[dict[str, Any]]:
        """Return the steps' whole lines that are ours, in order; none where there is no file."""
        return [line for line in self._whole() if "time" not in line]

    def events(self) -> list[dict[str, Any]]:
        """Return the same of what was told."""
        return [line for line in self._whole() if "time" in line]

    def _whole(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        if not self._path.is_file():
            return found
        for text in self._path.read_bytes().decode("utf-8", "replace").splitlines():
            try:
                line = json.loads(text)
                if line[KEY] == seal_json(line)[KEY] and _is_of_a_run(line):
                    found.append(line)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue
        return found


def _is_of_a_run(line: Mapping[str, Any]) -> bool:
    """Tell whether readers may rely on a line: that it has a time or a step, and numbers."""
    if "time" in line:
        is_timed = datetime.datetime.fromisoformat(line["time"]).tzinfo is not None
        return is_timed and isinstance(line["event"], str) and _is_number(line.get("peak_bytes"))
    ious = line.get("ious", {}).values()
    numbers = (value for name, value in line.items() if name not in (KEY, "ious", "skipped"))
    is_placed = line["phase"] in (1, 2) and type(line["step"]) is int and line["step"] >= 0
    return is_placed and None not in ious and all(map(_is_number, [*numbers, *ious]))


def _is_number(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and not abs(value) > LARGEST)


def _plain(value: Any) -> Any:
    """Return what JSON can say: not a number is `null`."""
    return None if isinstance(value, float) and not abs(value) < float("inf") else value
