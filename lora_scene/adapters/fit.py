"""Whether an adapter fits a pipeline: looked at before anything is touched, in one go."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import torch

from lora_scene.adapters.adapter import Adapter
from lora_scene.adapters.formats.factors import part_of
from lora_scene.adapters.layers import (
    base_layer,
    has_float8,
    has_fused_projections,
    is_disabled,
    is_fused,
    is_reserved,
    refuse_offloaded,
)
from lora_scene.adapters.vocabulary import clashes
from lora_scene.backbones.families import FAMILIES, Family, identify
from lora_scene.errors import AdapterError, BackboneError

MAX_MODULES_NAMED = 3


def check_fit(pipeline: Any, adapter: Adapter, *, name: str, taken: Collection[str] = ()) -> None:
    """Check that an adapter can be loaded into a pipeline of diffusers under a name.

    Args:
        pipeline: The pipeline.
        adapter: The adapter.
        name: What to call it there.
        taken: Names of adapters of which diffusers does not know: rows without modules.

    Raises:
        AdapterError: Another family, missing or differently shaped modules, rows of another width,
            a name or a handle that is taken. Several problems are reported at once.
    """
    family = pipeline_family(pipeline)
    if family.key != adapter.family:
        raise AdapterError(
            f"an adapter for {FAMILIES[adapter.family].title} does not fit this pipeline",
            where=name,
            expected=f"a pipeline of {FAMILIES[adapter.family].title}",
            got=f"{type(pipeline).__name__} of {family.title}",
        )
    refuse_offloaded(pipeline)
    _refuse_deaf(pipeline, adapter, name)
    problems = [
        *_name_problems(pipeline, name, taken),
        *_number_problems(adapter),
        *_row_problems(pipeline, adapter, family),
        *_handle_problems(pipeline, adapter, family),
        *_module_problems(pipeline, adapter),
    ]
    if problems:
        raise AdapterError.collect(problems, f"{name} does not fit this pipeline")


def pipeline_family(pipeline: Any) -> Family:
    """Tell a pipeline's family from its UNet, whether it inpaints, or is distilled (LCM), or not.

    Raises:
        AdapterError: It has no UNet of a known family.
    """
    unet = getattr(pipeline, "unet", None)
    if unet is None:
        raise AdapterError(
            "not a Stable Diffusion pipeline: it has no UNet", got=type(pipeline).__name__
        )
    try:
        n = unet.config["out_channels"]
        return identify({**unet.config, "in_channels": n, "time_cond_proj_dim": None})
    except BackboneError as error:
        raise AdapterError(
            "no adapter fits this pipeline", got=f"{type(pipeline).__name__}: {error.what}"
        ) from error


def _refuse_deaf(pipeline: Any, adapter: Adapter, name: str) -> None:
    """Refuse a pipeline in a state in which it would not heed an adapter, or not all of it."""
    if is_fused(pipeline):
        raise AdapterError(
            "an adapter is fused into this pipeline's weights, and another one would do nothing",
            where=name,
            hint="pipeline.unfuse_lora() first",
        )
    if not adapter.modules:
        return
    if is_disabled(pipeline):
        raise AdapterError(
            "LoRA is switched off in this pipeline, and another adapter would do nothing",
            where=name,
            hint="pipeline.enable_lora() first",
        )
    if has_fused_projections(pipeline):
        raise AdapterError(
            "attention reads fused copies of its weights here, which no adapter changes",
            where=name,
            hint="pipeline.unfuse_qkv_projections() first",
        )
    if has_float8(pipeline):
        raise AdapterError(
            "weights are stored in float8 here, to which the adapter's would be rounded",
            where=name,
            hint="load adapters before enable_layerwise_casting",
        )


def _name_problems(pipeline: Any, name: str, taken: Collection[str]) -> Iterator[AdapterError]:
    if not name or "." in name:
        yield AdapterError("a name must not be empty or hold a dot", where=name)
    if is_reserved(name):
        yield AdapterError("a name that torch's modules use themselves", where=name,
                           hint="pass another name=")  # fmt: skip
    known = {known for names in pipeline.get_list_adapters().values() for known in names}
    if name in known or name in taken:
        yield AdapterError(
            "this pipeline has an adapter of that name",
            where=name,
            hint="pass another name=, or unload it first",
        )


def _row_problems(pipeline: Any, adapter: Adapter, family: Family) -> Iterator[AdapterError]:
    for index, part in enumerate(family.text_encoders):
        encoder = getattr(pipeline, part, None)
        if encoder is None or getattr(pipeline, family.tokenizers[index], None) is None:
            yield AdapterError("this pipeline was made without its text encoder", where=part)
            continue
        matrix = encoder.get_input_embeddings().weight
        for concept in adapter.concepts:
            shape = tuple(concept.rows[index].shape) if index < len(concept.rows) else "no rows"
            if shape != (concept.n_vectors, matrix.shape[1]):
                yield AdapterError(
                    f"rows of another size than those of {part}",
                    where=concept.handle,
                    expected=(concept.n_vectors, matrix.shape[1]),
                    got=shape,
                )


def _number_problems(adapter: Adapter) -> Iterator[AdapterError]:
    tensors = {c.handle: c.rows for c in adapter.concepts}
    tensors |= {key: (module.down, module.up) for key, module in adapter.modules.items()}
    for where, found in tensors.items():
        if not all(torch.isfinite(tensor).all() for tensor in found):
            yield AdapterError("holds NaN or an infinity", where=where)


def _handle_problems(pipeline: Any, adapter: Adapter, family: Family) -> Iterator[AdapterError]:
    handles = {concept.handle: concept.n_vectors for concept in adapter.concepts}
    sentences: dict[str, None] = {}
    for part in family.tokenizers:
        tokenizer = getattr(pipeline, part, None)
        if tokenizer is not None:
            sentences.update(dict.fromkeys(clashes(handles, tokenizer)))
    for sentence in sentences:
        yield AdapterError(
            sentence,
            hint='rename it (--rename bear=other, or rename={"<bear>": "<other>"} in Python), '
            "unload the other one, or take a base that it was not merged into",
        )


def _module_problems(pipeline: Any, adapter: Adapter) -> Iterator[AdapterError]:
    missing = [key for key in adapter.modules if base_layer(pipeline, key) is None]
    if missing:
        yield AdapterError(
            f"{len(missing)} of {len(adapter.modules)} modules are not in this pipeline",
            where=", ".join(missing[:MAX_MODULES_NAMED]),
            hint="is the base of the same size as the one it was trained on?",
        )
    unfit = [
        (key, module)
        for key, module in adapter.modules.items()
        if key not in missing and _layer_shape(pipeline, key) != module.shape
    ]
    if unfit:
        key, module = unfit[0]
        yield AdapterError(
            f"{len(unfit)} of {len(adapter.modules)} modules have another size"
            f" in this pipeline's {part_of(key)}",
            where=key,
            expected=f"(n_out, n_in, ...) = {_layer_shape(pipeline, key)}",
            got=module.shape,
        )


def _layer_shape(pipeline: Any, key: str) -> tuple[int, ...] | None:
    layer: Any = base_layer(pipeline, key)
    if hasattr(layer, "kernel_size"):
        return layer.out_channels, layer.in_channels, *layer.kernel_size
    if hasattr(layer, "in_features"):
        return layer.out_features, layer.in_features
    return None
