"""LoRA factors as every reader takes them: alpha = r in each module, one r in each part."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lora_scene.adapters.adapter import LoraModule
from lora_scene.errors import AdapterError

PARTS = ("unet", "text_encoder", "text_encoder_2")
MAX_NUMBERS = 1 << 31  # after padding, 8 GB; rank 1024 on SDXL's attention has 1.5 billion


def even_factors(modules: Mapping[str, LoraModule]) -> dict[str, LoraModule]:
    """Fold every scale into `up`, and pad each part's modules with zeros to its highest rank.

    Some readers take one scale for a whole part: from one module's rank, or from the commonest
    alpha. With alpha = r everywhere in a part there is only one to take. The product up @ down,
    and so the update, stays what it was.

    Args:
        modules: See `Adapter.modules`.

    Raises:
        AdapterError: The ranks differ so much that the padding would not fit into memory.
    """
    highest = highest_ranks(modules)
    _refuse_vast(modules, highest)
    even = {}
    for key, module in modules.items():
        folded = module.folded()
        rank = highest[part_of(key)]
        even[key] = LoraModule(
            _padded(folded.down, 0, rank), _padded(folded.up, 1, rank), float(rank)
        )
    return even


def padded_ranks(modules: Mapping[str, LoraModule]) -> dict[str, int]:
    """Return the true rank of each module that `even_factors` pads."""
    highest = highest_ranks(modules)
    return {
        key: module.rank for key, module in modules.items() if module.rank < highest[part_of(key)]
    }


def highest_ranks(modules: Mapping[str, LoraModule]) -> dict[str, int]:
    """Return the highest rank in each part."""
    highest: dict[str, int] = {}
    for key, module in modules.items():
        highest[part_of(key)] = max(module.rank, highest.get(part_of(key), 0))
    return highest


def part_of(key: str) -> str:
    """Return the part of a module key: `unet`, `text_encoder` or `text_encoder_2`."""
    return key.partition(".")[0]


def _refuse_vast(modules: Mapping[str, LoraModule], highest: Mapping[str, int]) -> None:
    n_numbers = sum(
        highest[part_of(key)] * (module.down[0].numel() + len(module.up))
        for key, module in modules.items()
    )
    if n_numbers > MAX_NUMBERS:
        raise AdapterError(
            "ranks too far apart to be padded to the highest",
            expected=f"at most {MAX_NUMBERS:,} numbers",
            got=f"{n_numbers:,}",
        )


def _padded(factor: torch.Tensor, dim: int, rank: int) -> torch.Tensor:
    missing = list(factor.shape)
    missing[dim] = rank - factor.shape[dim]
    return torch.cat([factor, factor.new_zeros(missing)], dim)
