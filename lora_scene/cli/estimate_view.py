"""Shows a memory estimate, as tables or as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from lora_scene.cli.folded_table import FoldedTable
from lora_scene.cli.terminal import console, note

if TYPE_CHECKING:
    from lora_scene.learning.estimates import MemoryEstimate
    from lora_scene.learning.simulation import PhaseEstimate

ASSUMED = (
    "no card is here to ask, so bf16 is counted; one before Ampere (T4, V100, RTX 20) takes fp16, "
    "and its VAE float32: --set base.dtype=fp16"
)


def print_estimate(
    estimate: MemoryEstimate, drawing: Sequence[PhaseEstimate], savings: Mapping[str, int]
) -> None:
    """Print what `show_estimate` shows, as JSON for a program."""
    told = {**asdict(estimate), "peak_bytes": estimate.peak_bytes, "card_gib": estimate.card}
    told |= {"savings": savings, "drawing": [asdict(one) for one in drawing]}
    click.echo(json.dumps(told, indent=2))


def show_estimate(
    estimate: MemoryEstimate, drawing: Sequence[PhaseEstimate], savings: Mapping[str, int]
) -> None:
    """Print a column per phase, a row per part, the card that holds the training, and savings."""
    columns = (*estimate.phases, *drawing)
    names = list(dict.fromkeys(name for column in columns for name in column.parts))
    table = FoldedTable("GB", *(column.name for column in columns), box=None, header_style="bold")
    for name in names:
        table.add_row(name, *(_gb(column.parts.get(name)) for column in columns))
    table.add_section()
    table.add_row("peak", *(_gb(column.peak_bytes) for column in columns), style="bold")
    head = f"{estimate.architecture} at {estimate.size} px, recipe {estimate.recipe}"
    click.echo(f"{head}, {estimate.dtype}, low-bit storage: {estimate.quantization}\n")
    if estimate.is_dtype_assumed:
        note(ASSUMED)
    console().print(table)
    card = "no usual card holds it" if estimate.card is None else f"fits a {estimate.card} GB card"
    click.echo(f"\nestimated, not measured: {estimate.peak_bytes / 1e9:.2f} GB to train; {card}")
    if savings:
        _show_savings(savings)


def _show_savings(savings: Mapping[str, int]) -> None:
    """Print what each switch that is not on yet would save, in the order of advice."""
    table = FoldedTable("switch", "saves GB", box=None, header_style="bold")
    for switch, saved in savings.items():
        table.add_row(switch, f"{saved / 1e9:.2f}")
    click.echo()
    console().print(table)


def _gb(size: int | None) -> str:
    return "" if size is None else f"{size / 1e9:.2f}"
