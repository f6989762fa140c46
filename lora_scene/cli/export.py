"""`lora-scene export`: an adapter in the layouts that other programs read."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import click

from lora_scene.adapters.layouts import DTYPE_NAMES, LAYOUTS
from lora_scene.cli.paths import GIVEN, TARGET_FOLDER

FORMATS = (*LAYOUTS, "all", "pipeline", "checkpoint")


@click.command()
@click.argument("folder", metavar="DIR", type=GIVEN)
@click.option("--format", "layout", type=click.Choice(FORMATS), default="all", show_default=True)
@click.option("--dtype", type=click.Choice(DTYPE_NAMES), default="fp16", show_default=True)
@click.option("--out", type=TARGET_FOLDER, required=True, help="Folder to write.")
@click.option("--name", help="Name of the files for interfaces.  [default: that of DIR]")
@click.option("--author", default="", help="Who made it, for the files' metadata.")
@click.option("--license", "licence", default="", help="SPDX id, for the files' metadata.")
@click.option("--base", help="For a pipeline: its base.  [default: the one it was trained on]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    folder: Path,
    layout: str,
    dtype: str,
    out: Path,
    name: str | None,
    author: str,
    licence: str,
    base: str | None,
    as_json: bool,
) -> None:
    """Write the adapter in DIR for diffusers, ComfyUI, A1111, Forge, SD.Next and InvokeAI."""
    from lora_scene.adapters.attachment import plain_name
    from lora_scene.adapters.exports import export_adapter
    from lora_scene.adapters.folder import read_adapter
    from lora_scene.adapters.formats.modelspec import Title
    from lora_scene.adapters.gallery import last_samples
    from lora_scene.adapters.whole_pipeline import export_pipeline, refuse_checkpoint
    from lora_scene.cli.progress import show_notices

    if layout == "checkpoint":
        refuse_checkpoint()
    adapter = read_adapter(folder)
    if layout == "pipeline":
        from lora_scene.backbones.loading import load_pipeline
        from lora_scene.backbones.sources import find_base

        info = adapter.info
        source = base or find_base(info.base_model, base_hash=info.base_hash, near=folder)
        pipeline = load_pipeline(source)
        export_pipeline(adapter, pipeline, out, dtype=dtype)
        click.echo(json.dumps({"pipeline": str(out)}) if as_json else f"wrote {out}")
        return
    today = datetime.datetime.now(datetime.UTC).date()
    title = Title(name or plain_name(folder), author, licence, today)
    export = export_adapter(
        adapter,
        out,
        title=title,
        layouts=LAYOUTS if layout == "all" else [layout],  # type: ignore[list-item]
        dtype=dtype,
        samples=last_samples(folder, adapter),
    )
    if as_json:
        click.echo(json.dumps({"out": str(out), **vars(export)}, indent=2))
        return
    for file in export.files:
        click.echo(out / file)
    show_notices(export.notes)
