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
from lora_scene.adapters.formats.factors import PARTS, even_factors, part_of
from lora_scene.errors import AdapterError

FILE = "pytorch_lora_weights.safetensors"
MAGNITUDE = ".lora_magnitude_vector"


def to_diffusers(modules: Mapping[str, LoraModule]) -> dict[str, torch.Tensor]:
    """Return the tensors of the diffusers file.

    Args:
        modules: See `Adapter.modules`.

    Raises:
        AdapterError: See `even_factors`.
    """
    tensors: dict[str, torch.Tensor] = {}
    for key, module in even_factors(modules).items():
        tensors[f"{key}{infix_of(key)}.down.weight"] = module.down
        tensors[f"{key}{infix_of(key)}.up.weight"] = module.up
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
        AdapterError: A key or a shape is not what the layout says, or there are DoRA magnitudes
            (arXiv:2402.09353), as early versions trained them.
    """
    magnitudes = [key for key in tensors if key.endswith(MAGNITUDE)]
    if magnitudes:
        raise AdapterError(
            f"a DoRA adapter: {len(magnitudes)} of its modules have magnitudes, which no"
            " interface applies as they were trained, and which are no longer read",
            where=f"{where}: {magnitudes[0]}",
            hint="train it anew, with plain LoRA",
        )
    remaining = dict(tensors)
    modules: dict[str, LoraModule] = {}
    for down_key in [key for key in tensors if key.endswith(".down.weight")]:
        key = down_key.removesuffix(".down.weight")
        key = key.removesuffix(infix_of(key))
        down = remaining.pop(down_key)
        up = remaining.pop(f"{key}{infix_of(key)}.up.weight", None)
        if part_of(key) not in PARTS or up is None or not _fit(down, up):
            raise AdapterError("not a pair of LoRA factors", where=f"{where}: {key}")
        rank = ranks.get(key, down.shape[0])
        if not 0 < rank <= down.shape[0] or down[rank:].any() or up[:, rank:].any():
            raise AdapterError(
                "metadata gives a rank that its factors do not have",
                where=f"{where}: {key}",
                got=f"rank {rank}, factors {tuple(down.shape)} and {tuple(up.shape)}",
            )
        modules[key] = LoraModule(down[:rank].contiguous(), up[:, :rank].contiguous(), float(rank))
    if remaining:
        raise AdapterError(
            "foreign tensors in a diffusers file", where=where, got=", ".join([*remaining][:3])
        )
    return modules


def infix_of(key: str) -> str:
    """Return what stands between a module key and `.down` or `.up`."""
    return ".lora" if part_of(key) == "unet" else ".lora_linear_layer"


def _fit(down: torch.Tensor, up: torch.Tensor) -> bool:
    is_pair = down.ndim in (2, 4) and up.shape[1:] == (len(down), *[1] * (down.ndim - 2))
    return is_pair and up.shape[0] > 0 and 0 not in down.shape
