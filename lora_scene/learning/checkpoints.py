"""Checkpoints: everything a run needs to go on bit for bit, in one safetensors file.

All draws of a step come from generators seeded by (seed, phase, step, part), so no generator's
state has to be kept: parameters, optimizer states, float16's scale, the position and what was
counted are the whole of it. The checkpoint before the last is kept beside it: should the last be
damaged, no more than one interval is lost.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lora_scene.errors import CheckpointError
from lora_scene.files import writing
from lora_scene.ownership import is_ours, metadata_of
from lora_scene.targets import flush, refuse_foreign

FORMAT = "lora_scene.checkpoint.2"
PREVIOUS = "previous.safetensors"
DAMAGE = (
    SafetensorError, KeyError, ValueError, TypeError, OSError, AttributeError, RuntimeError,
)  # fmt: skip


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
    """Write a checkpoint with a checksum; the one that lies there becomes the previous one.

    Raises:
        FileError: It cannot be written; what lies there is left as it is.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = _take_apart(checkpoint.state, tensors)
    metadata = {
        "format": FORMAT,
        "fingerprint": checkpoint.fingerprint,
        "phase": str(checkpoint.phase),
        "step": str(checkpoint.step),
        "skeleton": json.dumps(skeleton),
    }
    metadata["sha256"] = _digest(metadata, tensors)
    previous = path.with_name(PREVIOUS)
    with writing(path, root=path.parents[1]) as aside:
        save_file(tensors, aside, metadata)
        flush(aside)
        if path.is_file():
            refuse_foreign(previous, path.parents[1])
            os.replace(path, previous)


def newest_checkpoint(path: Path) -> Path | None:
    """Return the file to go on from: the previous one where a kill fell between both renamings."""
    return next((p for p in (path, path.with_name(PREVIOUS)) if p.is_file()), None)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; its tensors lie on the CPU, and the file is not kept open.

    Raises:
        CheckpointError: The file is damaged or not a checkpoint.
    """
    try:
        return _read(path)
    except DAMAGE as error:
        raise CheckpointError(
            "the checkpoint cannot be read", where=path, got=error, hint=what_is_left(path)
        ) from error


def what_is_left(path: Path) -> str:
    """Say what to do about a checkpoint that cannot be gone on from."""
    anew = "--restart begins anew" if is_ours(path) else "move it away, then --restart begins anew"
    previous = path.with_name(PREVIOUS)
    try:
        good = _read(previous) if path != previous and previous.is_file() else None
    except (CheckpointError, *DAMAGE):
        good = None
    if good is None:
        return anew
    at = f"after step {good.step} of phase {good.phase}"
    return f"the last good one is {previous}, {at}: delete the damaged one to go on there; {anew}"


def _read(path: Path) -> Checkpoint:
    metadata = dict(metadata_of(path))
    if not metadata:
        raise ValueError("its header is damaged, or says nothing")
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            "not a checkpoint of this version",
            where=path,
            got=metadata.get("format"),
            hint=what_is_left(path),
        )
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    if metadata.pop("sha256") != _digest(metadata, tensors):
        raise ValueError("its checksum does not fit: it was changed after it was written")
    found = Checkpoint(
        fingerprint=metadata["fingerprint"],
        phase=int(metadata["phase"]),
        step=int(metadata["step"]),
        state=_put_together(json.loads(metadata["skeleton"]), tensors),
    )
    if found.phase not in (1, 2) or found.step < 0:
        raise ValueError(f"no run is at step {found.step} of phase {found.phase}")
    return found


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 over everything that a checkpoint holds."""
    digest = hashlib.sha256(json.dumps(dict(sorted(metadata.items()))).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@torch.no_grad()
def put_back(
    checkpoint: Checkpoint,
    path: Path,
    *,
    parameters: Sequence[Tensor],
    counts: Sequence[Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
    scaler: Any,
) -> tuple[int, int]:
    """Put a checkpoint's numbers in place.

    Args:
        checkpoint: Of the same run.
        path: Where it lies.
        parameters: What is trained.
        counts: How often each row had a gradient.
        optimizers: Those of its phase; none where only parameters are to be had.
        scaler: The gradients' scaler in float16, or None.

    Returns:
        How many steps were skipped, and how many of them in a row up to here.

    Raises:
        CheckpointError: It does not fit.
    """
    state = checkpoint.state
    try:
        _check_shapes(state, parameters, optimizers)
        for parameter, kept in zip(parameters, state["parameters"], strict=True):
            parameter.copy_(kept)
        for own, kept in zip(counts, state["n_gradients"], strict=True):
            own.copy_(kept)
        if optimizers:
            for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(kept)
            if scaler is not None and state["scaler"] is not None:
                scaler.load_state_dict(state["scaler"])
        n_skipped, in_a_row = state["n_skipped"]
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            "the checkpoint does not fit what is trained",
            where=path,
            got=error,
            hint=what_is_left(path),
        ) from error
    return n_skipped, in_a_row


def _check_shapes(
    state: Mapping[str, Any],
    parameters: Sequence[Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
) -> None:
    """Compare numbers and states with what they are for: copying would stretch some shapes."""
    if [p.shape for p in parameters] != [p.shape for p in state["parameters"]]:
        raise ValueError("parameters of another shape")
    for optimizer, kept in zip(optimizers, state["optimizers"], strict=False):
        moved = [p for group in optimizer.param_groups for p in group["params"]]
        for index, parameter in enumerate(moved):
            own = kept["state"].get(index, {})
            moments = [own[name] for name in ("exp_avg", "exp_avg_sq") if name in own]
            if any(moment.shape != parameter.shape for moment in moments):
                raise ValueError("optimizer states of another shape")


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
