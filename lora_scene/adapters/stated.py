"""What a file says of itself, held against what it holds: no base and no reference is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch

from lora_scene.adapters.adapter import product
from lora_scene.adapters.formats.kohya import kohya_name
from lora_scene.adapters.inspection import FACTOR, Inspection
from lora_scene.adapters.untrusted import read_tensors
from lora_scene.backbones.families import Family

Updates = Mapping[str, Callable[[], torch.Tensor]]
"""What makes each module's update, (out, in) float32, when it is asked for."""

HASH = "modelspec.hash_sha256"
HEADER_LENGTH = 8  # bytes, in front of a safetensors header


def stated_problems(found: Inspection) -> list[str]:
    """Return where a file of this package is not what its own metadata says.

    Args:
        found: The file; a stranger's states nothing that could be relied on.
    """
    note = found.note
    if note is None:
        return []
    problems = []
    hashed = found.metadata.get(HASH)
    if hashed is not None and hashed != f"0x{_tensors_sha256(found)}":
        problems.append("its tensors were changed after it was written: its own hash differs")
    n_modules = sum(found.n_modules.values())
    if found.layout != "embedding" and n_modules != note.n_modules:
        problems.append(f"holds {n_modules} of the adapter's {note.n_modules} modules")
    for stem, n_vectors in found.n_vectors.items():
        stated = {concept.stem: concept.n_vectors for concept in note.concepts}.get(stem)
        if stated is not None and n_vectors != stated:
            problems.append(f"holds {n_vectors} of the {stated} rows of {stem}")
    return problems


def stated_updates(found: Inspection, keys: Iterable[str], family: Family) -> Updates:
    """Return alpha / rank * up @ down of each module of a kohya file, as its readers compute it.

    Args:
        found: The file; of another layout, nothing is returned.
        keys: See `Adapter.modules`; which to look for.
        family: The base's.
    """
    if found.layout not in ("kohya", "bundle"):
        return {}
    tensors, _ = read_tensors(found.path)
    names = {match["module"]: match for key in tensors if (match := FACTOR.fullmatch(key))}
    updates: dict[str, Callable[[], torch.Tensor]] = {}
    for key in keys:
        match = names.get(kohya_name(key, family))
        if match is None:
            continue
        down = tensors[match.string].float()
        up = tensors[match.string.replace("lora_down", "lora_up")].float()
        alpha = float(tensors.get(f"{match['module']}.alpha", torch.tensor(len(down))))
        updates[key] = partial(_update, up, down, alpha / len(down))
    return updates


def _update(up: torch.Tensor, down: torch.Tensor, scale: float) -> torch.Tensor:
    return scale * product(up, down)


def _tensors_sha256(found: Inspection) -> str:
    with found.path.open("rb") as file:
        n_header = int.from_bytes(file.read(HEADER_LENGTH), "little")
        file.seek(HEADER_LENGTH + n_header)
        return hashlib.file_digest(file, "sha256").hexdigest()
