"""From one photo and a mask per thing: adapters that show those things in new pictures.

These names are the public ones; everything else may move. They are loaded when first used, so
that importing the package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora_scene.adapters.adapter import Adapter as Adapter
    from lora_scene.adapters.attachment import load_adapter as load_adapter
    from lora_scene.adapters.attachment import unload_adapter as unload_adapter
    from lora_scene.adapters.exports import export_adapter as export_adapter
    from lora_scene.adapters.folder import read_adapter as read_adapter
    from lora_scene.backbones.loading import load_pipeline as load_pipeline
    from lora_scene.backbones.training_size import usual_canvas as usual_canvas
    from lora_scene.creating.choices import AdapterChoice as AdapterChoice
    from lora_scene.creating.generation import draw as draw
    from lora_scene.creating.generation import generate as generate
    from lora_scene.creating.picture_files import save_image as save_image
    from lora_scene.creating.requests import Request as Request
    from lora_scene.creating.requests import Sampling as Sampling
    from lora_scene.creating.studio import open_studio as open_studio
    from lora_scene.errors import LoraSceneError as LoraSceneError
    from lora_scene.judging.evaluation import evaluate as evaluate
    from lora_scene.learning.training import train as train
    from lora_scene.recipe import Recipe as Recipe
    from lora_scene.recipe import load_recipe as load_recipe
    from lora_scene.scenes.framing import frame_scene as frame_scene
    from lora_scene.scenes.mask_prompts import Box as Box
    from lora_scene.scenes.mask_prompts import Point as Point
    from lora_scene.scenes.mask_prompts import Prompt as Prompt
    from lora_scene.scenes.masking import make_masks as make_masks
    from lora_scene.scenes.masks import report_on as report_on
    from lora_scene.scenes.overlay import draw_overlay as draw_overlay
    from lora_scene.scenes.pictures import read_photo as read_photo
    from lora_scene.scenes.scene import Scene as Scene
    from lora_scene.scenes.scene import load_scene as load_scene
    from lora_scene.scenes.scene_folder import write_scene as write_scene
    from lora_scene.sheets import contact_sheet as contact_sheet

__version__ = "0.1.0"

_NAMES = {
    "lora_scene.adapters.adapter": ("Adapter",),
    "lora_scene.adapters.folder": ("read_adapter",),
    "lora_scene.adapters.attachment": (
        "load_adapter",
        "unload_adapter",
    ),
    "lora_scene.adapters.exports": ("export_adapter",),
    "lora_scene.backbones.loading": ("load_pipeline",),
    "lora_scene.creating.generation": (
        "draw",
        "generate",
    ),
    "lora_scene.creating.picture_files": ("save_image",),
    "lora_scene.creating.requests": ("Request", "Sampling"),
    "lora_scene.sheets": ("contact_sheet",),
    "lora_scene.creating.choices": ("AdapterChoice",),
    "lora_scene.creating.studio": ("open_studio",),
    "lora_scene.errors": ("LoraSceneError",),
    "lora_scene.judging.evaluation": ("evaluate",),
    "lora_scene.learning.training": ("train",),
    "lora_scene.recipe": (
        "Recipe",
        "load_recipe",
    ),
    "lora_scene.backbones.training_size": ("usual_canvas",),
    "lora_scene.scenes.framing": ("frame_scene",),
    "lora_scene.scenes.mask_prompts": (
        "Box",
        "Point",
        "Prompt",
    ),
    "lora_scene.scenes.masking": ("make_masks",),
    "lora_scene.scenes.masks": ("report_on",),
    "lora_scene.scenes.overlay": ("draw_overlay",),
    "lora_scene.scenes.pictures": ("read_photo",),
    "lora_scene.scenes.scene": (
        "Scene",
        "load_scene",
    ),
    "lora_scene.scenes.scene_folder": ("write_scene",),
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lora_scene' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
