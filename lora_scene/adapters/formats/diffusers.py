"""The diffusers layout: `pytorch_lora_weights.safetensors`.

Scales are folded into `up`, no LoRA configuration travels beside the tensors, and text-encoder
keys keep `text_model.`: so old and new versions of diffusers read the same update. Without a
configuration old versions take one scale from one module's rank, so modules of a lower rank than
the highest of their part are padded with zeros; the metadata keeps their true ranks.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lora_scene.adapters.adapter import LoraModule
from lora_scene.adapters.formats.factors import (
    PARTS,
    even_factors,
    part_of,
    refuse_dora_on_text_encoders,
)
from lora_scene.errors import AdapterError

FILE = "pytorch_lora_weights.safetensors"
MAGNITUDE = ".lora_magnitude_vector"


def to_diffusers(modules: Mapping[str, LoraModule]) -> dict[str, torch.Tensor]:
    """Return the tensors of the diffusers file.

    Args:
        modules: See `Adapter.modules`.

    Raises:
        AdapterError: A text encoder has DoRA modules, which diffusers loads wrong.
    """
    refuse_dora_on_text_encoders(modules)
    tensors: dict[str, torch.Tensor] = {}
    for key, module in even_factors(modules).items():
        tensors[f"{key}{infix_of(key)}.down.weight"] = module.down
        tensors[f"{key}{infix_of(key)}.up.weight"] = module.up
        if module.magnitude is not None:
            tensors[key + MAGNITUDE] = module.magnitude
    return tensors


def from_diffusers(
    tensors: Mapping[str, torch.Tensor], ranks: Mapping[str, int], where: object
) -> dict[str, LoraModule]:
    """Return the LoRA factors of a diffusers file that `to_diffusers` wrote.

    Args:
        tensors: The file's tensors.
        ranks: The true rank of each padded module.
        where: The file, for messages.

    Raises:
        AdapterError: A key or a shape is not what the layout says.
    """
    remaining = dict(tensors)
    modules: dict[str, LoraModule] = {}
    for down_key in [key for key in tensors if key.endswith(".down.weight")]:
        key = down_key.removesuffix(".down.weight")
        key = key.removesuffix(infix_of(key))
        down = remaining.pop(down_key)
        up = remaining.pop(f"{key}{infix_of(key)}.up.weight", None)
        magnitude = remaining.pop(key + MAGNITUDE, None)
        if part_of(key) not in PARTS or up is None or not _fit(down, up, magnitude):
            raise AdapterError("not a pair of LoRA factors", where=f"{where}: {key}")
        rank = ranks.get(key, down.shape[0])
        if not 0 < rank <= down.shape[0] or down[rank:].any() or up[:, rank:].any():
            raise AdapterError(
                "metadata gives a rank that its factors do not have",
                where=f"{where}: {key}",
                got=f"rank {rank}, factors {tuple(down.shape)} and {tuple(up.shape)}",
            )
        modules[key] = LoraModule(
            down[:rank].contiguous(), up[:, :rank].contiguous(), float(rank), magnitude=magnitude
        )
    if remaining:
        raise AdapterError(
            "foreign tensors in a diffusers file", where=where, got=", ".join([*remaining][:3])
        )
    return modules


def infix_of(key: str) -> str:
    """Return what stands between a module key and `.down` or `.up`."""
    return ".lora" if part_of(key) == "unet" else ".lora_linear_layer"


def _fit(down: torch.Tensor, up: torch.Tensor, magnitude: torch.Tensor | None) -> bool:
    if down.ndim not in (2, 4) or up.shape[1:] != (down.shape[0], *[1] * (down.ndim - 2)):
        return False
    if up.shape[0] == 0 or 0 in down.shape:
        return False
    return magnitude is None or magnitude.shape == up.shape[:1]
