"""What a file says of itself, held against what it holds: no base and no reference is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from lora_scene.adapters.adapter import product
from lora_scene.adapters.formats.kohya import kohya_name
from lora_scene.adapters.inspection import FACTOR, Inspection
from lora_scene.adapters.untrusted import read_tensors
from lora_scene.backbones.families import Family
from lora_scene.errors import AdapterError

Updates = Mapping[str, Callable[[], torch.Tensor]]
"""What makes each module's update, (out, in) float32, when it is asked for."""

HASH = "modelspec.hash_sha256"
HEADER_LENGTH = 8  # bytes, in front of a safetensors header


@dataclass(frozen=True)
class FactorPair:
    """A module's factors in a LoRA's file.

    Attributes:
        down: The key of one.
        up: The key of the other.
        scale: alpha / rank of this module, 1 where no alpha stands beside it.
    """

    down: str
    up: str
    scale: float


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
    pairs = factor_pairs(tensors)
    updates: dict[str, Callable[[], torch.Tensor]] = {}
    for key in keys:
        pair = pairs.get(kohya_name(key, family))
        if pair is None:
            continue
        up, down = tensors[pair.up].float(), tensors[pair.down].float()
        updates[key] = partial(_update, up, down, pair.scale)
    return updates


def factor_pairs(tensors: Mapping[str, torch.Tensor]) -> dict[str, FactorPair]:
    """Return the factors of each module of a LoRA, by the module's name in its file.

    Raises:
        AdapterError: A factor has no partner or no rank, or an alpha is no number.
    """
    pairs = {}
    for key, down in tensors.items():
        match = FACTOR.fullmatch(key)
        if match is None:
            continue
        module = match["module"]
        ending = key.removeprefix(module).replace("down", "up").replace("lora_A", "lora_B")
        alpha = tensors.get(f"{module}.alpha")
        if module + ending not in tensors:
            raise AdapterError("a factor without its partner", where=key, expected=module + ending)
        if down.ndim < 2 or not down.numel():
            raise AdapterError("a factor without a rank", where=key, got=tuple(down.shape))
        if alpha is not None and alpha.numel() != 1:
            raise AdapterError("an alpha that is no number", where=f"{module}.alpha")
        scale = 1.0 if alpha is None else float(alpha) / len(down)
        pairs[module] = FactorPair(key, module + ending, scale)
    return pairs


def folded_tensors(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a LoRA's tensors without alphas, each module's scale inside its `up`.

    Raises:
        AdapterError: See `factor_pairs`.
    """
    folded = {key: tensor for key, tensor in tensors.items() if not key.endswith(".alpha")}
    for pair in factor_pairs(tensors).values():
        folded[pair.up] = pair.scale * tensors[pair.up].float()
    return folded


def _update(up: torch.Tensor, down: torch.Tensor, scale: float) -> torch.Tensor:
    return scale * product(up, down)


def _tensors_sha256(found: Inspection) -> str:
    with found.path.open("rb") as file:
        n_header = int.from_bytes(file.read(HEADER_LENGTH), "little")
        file.seek(HEADER_LENGTH + n_header)
        return hashlib.file_digest(file, "sha256").hexdigest()
