"""Tiny random bases for tests."""

from __future__ import annotations

import functools

from lora_scene.backbones.families import FAMILIES as _FAMILIES
from tests.random_base import RESOLUTION
from tests.random_base import build_pipeline as pipeline
from tests.random_base import build_scheduler as scheduler
from tests.random_base import build_text_config as text_config
from tests.random_base import build_tokenizer as tokenizer
from tests.random_base import build_unet as unet

FAMILIES = tuple(_FAMILIES)

__all__ = [
    "FAMILIES",
    "RESOLUTION",
    "folder",
    "pipeline",
    "scheduler",
    "text_config",
    "tokenizer",
    "unet",
]


@functools.cache
def folder(family: str, root: str, seed: int = 0) -> str:
    """Save a random pipeline under `root` once; return its folder."""
    path = f"{root}/{family}-{seed}"
    pipeline(family, seed=seed).save_pretrained(path)
    return path
