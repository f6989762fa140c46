"""`lora-scene page`: the whole journey in the browser."""

from __future__ import annotations

import time
import webbrowser
from pathlib import Path

import click

from lora_scene.cli.paths import TARGET_FOLDER


@click.command(short_help="Do it all in the browser: from a click to pictures.")
@click.option("--port", type=click.IntRange(1024, 65535), help="[default: 7860 or the next free]")
@click.option("--base", help="Base model that is offered first: hub id, folder or mini.")
@click.option("--out", default="runs", show_default=True, type=TARGET_FOLDER,
              help="Folder of all that the page makes.")  # fmt: skip
@click.option("--open", "opens", is_flag=True, help="Open the browser too.")
def command(port: int | None, base: str | None, out: Path, opens: bool) -> None:
    """Serve a page on this machine alone: photo, things, training, pictures, files to share.

    Needs Gradio: pip install -e ".[page]" in the clone. A training goes on when the page is closed.
    """
    from lora_scene.page.server import serving

    with serving(out, base=base, port=port) as address:
        click.echo(f"the page: {address}")
        click.echo("Ctrl-C closes it", err=True)
        if opens:
            webbrowser.open(address)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            click.echo("\nclosed; a training that runs goes on", err=True)
