"""The kohya layout, which ComfyUI, A1111, Forge, SD.Next and InvokeAI read, and its bundle.

A module's name is its diffusers path with `_` for `.`, behind `lora_unet_`, `lora_te_` (SD),
`lora_te1_` or `lora_te2_` (SDXL); beside its factors stands `.alpha`, here always its rank,
in float32 whatever the factors are.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lora_scene.adapters.adapter import Adapter, LoraModule
from lora_scene.adapters.formats.factors import even_factors, part_of
from lora_scene.backbones.families import FAMILIES, Family

FORGE_MAX_UNMATCHED_KEYS = 12  # Forge refuses a whole LoRA file with more of them
BUNDLE = "bundle_emb"
BUNDLE_KEYS: Mapping[str, str] = {
    "emb_params": "string_to_param.*",
    "clip_l": "clip_l",
    "clip_g": "clip_g",
}


def to_kohya(modules: Mapping[str, LoraModule], family: Family) -> dict[str, torch.Tensor]:
    """Return the tensors of the kohya file.

    Args:
        modules: See `Adapter.modules`.
        family: The base's family, which names the text encoders.

    Raises:
        AdapterError: See `even_factors`.
    """
    tensors: dict[str, torch.Tensor] = {}
    for key, module in even_factors(modules).items():
        name = kohya_name(key, family)
        tensors[f"{name}.lora_down.weight"] = module.down
        tensors[f"{name}.lora_up.weight"] = module.up
        tensors[f"{name}.alpha"] = torch.tensor(module.alpha)
    return tensors


def to_bundle(adapter: Adapter) -> dict[str, torch.Tensor]:
    """Return the kohya tensors with the embeddings beside them, for A1111 and SD.Next.

    Raises:
        AdapterError: See `to_kohya`.
    """
    family = FAMILIES[adapter.family]
    tensors = to_kohya(adapter.modules, family)
    for concept in adapter.concepts:
        for key, rows in zip(family.embedding_keys, concept.rows, strict=True):
            tensors[f"{BUNDLE}.{concept.stem}.{BUNDLE_KEYS[key]}"] = rows
    return tensors


def n_bundle_keys(adapter: Adapter) -> int:
    """Return how many keys a bundle has that a LoRA loader cannot match."""
    return len(adapter.concepts) * len(FAMILIES[adapter.family].embedding_keys)


def kohya_name(key: str, family: Family) -> str:
    """Return the kohya name of a module key, such as `unet.down_blocks.0...to_q`."""
    prefixes = {"unet": "lora_unet"}
    prefixes |= dict(zip(family.text_encoders, family.kohya_text_prefixes, strict=True))
    path = key.removeprefix(part_of(key) + ".")
    return f"{prefixes[part_of(key)]}_{path.replace('.', '_')}"
