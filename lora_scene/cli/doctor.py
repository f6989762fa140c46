"""`lora-scene doctor`: what this machine offers to training."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from lora_scene.cli.options import device_option, json_option
from lora_scene.cli.paths import GIVEN
from lora_scene.cli.terminal import console


@click.command(short_help="Look at device, memory, libraries and disk.")
@device_option
@click.option("--folder", default=".", type=GIVEN, show_default=True,
              help="Where results would go.")  # fmt: skip
@json_option
def command(device: str, folder: Path, as_json: bool) -> None:
    """Say what works on this machine, what does not, and what to do about it."""
    from lora_scene.cli.folded_table import FoldedTable
    from lora_scene.learning.machine import examine

    findings = examine(folder, device)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
        return
    table = FoldedTable("", "found", "what to know", box=None, header_style="bold")
    for finding in findings:
        table.add_row(finding.name, finding.value, finding.problem or "")
    console().print(table)
    has_gpu = any(f.name == "device" and not f.value.startswith("cpu") for f in findings)
    click.echo(f"\nnext: lora-scene {'estimate --recipe sd15' if has_gpu else 'demo'}")
