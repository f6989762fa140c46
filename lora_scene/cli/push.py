"""`lora-scene push`: an adapter onto a model hub."""

from __future__ import annotations

import datetime
import tempfile
from pathlib import Path

import click

from lora_scene.adapters.layouts import DTYPE_NAMES
from lora_scene.cli.paths import GIVEN


@click.command()
@click.argument("folder", metavar="DIR", type=GIVEN)
@click.option("--repo", required=True, help="Where to, such as USER/NAME.")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--name", help="Name of the files for interfaces.  [default: that of DIR]")
@click.option("--author", default="", help="Who made it.")
@click.option("--license", "licence", default="", help="SPDX id.  [default: the base's usual one]")
@click.option("--dtype", type=click.Choice(DTYPE_NAMES), default="fp16", show_default=True)
@click.option("--dry-run", is_flag=True, help="Only show what would be uploaded.")
def command(
    folder: Path,
    repo: str,
    private: bool,
    name: str | None,
    author: str,
    licence: str,
    dtype: str,
    dry_run: bool,
) -> None:
    """Publish the adapter in DIR with its card, pictures and files for every reader.

    The token comes from `hf auth login` or HF_TOKEN. One commit: all of it or nothing.
    """
    from lora_scene.adapters.attachment import plain_name
    from lora_scene.adapters.formats.modelspec import Title
    from lora_scene.adapters.hub import publish, stage_adapter, staged_files

    today = datetime.datetime.now(datetime.UTC).date()
    title = Title(name or plain_name(folder), author, licence, today)
    with tempfile.TemporaryDirectory() as temporary:
        stage = Path(temporary)
        stage_adapter(folder, stage, title=title, repo_id=repo, dtype=dtype)
        for path, size in staged_files(stage).items():
            click.echo(f"{size / 1e6:9.3f} MB  {path}")
        if dry_run:
            click.echo(f"would be uploaded to {repo}; nothing was", err=True)
            return
        published = publish(stage, repo, private=private)
    click.echo(f"done: {len(published.files)} files, {published.url}")
