"""A progress bar on stderr for verbs that draw."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


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
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    n_done = 0
    with Progress(*columns, console=Console(stderr=True), disable=is_quiet) as progress:
        task = progress.add_task(description, total=n_runs)

        def tick(step: int, n_steps: int) -> None:
            nonlocal n_done
            progress.update(task, completed=n_done + step / n_steps)
            n_done += step == n_steps

        yield tick


def show_notices(notices: Sequence[str]) -> None:
    """Print what a person should know, on stderr."""
    console = Console(stderr=True)
    for notice in notices:
        console.print(f"[yellow]note:[/yellow] {notice}", highlight=False)
