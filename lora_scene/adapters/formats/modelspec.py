"""Metadata that interfaces show: ModelSpec 1.0.1, kohya's `ss_*`, and the sidecar of a LoRA."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_scene.adapters.adapter import Adapter
from lora_scene.adapters.formats import embeddings
from lora_scene.adapters.formats.factors import highest_ranks
from lora_scene.backbones.families import FAMILIES

IMPLEMENTATION = "https://github.com/Stability-AI/generative-models"
SIDECAR_KEYS = frozenset({"activation text", "preferred weight"})  # no other record has them
SIDECAR_VERSIONS: Mapping[str, str] = {"sd1": "SD1", "sd2": "SD2", "sdxl": "SDXL"}


@dataclass(frozen=True)
class Title:
    """What people are told about an exported adapter.

    Attributes:
        name: File stem and title.
        author: Who made it; left out when empty.
        license: SPDX id or `other`; left out when empty.
        date: Of the export.
    """

    name: str
    author: str = ""
    license: str = ""
    date: datetime.date = datetime.date.min


def architecture(adapter: Adapter) -> str:
    """Return ModelSpec's name of the base's architecture."""
    if adapter.family == "sdxl":
        return "stable-diffusion-xl-v1-base"
    if adapter.family == "sd2":
        is_v = adapter.info.prediction_type == "v_prediction"
        return "stable-diffusion-v2-768-v" if is_v else "stable-diffusion-v2-512"
    return "stable-diffusion-v1"


def modelspec(adapter: Adapter, title: Title, *, kind: str, sha256: str) -> dict[str, str]:
    """Return ModelSpec 1.0.1 metadata.

    Args:
        adapter: The adapter.
        title: What people are told.
        kind: `lora` or `textual-inversion`.
        sha256: Over the file's tensor bytes, hexadecimal.
    """
    nouns = ", ".join(f"{concept.stem} ({concept.noun})" for concept in adapter.concepts)
    fields = {
        "sai_model_spec": "1.0.1",
        "architecture": f"{architecture(adapter)}/{kind}",
        "implementation": IMPLEMENTATION,
        "title": title.name,
        "resolution": str(adapter.info.first_size),
        "description": f"Handles: {nouns}. Base: {adapter.info.base_model}.",
        "author": title.author,
        "date": "" if title.date == datetime.date.min else title.date.isoformat(),
        "hash_sha256": f"0x{sha256}",
        "license": title.license,
        "tags": ", ".join(concept.noun for concept in adapter.concepts),
        # as InvokeAI, which shows this field, wants embeddings called
        "trigger_phrase": ", ".join(f"<{concept.stem}>" for concept in adapter.concepts),
        "prediction_type": "v" if adapter.info.prediction_type == "v_prediction" else "epsilon",
    }
    return {f"modelspec.{key}": value for key, value in fields.items() if value}


def kohya_metadata(adapter: Adapter, title: Title, sha256: str) -> dict[str, str]:
    """Return the `ss_*` metadata that A1111, Forge and SD.Next read."""
    info = adapter.info
    rank = max(highest_ranks(adapter.modules).values(), default=0)
    is_v = info.prediction_type == "v_prediction"
    versions = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}
    suffix = "_v" if is_v and adapter.family != "sdxl" else ""
    words = {concept.stem: 1 for concept in adapter.concepts}
    is_convolved = any(len(module.shape) == 4 for module in adapter.modules.values())
    on_convolutions = {"conv_dim": str(rank), "conv_alpha": str(float(rank))}
    return {
        "ss_v2": str(adapter.family == "sd2"),
        "ss_base_model_version": versions[adapter.family] + suffix,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(float(rank)),
        "ss_network_args": json.dumps(on_convolutions if is_convolved else {}),
        "ss_output_name": title.name,
        "ss_sd_model_name": info.base_model,
        "ss_resolution": f"({info.resolution}, {info.resolution})",
        "ss_seed": str(info.seed),
        "ss_steps": str(sum(info.steps)),
        "ss_num_train_images": str(len(info.image_hashes)),
        "ss_tag_frequency": json.dumps({title.name: words}, ensure_ascii=False),
        "sshs_model_hash": sha256,
    }


def sidecar(adapter: Adapter, title: Title, *, has_rows: bool = True) -> dict[str, Any]:
    """Return the JSON that A1111, Forge and SD.Next, which reads its `tags`, look for.

    It lies beside the LoRA file; there, embeddings are called by the names of their files.

    Args:
        adapter: What the file is of.
        title: Its name.
        has_rows: Whether files of embeddings are written with it.
    """
    where = f"{embeddings.FOLDER}/" if has_rows else "its handles, which this file has not,"
    nouns = ", ".join(f"{concept.stem} = {concept.noun}" for concept in adapter.concepts)
    return {
        "description": f"{FAMILIES[adapter.family].title}, base {adapter.info.base_model}. {nouns}."
        f" Put the files of {where} into the embeddings folder.",
        "sd version": SIDECAR_VERSIONS[adapter.family],
        "activation text": ", ".join(concept.stem for concept in adapter.concepts),
        "tags": [concept.stem for concept in adapter.concepts],
        "preferred weight": 1.0,
        "notes": f"Trained at {adapter.info.told_sizes} with lora_scene.",
    }
