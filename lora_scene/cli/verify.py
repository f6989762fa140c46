"""`lora-scene verify`: load exported files as their readers would."""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lora_scene.cli.options import base_config_option, json_option
from lora_scene.cli.paths import GIVEN

if TYPE_CHECKING:
    from lora_scene.adapters.verification import Check


@click.command()
@click.argument("path", type=GIVEN)
@click.option("--base", help="The base.  [default: the one that the files name]")
@base_config_option
@click.option("--adapter", "folder", type=GIVEN, help="Folder of the adapter as trained.  "
              "[default: PATH, where it holds one]")  # fmt: skip
@json_option
def command(
    path: Path, base: str | None, config: str | None, folder: Path | None, as_json: bool
) -> None:
    """Load each file of PATH into a fresh pipeline: counts, scale, effect, equality.

    Fails, with the reason, on a file that is refused, ignored in part, scaled wrongly, or that
    loads and does nothing.
    """
    from lora_scene.adapters.folder import read_adapter
    from lora_scene.adapters.inspection import inspect_path
    from lora_scene.adapters.verification import own_reference, refuse_failures, verify_path
    from lora_scene.backbones.loading import load_pipeline
    from lora_scene.backbones.sources import find_base

    found = inspect_path(path)
    notes = [one.note for one in found if one.note is not None]
    if base is None and not notes:
        raise click.UsageError("these files do not name their base; pass --base")
    source = base or find_base(
        notes[0].info.base_model, base_hash=notes[0].info.base_hash, near=path
    )
    reference = own_reference(path) if folder is None else read_adapter(folder)
    checks = verify_path(path, lambda: load_pipeline(source, config=config), reference=reference)
    if as_json:
        click.echo(json.dumps([_as_json(check) for check in checks], allow_nan=False))
    else:
        for check in checks:
            _show(check)
    refuse_failures(checks)


def _as_json(check: Check) -> dict[str, Any]:
    """Return a check for JSON; what is not finite, for which JSON has no word, is null there."""
    endless = (k for k, v in vars(check).items() if isinstance(v, float) and not isfinite(v))
    return {**vars(check), **dict.fromkeys(endless), "path": str(check.path)}


def _show(check: Check) -> None:
    what = "rows" if check.layout == "embedding" else "modules"
    parts = [f"{check.n_matched} of {check.n_expected} {what} matched"]
    if check.effect is not None:
        parts.append(f"changes the output by {100 * check.effect:.3g} %")
    if check.update_error is not None:
        parts.append(f"updates off by at most {check.update_error:.1e}")
    if check.output_error is not None:
        parts.append(f"output off the trained one by {check.output_error:.1e}")
    click.echo(f"{'FAILED' if check.problems else 'ok':6} {check.path.name}: {'; '.join(parts)}")
