"""What is printed for people: names as they are, nothing cut off in a pipe, quoted for shells."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 10_000  # columns of a pipe: nothing is cut off


def console(*, stderr: bool = False) -> Console:
    """Return a console that takes no text for markup, and cuts nothing off in a pipe."""
    from rich.console import Console

    made = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not made.is_terminal:
        made.width = WIDE
    return made


def shell(*words: object) -> str:
    """Return a command line that the shell at hand reads as these words; no path is an option."""
    texts = [_beside(word) if isinstance(word, Path) else str(word) for word in words]
    return subprocess.list2cmdline(texts) if os.name == "nt" else shlex.join(texts)


def _beside(path: Path) -> str:
    """Return a path that is no option, whatever it begins with."""
    return os.path.join(os.curdir, path) if str(path).startswith("-") else str(path)


def note(text: str, *, warning: bool = False, on: Console | None = None) -> None:
    """Tell what a person should know, on stderr; a terminal's lines break between words."""
    from rich.text import Text

    head = ("warning: " if warning else "note: ", "yellow")
    (on or console(stderr=True)).print(Text.assemble(head, text))
