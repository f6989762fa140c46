"""What Windows refuses and Linux does not: a file replaced while it is mapped into memory.

Linux keeps the old file under the mapping; Windows keeps the new one from being written.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

MAPS = Path("/proc/self/maps")
WEIGHTS = (".safetensors", ".part", ".writing")  # what is mapped, under its names while it is made
_busy = False


def refuse_mapped() -> None:
    """Let every renaming over, and removal of, a mapped file raise, in this process for good."""
    if MAPS.exists():
        sys.addaudithook(_look)


def mapped_below(path: str) -> list[str]:
    """Return the mapped files that are `path`, or lie in it."""
    real = os.path.realpath(path)
    lines = (line.split(maxsplit=5) for line in MAPS.read_text("utf-8").splitlines())
    files = {line[5] for line in lines if len(line) == 6}
    return sorted(file for file in files if file == real or file.startswith(real + os.sep))


def _look(event: str, arguments: tuple[Any, ...]) -> None:
    global _busy
    if _busy or event not in ("os.rename", "os.remove"):
        return
    _busy = True
    try:
        paths = arguments[:2] if event == "os.rename" else arguments[:1]
        for path in map(os.fsdecode, paths):
            if path.endswith(WEIGHTS) and os.path.isfile(path) and mapped_below(path):
                raise RuntimeError(f"{path} is mapped: Windows refuses {event} of it")
    finally:
        _busy = False
