"""`lora-scene report`: what a training did, as one page."""

from __future__ import annotations

from pathlib import Path

import click

from lora_scene.cli.paths import GIVEN, TARGET_FILE


@click.command(short_help="Write the page of a training, or of several side by side.")
@click.argument("runs", metavar="OUT...", nargs=-1, required=True, type=GIVEN)
@click.option("--to", type=TARGET_FILE,
              help="The page.  [default: run.html in OUT; for several, ./runs.html]")  # fmt: skip
def command(runs: tuple[Path, ...], to: Path | None) -> None:
    """Write one page of curves, attention, samples and settings; it needs no network.

    Each OUT is the folder of a training, finished or not; several are compared.
    """
    from lora_scene.learning.run_page import write_run_page

    chosen = to or (Path("runs.html") if len(runs) > 1 else None)
    if chosen is not None and chosen.suffix.lower() != ".html":
        raise click.BadParameter(f"{chosen} is no .html", param_hint="--to")
    click.echo(f"wrote {write_run_page(*runs, to=chosen)}")
