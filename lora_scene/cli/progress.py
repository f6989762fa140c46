"""Progress on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lora_scene.cli.terminal import console, note

SECONDS_A_LINE = 10


class Lines:
    """Says how far something is, every `SECONDS_A_LINE` and at its end."""

    def __init__(self, *, first: int = 0) -> None:
        self._began = self._last = time.monotonic()
        self._first = first

    def tell(self, text: Callable[[str], str], done: float, whole: float) -> None:
        """Print `text` of the time that is left, if it is time to.

        Args:
            text: Given such as `40 s left`.
            done: How much is done.
            whole: Of how much.
        """
        now = time.monotonic()
        if now - self._last < SECONDS_A_LINE and done < whole:
            return
        self._last = now
        left = (now - self._began) / max(done - self._first, 1e-9) * (whole - done)
        click.echo(text(f"{left:.0f} s left"), err=True)


@contextlib.contextmanager
def drawing_bar(
    description: str, n_runs: int, *, is_quiet: bool = False
) -> Iterator[Callable[[int, int], None]]:
    """Show how far the drawing is; give a function to be called after every denoising step.

    Args:
        description: What is drawn.
        n_runs: How many times the solver is run.
        is_quiet: Whether nothing is shown.
    """
    n_done = 0
    with counting_bar(description, is_quiet=is_quiet) as progress:

        def tick(step: int, n_steps: int) -> None:
            nonlocal n_done
            progress(n_done + step / n_steps, n_runs)
            n_done += step == n_steps

        yield tick


@contextlib.contextmanager
def counting_bar(
    description: str, *, is_quiet: bool = False
) -> Iterator[Callable[[float, float], None]]:
    """Show how much of how much is done; give a function to be told of them."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    shown, lines = console(stderr=True), Lines()
    is_bar = shown.is_terminal and not is_quiet
    with Progress(*columns, console=shown, disable=not is_bar) as progress:
        task = progress.add_task(description, total=None)

        def tell(done: float, whole: float) -> None:
            if is_bar:
                progress.update(task, completed=done, total=whole)
            elif not is_quiet:
                lines.tell(
                    lambda left: f"{description}: {100 * done / whole:.0f} %, {left}", done, whole
                )

        yield tell


def show_notices(notices: Sequence[str]) -> None:
    """Print what a person should know, on stderr."""
    for notice in notices:
        note(notice)
