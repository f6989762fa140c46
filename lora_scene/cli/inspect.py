"""`lora-scene inspect`: what an adapter's file says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lora_scene.cli.options import json_option
from lora_scene.cli.paths import GIVEN
from lora_scene.cli.terminal import console

if TYPE_CHECKING:
    from rich.console import Console

    from lora_scene.adapters.formats.metadata import Note
    from lora_scene.adapters.inspection import Inspection


@click.command()
@click.argument("path", type=GIVEN)
@click.option("--recipe", "with_recipe", is_flag=True, help="Print the resolved recipe too.")
@json_option
def command(path: Path, with_recipe: bool, as_json: bool) -> None:
    """Show the handles, base, recipe and sizes in PATH, a file or a folder.

    Reads any safetensors LoRA or embedding, whoever wrote it; no tensor is loaded.
    """
    from lora_scene.adapters.inspection import as_dict, inspect_path

    inspections = inspect_path(path)
    if as_json:
        click.echo(json.dumps([as_dict(inspection) for inspection in inspections], indent=2))
        return
    out = console()
    for one in inspections:
        out.print(one.path.name, style="bold")
        _print_rows(out, _file_rows(one))
    notes = {one.note.fingerprint: one.note for one in inspections if one.note is not None}
    for note in notes.values():
        _print_note(out, note)
        if with_recipe:
            out.print(note.info.recipe_toml)


def _file_rows(one: Inspection) -> dict[str, str]:
    ranks = ", ".join(str(rank) for rank in sorted(one.ranks))
    return {
        "layout": f"{one.layout}, {one.family or 'unknown family'}, "
        f"{', '.join(sorted(one.dtypes))}, {one.n_bytes / 1e6:.2f} MB",
        "modules": _counts(one.n_modules),
        "rank": f"{ranks} (DoRA)" if one.has_magnitudes else ranks,
        "vectors": _counts(one.n_vectors),
        "wakes by": "" if one.note is not None else ", ".join(one.triggers),
    }


def _print_note(out: Console, note: Note) -> None:
    from lora_scene.cli.folded_table import FoldedTable

    table = FoldedTable("handle", "noun", "vectors")
    for concept in note.concepts:
        noun = f"{concept.noun} (background)" if concept.is_background else concept.noun
        table.add_row(concept.handle, noun, str(concept.n_vectors))
    out.print(table)
    info = note.info
    made = f"{info.steps[0]} + {info.steps[1]} steps at {info.told_sizes}, seed {info.seed}, "
    rows = {
        "base": f"{info.base_model} (sha256 {info.base_hash[:12]}), {info.prediction_type}",
        "trained": "" if info.merged else f"{made}recipe {info.recipe_name}",
        "merged of": "; ".join(info.merged),
        "begun": f"from {info.begun}" if info.begun else "",
        "taken": info.taken,
        "versions": ", ".join(f"{name} {version}" for name, version in info.versions.items()),
    }
    _print_rows(out, rows)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))


def _print_rows(out: Console, rows: Mapping[str, str]) -> None:
    for label, value in rows.items():
        if value:
            out.print(f"  {label:9} {value}")
