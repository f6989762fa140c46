"""Checkpoints: everything a run needs to go on bit for bit, in one safetensors file.

All draws of a step come from a generator seeded by (seed, phase, step), so no generator's state
has to be kept: parameters, optimizer states and the position are the whole of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lora_scene.errors import CheckpointError

FORMAT = "lora_scene.checkpoint.1"


@dataclass(frozen=True)
class Checkpoint:
    """A run's state after `step` steps of `phase`.

    Attributes:
        fingerprint: Of the run: recipe, scene and base.
        phase: 1 or 2.
        step: Optimizer steps done in that phase.
        state: Nested dicts and lists of tensors and plain values.
    """

    fingerprint: str
    phase: int
    step: int
    state: Mapping[str, Any]


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint aside, flush it to the disk, and rename it into place."""
    tensors: dict[str, Tensor] = {}
    skeleton = _take_apart(checkpoint.state, tensors)
    metadata = {
        "format": FORMAT,
        "fingerprint": checkpoint.fingerprint,
        "phase": str(checkpoint.phase),
        "step": str(checkpoint.step),
        "skeleton": json.dumps(skeleton),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        save_file(tensors, aside, metadata)
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; its tensors lie on the CPU.

    Raises:
        CheckpointError: The file is damaged or not a checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata.get("format") != FORMAT:
            raise CheckpointError(
                "not a checkpoint of this version", where=path, got=metadata.get("format")
            )
        return Checkpoint(
            fingerprint=metadata["fingerprint"],
            phase=int(metadata["phase"]),
            step=int(metadata["step"]),
            state=_put_together(json.loads(metadata["skeleton"]), tensors),
        )
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise CheckpointError(
            "the checkpoint cannot be read",
            where=path,
            got=error,
            hint="delete it, or pass --restart, to begin anew",
        ) from error


def _take_apart(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Replace each tensor by its name in `tensors`; what is left is JSON."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"pairs": [[key, _take_apart(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_take_apart(item, tensors) for item in value]}
    return {"value": value}


def _put_together(skeleton: Any, tensors: Mapping[str, Tensor]) -> Any:
    ((kind, content),) = skeleton.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "pairs":
        return {key: _put_together(item, tensors) for key, item in content}
    if kind in ("list", "tuple"):
        items = [_put_together(item, tensors) for item in content]
        return tuple(items) if kind == "tuple" else items
    return content
