"""A snapshot made the run's adapter, its weight folded in and written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lora_scene.adapters.adapter import Adapter
from lora_scene.adapters.folder import read_adapter, save_adapter
from lora_scene.adapters.formats.metadata import fingerprint
from lora_scene.errors import AdapterError
from lora_scene.folder_lock import locked
from lora_scene.learning.run_record import snapshots_of
from lora_scene.learning.runs import SNAPSHOTS


def take(out: Path, step: int, weight: float = 1.0) -> Adapter:
    """Make a snapshot the adapter of its run; the one that lies there is among the snapshots.

    Args:
        out: The run's folder.
        step: Of phase 2, of one of its snapshots.
        weight: Factor of the LoRA, folded into the numbers: readers take it at 1.

    Raises:
        AdapterError: No such snapshot, or a stranger's among them.
        FileError: Another process writes into the folder.
    """
    kept = snapshots_of(out)
    refuse_strangers(kept)
    if step not in kept:
        raise AdapterError(
            "no snapshot of that step",
            where=out / SNAPSHOTS,
            expected=", ".join(map(str, kept)) or "none was kept; see run.snapshots",
            got=step,
        )
    with locked(out):
        _keep_current(out, kept)
        chosen = read_adapter(kept[step])
        modules = {
            key: replace(module, up=module.up * weight)
            for key, module in chosen.folded().modules.items()
        }
        words = f"step {step} of phase 2, weight {weight:g} folded in"
        taken = replace(chosen, modules=modules, info=replace(chosen.info, taken=words))
        save_adapter(taken, out)
    return taken


def refuse_strangers(kept: Mapping[int, Path]) -> None:
    """See that all snapshots can be of one run.

    Raises:
        AdapterError: One is damaged, or of another base, scene or seed than the last.
    """
    read = {step: read_adapter(folder) for step, folder in kept.items()}
    told = {step: _run_of(adapter) for step, adapter in read.items()}
    last = max(kept, default=0)
    for step, mine in told.items():
        if mine != told[last]:
            raise AdapterError(
                "snapshots of different runs",
                where=kept[step].parent,
                expected=f"of one run with {kept[last].name}: {_told(read[last])}",
                got=f"{kept[step].name}: {_told(read[step])}",
                hint="move what does not belong there away",
            )


def _run_of(adapter: Adapter) -> tuple[object, ...]:
    """Return what all snapshots of a run have in common, however often it was resumed."""
    info = adapter.info
    return adapter.family, info.base_hash, adapter.handles, info.image_hashes, info.seed


def _told(adapter: Adapter) -> str:
    info = adapter.info
    photos = ", ".join(digest[:8] for digest in info.image_hashes)
    handles = ", ".join(adapter.handles)
    return f"{adapter.family}, {info.base_model}, {handles} of {photos}, seed {info.seed}"


def _keep_current(out: Path, kept: dict[int, Path]) -> None:
    """Keep the adapter that lies in the run's folder, unless it is a snapshot or made of one."""
    current = read_adapter(out)
    if current.info.taken:
        return
    marks = {fingerprint(read_adapter(folder)) for folder in kept.values()}
    if fingerprint(current) not in marks:
        save_adapter(current, out / SNAPSHOTS / f"phase2-{current.info.steps[1]:05}")
