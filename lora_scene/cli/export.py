"""`lora-scene export`: an adapter in the layouts that other programs read."""

from __future__ import annotations

import json
from pathlib import Path

import click

from lora_scene.adapters.layouts import LAYOUTS
from lora_scene.cli.options import (
    TitleOptions,
    base_config_option,
    file_dtype_option,
    folder_argument,
    json_option,
    out_option,
    title_options,
)
from lora_scene.cli.values import fields_of, refuse_idle

FORMATS = (*LAYOUTS, "all", "pipeline", "checkpoint")


@click.command()
@folder_argument
@click.option("--format", "layout", type=click.Choice(FORMATS), default="all", show_default=True)
@file_dtype_option
@out_option
@title_options
@click.option("--base", help="For a pipeline: its base.  [default: the one it was trained on]")
@base_config_option
@json_option
def command(
    folder: Path,
    layout: str,
    dtype: str,
    out: Path,
    titled: TitleOptions,
    base: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Write the adapter in DIR for diffusers, ComfyUI, A1111, Forge, SD.Next and InvokeAI."""
    from lora_scene.adapters.card_checks import refuse_other_licence
    from lora_scene.adapters.exports import export_adapter
    from lora_scene.adapters.folder import read_adapter
    from lora_scene.adapters.gallery import last_samples
    from lora_scene.adapters.whole_pipeline import refuse_checkpoint
    from lora_scene.cli.progress import show_notices

    if layout == "checkpoint":
        refuse_checkpoint()
    if layout == "pipeline":
        refuse_idle(fields_of(TitleOptions), "a pipeline's files have their own names and no card")
        _write_pipeline(folder, out, base, config, dtype)
        click.echo(json.dumps({"pipeline": str(out)}) if as_json else f"wrote {out}")
        return
    refuse_idle(["base", "config"], f"--format {layout} holds nothing of a base")
    refuse_other_licence(folder, titled.licence)
    adapter = read_adapter(folder)
    export = export_adapter(
        adapter,
        out,
        title=titled.read(folder),
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


def _write_pipeline(
    folder: Path, out: Path, base: str | None, config: str | None, dtype: str
) -> None:
    """Merge the adapter in a folder into its base, and write all of that."""
    from lora_scene.adapters.folder import read_adapter
    from lora_scene.adapters.whole_model import base_of
    from lora_scene.adapters.whole_pipeline import check_new, export_pipeline, strange_base
    from lora_scene.backbones.loading import load_pipeline
    from lora_scene.cli.terminal import note

    check_new(out)
    adapter = read_adapter(folder)
    source = base or base_of(adapter, folder)
    pipeline = load_pipeline(source, config=config)
    difference = strange_base(adapter, pipeline, name=source)
    if difference:
        note(f"the adapter {difference}: its concepts may look different", warning=True)
    export_pipeline(adapter, pipeline, out, dtype=dtype)
    lowered = [handle.lower() for handle in adapter.handles if handle != handle.lower()]
    if lowered:
        note(f"its handles have no capitals, for stock pipelines: write {', '.join(lowered)}")
