"""`lora-scene push`: an adapter onto a model hub."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from lora_scene.cli.options import (
    TitleOptions,
    file_dtype_option,
    folder_argument,
    title_options,
)
from lora_scene.cli.terminal import note
from lora_scene.cli.values import repository


@click.command()
@folder_argument
@click.option("--repo", required=True, callback=repository, help="Where to, such as USER/NAME.")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@title_options
@file_dtype_option
@click.option("--dry-run", is_flag=True, help="Only show what would be uploaded.")
def command(
    folder: Path, repo: str, private: bool, titled: TitleOptions, dtype: str, dry_run: bool
) -> None:
    """Publish the adapter in DIR with its card, pictures and files for every reader.

    The token comes from `hf auth login` or HF_TOKEN. One commit: all of it or nothing.
    """
    from lora_scene.adapters.folder import read_adapter
    from lora_scene.adapters.hub import publish
    from lora_scene.adapters.staging import stage_adapter, staged_files
    from lora_scene.adapters.whole_model import ROWS_ALONE, needs_whole_model
    from lora_scene.cli.progress import show_notices

    title = titled.read(folder)
    with tempfile.TemporaryDirectory() as temporary:
        stage = Path(temporary)
        stage_adapter(folder, stage, title=title, repo_id=repo, dtype=dtype)
        for path, size in staged_files(stage).items():
            click.echo(f"{size / 1e6:9.3f} MB  {path}")
        if needs_whole_model(read_adapter(folder)):
            show_notices([ROWS_ALONE])
        if dry_run:
            click.echo(f"would be uploaded to {repo}; nothing was", err=True)
            return
        published = publish(stage, repo, private=private)
    click.echo(f"done: {len(published.files)} files, {published.url}")
    if published.left:
        names = ", ".join(ascii(name)[1:-1] for name in published.left)
        note(
            f"the repository holds weights that are not of this version: {names}. Readers may take "
            "them for it; delete them on the hub if they are of an earlier one",
            warning=True,
        )
