"""`lora-scene ask`: a training that runs, asked for something."""

from __future__ import annotations

from pathlib import Path

import click

from lora_scene.cli.paths import GIVEN
from lora_scene.cli.values import Number


@click.command(short_help="Ask a running training for a sample, a snapshot or a good end.")
@click.argument("out", metavar="OUT", type=GIVEN)
@click.argument("wish", metavar="sample|save|stop", type=click.Choice(["sample", "save", "stop"]))
@click.option("--wait", type=Number(min=0), default=600.0, show_default=True, metavar="SECONDS",
              help="Until it is done, at most.")  # fmt: skip
def command(out: Path, wish: str, wait: float) -> None:
    """Ask the training that writes into OUT, from any terminal.

    sample: draw the sample pictures now. save: keep a snapshot of the adapter now. stop: end after
    this step, and keep the adapter as finished. SIGUSR1, where there is one, asks for the first
    two.
    """
    from lora_scene.learning.asking import WISHES, ask

    if ask(out, wish, wait=wait):
        click.echo(f"done: {WISHES[wish]}")
    else:
        click.echo(f"asked, and not done yet: {WISHES[wish]}; it comes after the step")
