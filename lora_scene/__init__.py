"""From one photo and a mask per thing: adapters that show those things in new pictures.

The public names are loaded when first used, so that importing the package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora_scene.adapters.adapter import Adapter as Adapter
    from lora_scene.adapters.attachment import load_adapter as load_adapter
    from lora_scene.adapters.attachment import unload_adapter as unload_adapter
    from lora_scene.errors import LoraSceneError as LoraSceneError
    from lora_scene.learning.training import train as train
    from lora_scene.recipe import Recipe as Recipe
    from lora_scene.scenes.scene import Scene as Scene

__version__ = "0.1.0"

_HOMES = {
    "Adapter": "lora_scene.adapters.adapter",
    "LoraSceneError": "lora_scene.errors",
    "Recipe": "lora_scene.recipe",
    "Scene": "lora_scene.scenes.scene",
    "load_adapter": "lora_scene.adapters.attachment",
    "train": "lora_scene.learning.training",
    "unload_adapter": "lora_scene.adapters.attachment",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lora_scene' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
