"""What a run told, with the time of each: a JSON line an event, beside its losses."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_scene.learning.events import Event, Listener, StepDone
from lora_scene.learning.run_lines import RunLines
from lora_scene.targets import refuse_foreign


class RunLog:
    """Writes down what it passes on; until it is opened it remembers.

    Args:
        path: A `.jsonl` file, which need not exist.
        tell: Told every event.
    """

    def __init__(self, path: Path, tell: Listener) -> None:
        self._path = path
        self._tell = tell
        self._waiting: list[dict[str, Any]] | None = []

    def __call__(self, event: Event) -> None:
        """Pass an event on, and write it down; steps have a file of their own."""
        self._tell(event)
        if not isinstance(event, StepDone):
            self.write({"event": type(event).__name__, **vars(event)})

    def open(self, began: Mapping[str, Any]) -> None:
        """Begin to write: what a run is, then what was told before."""
        waiting, self._waiting = self._waiting or [], None
        self.write({"event": "Began", **began})
        for line in waiting:
            self._append(line)

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line, or remember it."""
        timed = {"time": datetime.datetime.now().astimezone().isoformat(" ", "seconds"), **line}
        if self._waiting is None:
            self._append(timed)
        else:
            self._waiting.append(timed)

    def _append(self, line: Mapping[str, Any]) -> None:
        refuse_foreign(self._path, self._path.parent, force=True)
        RunLines(self._path).append(json.loads(json.dumps(line, default=_plain)))


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)
