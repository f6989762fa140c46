"""`lora-scene merge`: several adapters made one."""

from __future__ import annotations

from pathlib import Path

import click

from lora_scene.cli.options import out_option
from lora_scene.cli.paths import GIVEN
from lora_scene.cli.values import COUNT, WEIGHT, Numbers, many


@click.command()
@click.argument("folders", metavar="DIR DIR...", nargs=-1, type=GIVEN)
@click.option("--weights", required=True, type=Numbers(WEIGHT),
              help="One factor an adapter, such as 0.8,0.5.")  # fmt: skip
@click.option("--rank", type=COUNT, help="Cut to this rank by SVD.")
@many("--rename", "renames", "OLD=NEW",
      "A handle of the last adapter that has it, or with N:OLD=NEW of the N-th.")  # fmt: skip
@out_option
def command(
    folders: tuple[Path, ...],
    weights: list[float],
    rank: int | None,
    renames: tuple[str, ...],
    out: Path,
) -> None:
    """Merge adapters into one that has the handles of all.

    Exact without --rank; with it, the error is printed.
    """
    from lora_scene.adapters.folder import read_adapter, refuse_another, save_adapter
    from lora_scene.adapters.formats.metadata import write_note
    from lora_scene.adapters.merging import merge_adapters
    from lora_scene.adapters.renaming import parse_renames
    from lora_scene.cli.progress import show_notices
    from lora_scene.folder_lock import locked

    adapters = [read_adapter(folder) for folder in folders]
    tables = parse_renames(renames, adapters)
    named = [one.renamed(table) for one, table in zip(adapters, tables, strict=True)]
    merge = merge_adapters(named, weights, rank=rank)
    with locked(out):
        refuse_another(out, write_note(merge.adapter.folded()))
        save_adapter(merge.adapter, out)
    ranks = ", ".join(map(str, sorted({one.rank for one in merge.adapter.modules.values()})))
    click.echo(f"wrote {out}: {', '.join(merge.adapter.handles)}; rank {ranks}")
    click.echo(f"error of the updates: {merge.error:.2e}, worst module {merge.worst_error:.2e}")
    show_notices(merge.notes)
