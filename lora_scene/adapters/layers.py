"""LoRA layers in a pipeline: put beside those that are there, and taken out again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lora_scene.adapters.adapter import LoraModule
from lora_scene.adapters.formats.diffusers import to_diffusers
from lora_scene.adapters.formats.factors import PARTS
from lora_scene.backbones.loading import quiet_libraries
from lora_scene.errors import AdapterError


def add_modules(
    pipeline: Any, modules: Mapping[str, LoraModule], *, name: str, weight: float
) -> None:
    """Load LoRA modules beside those that are active, and count them.

    Args:
        pipeline: A Stable Diffusion pipeline.
        modules: See `Adapter.modules`.
        name: The adapter's name in the pipeline.
        weight: Factor of the update.

    Raises:
        AdapterError: Not every module found its place. The pipeline is as it was.
    """
    if not modules:
        return
    active = {part: _active_names(pipeline, part) for part in PARTS}
    try:
        with quiet_libraries():  # which report a LoRA's own keys as missing; they are counted below
            pipeline.load_lora_weights(to_diffusers(modules), adapter_name=name)
        n_found = _activate(pipeline, active, name, weight)
        if n_found != len(modules):
            raise AdapterError(
                "not every LoRA module found its place",
                where=name,
                expected=len(modules),
                got=n_found,
            )
    except BaseException:
        remove_modules(pipeline, name)
        for part in PARTS:
            for layer in lora_layers(pipeline, part):
                layer.set_adapter(active[part])
        raise


def remove_modules(pipeline: Any, name: str) -> None:
    """Delete one adapter's LoRA modules; after the last one, the layers around them as well."""
    if any(lora_layers(pipeline, part) for part in PARTS):
        with quiet_libraries():  # which warn that another adapter becomes the active one
            pipeline.delete_adapters(name)
    if not any(layer.lora_A for part in PARTS for layer in lora_layers(pipeline, part)):
        pipeline.unload_lora_weights()


def lora_layers(pipeline: Any, part: str) -> list[Any]:
    """Return the LoRA layers in a part of a pipeline; none where it lacks the part."""
    from peft.tuners.lora import LoraLayer

    component = getattr(pipeline, part, None)
    if component is None:
        return []
    return [module for module in component.modules() if isinstance(module, LoraLayer)]


def _activate(pipeline: Any, active: Mapping[str, list[str]], name: str, weight: float) -> int:
    """Set a new adapter beside those that were active; return how many layers have it."""
    n_found = 0
    for part in PARTS:
        for layer in lora_layers(pipeline, part):
            layer.set_adapter([*active[part], name])
            layer.requires_grad_(False)
            if name in layer.lora_A:
                layer.set_scale(name, weight)
                n_found += 1
    return n_found


def _active_names(pipeline: Any, part: str) -> list[str]:
    names: dict[str, None] = {}
    for layer in lora_layers(pipeline, part):
        names.update(dict.fromkeys(name for name in layer.active_adapters if name in layer.lora_A))
    return list(names)
