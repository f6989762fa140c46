"""`lora-scene pull`: an adapter from a model hub, or from a folder."""

from __future__ import annotations

from pathlib import Path

import click

from lora_scene.cli.paths import TARGET_FOLDER


@click.command()
@click.argument("source", metavar="USER/NAME")
@click.option("--out", type=TARGET_FOLDER, help="Folder to write.  [default: NAME]")
@click.option("--revision", metavar="NAME", help="Branch, tag or commit.  [default: main branch]")
def command(source: str, out: Path | None, revision: str | None) -> None:
    """Copy an adapter from a hub or a folder, after all of its files have been checked.

    Only safetensors files are fetched or opened.
    """
    from lora_scene.adapters.formats.diffusers import FILE
    from lora_scene.adapters.hub import copy_adapter
    from lora_scene.adapters.location import locate, plain_name
    from lora_scene.files import check_target

    target = check_target(out or Path(plain_name(source)), [FILE])
    copy_adapter(locate(source, revision=revision), target)
    click.echo(f"wrote {target}")
