"""LoRA layers in a pipeline: put beside those that are there, and taken out again."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from lora_scene.adapters.adapter import LoraModule
from lora_scene.adapters.formats.diffusers import to_diffusers
from lora_scene.adapters.formats.factors import PARTS
from lora_scene.backbones.loading import quiet_libraries
from lora_scene.errors import AdapterError, LoraSceneWarning


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
        # The libraries report a LoRA's own keys as missing; they are counted below. Their
        # shortcut over the meta device patches torch for all threads; without it they draw
        # first numbers for layers that are overwritten.
        with quiet_libraries(), torch.random.fork_rng(devices=[]):
            pipeline.load_lora_weights(
                to_diffusers(modules), adapter_name=name, low_cpu_mem_usage=False
            )
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
        _set_active(pipeline, active)
        raise


def remove_modules(pipeline: Any, name: str) -> None:
    """Delete one adapter's LoRA modules; after the last one, the layers around them as well.

    Of the others those stay active that were: where none was, PEFT would wake the first.
    """
    active = {part: _active_names(pipeline, part) for part in PARTS}
    if any(lora_layers(pipeline, part) for part in PARTS):
        with quiet_libraries():  # which warn that another adapter becomes the active one
            pipeline.delete_adapters(name)
    _set_active(pipeline, {part: [n for n in own if n != name] for part, own in active.items()})
    if not any(layer.lora_A for part in PARTS for layer in lora_layers(pipeline, part)):
        pipeline.unload_lora_weights()


def lora_layers(pipeline: Any, part: str) -> list[Any]:
    """Return the LoRA layers in a part of a pipeline; none where it lacks the part."""
    from peft.tuners.lora import LoraLayer

    component = getattr(pipeline, part, None)
    modules = () if component is None else component.modules()
    return [module for module in modules if isinstance(module, LoraLayer)]


def base_marks(pipeline: Any, keys: Iterable[str]) -> dict[str, tuple[str, int]]:
    """Return a mark of each base weight that LoRA modules stand on: its dtype, its bits' sum."""
    found = {}
    for key in keys:
        layer: Any = base_layer(pipeline, key)
        weight = layer.weight.detach()
        kind = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.itemsize]
        bits = weight.contiguous().view(kind)
        found[key] = str(weight.dtype), bits.sum(dtype=torch.int64)
    return {key: (dtype, int(total)) for key, (dtype, total) in found.items()}


def is_fused(pipeline: Any, name: str | None = None) -> bool:
    """Tell whether an adapter, or any, is merged into the base's weights."""
    layers = [layer for part in PARTS for layer in lora_layers(pipeline, part)]
    return any(name in layer.merged_adapters if name else layer.merged for layer in layers)


def is_disabled(pipeline: Any) -> bool:
    """Tell whether LoRA is switched off in a part of a pipeline, as `disable_lora` does."""
    return any(layer.disable_adapters for part in PARTS for layer in lora_layers(pipeline, part))


def has_fused_projections(pipeline: Any) -> bool:
    """Tell whether attention reads copies of its weights, as `fuse_qkv_projections` makes them."""
    processors = getattr(getattr(pipeline, "unet", None), "attn_processors", {})
    return any(type(each).__name__.startswith("Fused") for each in processors.values())


def has_float8(pipeline: Any) -> bool:
    """Tell whether weights are stored in float8, as `enable_layerwise_casting` does."""
    parts = [part for name in PARTS if (part := getattr(pipeline, name, None)) is not None]
    dtypes = {weight.dtype for part in parts for weight in part.parameters()}
    return any(dtype.is_floating_point and dtype.itemsize == 1 for dtype in dtypes)


def refuse_fused(pipeline: Any, name: str, before: Mapping[str, tuple[str, int]]) -> None:
    """Refuse to take out an adapter that is in the base's weights, and warn where one was.

    Args:
        pipeline: A pipeline.
        name: The adapter's name in it.
        before: `base_marks` from before it was loaded.

    Raises:
        AdapterError: It is fused, or was fused for good.
    """
    if is_fused(pipeline, name):
        raise AdapterError(
            "fused into the base's weights",
            where=name,
            hint="pipeline.unfuse_lora() first, which leaves rounding behind, or load the base"
            " anew",
        )
    now = base_marks(pipeline, before)
    changed = [key for key in before if now[key][0] == before[key][0] and now[key] != before[key]]
    if not changed:
        return
    layers = [layer for part in PARTS for layer in lora_layers(pipeline, part)]
    if not any(name in layer.lora_A for layer in layers):
        raise AdapterError(
            "fused into the base's weights for good",
            where=name,
            got=f"{len(changed)} changed weights, such as {changed[0]}",
            hint="load the base anew",
        )
    warnings.warn(
        f"{len(changed)} weights of the base are not what they were before {name} was loaded:"
        " fusing and unfusing leaves rounding behind. Load the base anew for its own weights",
        LoraSceneWarning,
        stacklevel=4,
    )


def refuse_offloaded(pipeline: Any) -> None:
    """Refuse a pipeline whose weights are elsewhere.

    Raises:
        AdapterError: A weight is on no device.
    """
    for part in PARTS:
        component = getattr(pipeline, part, None)
        if component is not None and any(p.is_meta for p in component.parameters()):
            raise AdapterError(
                "its weights are offloaded",
                where=part,
                hint="pipeline.remove_all_hooks() first; load adapters before"
                " enable_sequential_cpu_offload",
            )


def is_reserved(name: str) -> bool:
    """Tell whether no adapter can have a name: PEFT keeps them in a `ModuleDict`, by name."""
    return hasattr(torch.nn.ModuleDict(), name)


def base_layer(pipeline: Any, key: str) -> Any | None:
    """Return the base's own layer that a key of `Adapter.modules` names, or None.

    transformers has both kept and dropped `text_model` at the head of a text encoder's paths.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer  # slow to import

    part, _, path = key.partition(".")
    component = getattr(pipeline, part, None)
    if component is None:
        return None
    if path.startswith("text_model.") and not hasattr(component, "text_model"):
        path = path.removeprefix("text_model.")
    try:
        layer = component.get_submodule(path)
    except AttributeError:
        return None
    return layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer


def _activate(pipeline: Any, active: Mapping[str, list[str]], name: str, weight: float) -> int:
    """Set a new adapter beside those that were active; return how many layers have it."""
    _set_active(pipeline, {part: [*names, name] for part, names in active.items()})
    layers = [layer for part in PARTS for layer in lora_layers(pipeline, part)]
    own = [layer for layer in layers if name in layer.lora_A]
    for layer in own:
        layer.set_scale(name, weight)
    return len(own)


def _set_active(pipeline: Any, active: Mapping[str, list[str]]) -> None:
    for part, names in active.items():
        for layer in lora_layers(pipeline, part):
            layer.set_adapter(names)
            layer.requires_grad_(False)


def _active_names(pipeline: Any, part: str) -> list[str]:
    names: dict[str, None] = {}
    for layer in lora_layers(pipeline, part):
        names.update(dict.fromkeys(name for name in layer.active_adapters if name in layer.lora_A))
    return list(names)
