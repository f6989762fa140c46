"""Which files a call has written, noted by the writers: who interrupts it is told of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_noted: ContextVar[dict[Path, None] | None] = ContextVar("_noted", default=None)


@contextmanager
def noting_written() -> Iterator[dict[Path, None]]:
    """Give the files that this thread writes meanwhile, as they are done, the last one last."""
    noted: dict[Path, None] = {}
    token = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(token)


def note_written(path: Path) -> None:
    """Note that a file stands where it was to go, whole."""
    noted = _noted.get()
    if noted is not None:
        noted.pop(path, None)
        noted[path] = None
