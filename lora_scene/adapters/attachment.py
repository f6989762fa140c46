"""Adapters into any Stable Diffusion pipeline, and out again without a trace.

Everything that can be wrong is looked at before the pipeline is touched; if something fails
nevertheless, the pipeline is put back.
"""

from __future__ import annotations

import functools
import math
import warnings
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from lora_scene.adapters.adapter import Adapter
from lora_scene.adapters.fit import check_fit
from lora_scene.adapters.folder import read_adapter
from lora_scene.adapters.formats.metadata import fingerprint
from lora_scene.adapters.layers import (
    add_modules,
    base_marks,
    refuse_fused,
    refuse_offloaded,
    remove_modules,
)
from lora_scene.adapters.location import locate, name_in_pipeline
from lora_scene.adapters.vocabulary import (
    Vocabulary,
    add_concepts,
    handle_tokens,
    remember,
    restore,
    text_parts,
)
from lora_scene.backbones.families import FAMILIES
from lora_scene.backbones.loading import LIBRARIES
from lora_scene.errors import AdapterError, LoraSceneWarning, did_you_mean


@dataclass(frozen=True)
class LoadedAdapter:
    """An adapter in a pipeline.

    Attributes:
        name: What to call it in `unload_adapter` and in diffusers' `set_adapters`.
        weight: The factor of its LoRA update when it was loaded.
        nouns: Handle to class noun.
        n_modules: How many LoRA modules took their place.
        fingerprint: sha256 over all its tensors under the handles of its files.
        adapter: The adapter without its modules, which are in the pipeline.
        renamed: Handle in its files to handle here, of those that `rename` changed.
        base_marks: Module to a mark of the base's weight below it, as it was before.
    """

    name: str
    weight: float
    nouns: dict[str, str]
    n_modules: int
    fingerprint: str
    adapter: Adapter = field(repr=False)
    renamed: Mapping[str, str] = field(default_factory=dict)
    base_marks: Mapping[str, tuple[str, int]] = field(default_factory=dict, repr=False)

    @property
    def handles(self) -> tuple[str, ...]:
        """Return the handles that prompts may now use."""
        return tuple(self.nouns)


@dataclass
class _State:
    """What one UNet has loaded, and its text encoders' vocabularies before."""

    vocabularies: tuple[Vocabulary, ...]
    loaded: dict[str, LoadedAdapter] = field(default_factory=dict)


_STATES: weakref.WeakKeyDictionary[torch.nn.Module, _State] = weakref.WeakKeyDictionary()
_F = TypeVar("_F", bound=Callable[..., Any])


def _one_at_a_time(function: _F) -> _F:
    @functools.wraps(function)
    def locked(*args: Any, **kwargs: Any) -> Any:
        with LIBRARIES:  # a base that loads meanwhile would put new rows onto the meta device
            return function(*args, **kwargs)

    return locked  # type: ignore[return-value]


@_one_at_a_time
def load_adapter(
    pipeline: Any,
    source: Adapter | Path | str,
    *,
    name: str | None = None,
    weight: float = 1.0,
    rename: Mapping[str, str] | None = None,
) -> LoadedAdapter:
    """Load an adapter's handles and LoRA modules; adapters loaded before stay active beside it.

    Threads may load adapters into pipelines of their own; one waits for the other.

    Args:
        pipeline: Any SD 1.x, 2.x or SDXL pipeline of diffusers: text-to-image, image-to-image,
            inpainting, ControlNet. Pipelines that share its components share the adapter.
        source: An adapter's folder, a hub id such as `user/name`, or an adapter in memory.
        name: Its name in the pipeline; by default see `name_in_pipeline`.
        weight: Factor of the LoRA update; the handles' rows are not scaled. Change it later with
            `pipeline.set_adapters`.
        rename: Handle in its files to handle in this pipeline, such as
            `{"<ground>": "<lawn>"}` where two adapters share one.

    Raises:
        AdapterError: The adapter is missing or damaged, of another family, does not fit the
            pipeline's modules, or its name or a handle is taken. The pipeline is as it was.
    """
    original = source if isinstance(source, Adapter) else read_adapter(locate(source))
    adapter = original.renamed(rename or {})
    name = name or name_in_pipeline(source)
    if not math.isfinite(weight):
        raise AdapterError("a weight must be a finite number", where=name, got=weight)
    check_fit(pipeline, adapter, name=name, taken=loaded_adapters(pipeline))
    _warn_of_other_prediction(pipeline, adapter, name)
    pairs = text_parts(pipeline, FAMILIES[adapter.family])
    before = tuple(remember(*pair) for pair in pairs)
    state = _STATES.get(_unet(pipeline)) or _State(before)
    loaded = LoadedAdapter(
        name,
        weight,
        {concept.handle: concept.noun for concept in adapter.concepts},
        len(adapter.modules),
        fingerprint(original),
        replace(adapter, modules={}),
        {old: new for old, new in (rename or {}).items() if old != new},
        base_marks(pipeline, adapter.modules),
    )
    try:
        add_concepts(pipeline, adapter)
        add_modules(pipeline, adapter.modules, name=name, weight=weight)
    except BaseException:
        remove_modules(pipeline, name)
        for vocabulary, pair in zip(before, pairs, strict=True):
            restore(vocabulary, *pair)
        raise
    state.loaded[name] = loaded
    _STATES[_unet(pipeline)] = state
    return loaded


@_one_at_a_time
def unload_adapter(pipeline: Any, name: str) -> None:
    """Take an adapter out; after the last one, the base is bit for bit what it was.

    Args:
        pipeline: The pipeline, or one that shares its components.
        name: The name that `load_adapter` gave back.

    Raises:
        AdapterError: No adapter of that name was loaded with `load_adapter`; other tokens were
            added after it, whose ids would shift; it is fused into the base's weights; or the
            weights are offloaded. The pipeline is as it was.
    """
    state = _STATES.get(_unet(pipeline))
    if state is None or name not in state.loaded:
        names = list(loaded_adapters(pipeline))
        raise AdapterError(
            "no such adapter in this pipeline",
            where=name,
            expected=", ".join(names) or "none is loaded",
            hint=did_you_mean(name, names),
        )
    _refuse_foreign_tokens(pipeline, state)
    refuse_offloaded(pipeline)
    refuse_fused(pipeline, name, state.loaded[name].base_marks)
    remove_modules(pipeline, name)
    del state.loaded[name]
    _rebuild_handles(pipeline, state)
    if not state.loaded:
        del _STATES[_unet(pipeline)]


def loaded_adapters(pipeline: Any) -> dict[str, LoadedAdapter]:
    """Return what `load_adapter` put into a pipeline, by name, in the order of loading."""
    unet = _unet(pipeline)
    state = _STATES.get(unet) if unet is not None else None
    return dict(state.loaded) if state is not None else {}


def _unet(pipeline: Any) -> Any:
    """Return the UNet itself, also where it was compiled after an adapter was loaded."""
    unet = getattr(pipeline, "unet", None)
    return getattr(unet, "_orig_mod", unet)


def _warn_of_other_prediction(pipeline: Any, adapter: Adapter, name: str) -> None:
    here = pipeline.scheduler.config.get("prediction_type", "epsilon")
    if here != adapter.info.prediction_type:
        warnings.warn(
            f"{name} was trained on a base that predicts {adapter.info.prediction_type}, and this"
            f" one predicts {here}: its things may come out washed out or not at all",
            LoraSceneWarning,
            stacklevel=4,
        )


def _text_parts(pipeline: Any, state: _State) -> list[tuple[Any, Any]]:
    return text_parts(pipeline, FAMILIES["sdxl" if len(state.vocabularies) > 1 else "sd1"])


def _rebuild_handles(pipeline: Any, state: _State) -> None:
    """Restore the vocabularies, then add the handles of what is still loaded.

    What `pipeline.unload_textual_inversion` took out meanwhile does not come back.
    """
    vocabularies = []
    for vocabulary, pair in zip(state.vocabularies, _text_parts(pipeline, state), strict=True):
        gone = vocabulary.tokens - set(pair[0].get_vocab())
        restore(vocabulary, *pair)
        if gone:
            pipeline.unload_textual_inversion(sorted(gone), *pair)
        vocabularies.append(remember(*pair) if gone else vocabulary)
    state.vocabularies = tuple(vocabularies)
    for loaded in state.loaded.values():
        add_concepts(pipeline, loaded.adapter)


def _refuse_foreign_tokens(pipeline: Any, state: _State) -> None:
    ours = {
        token
        for loaded in state.loaded.values()
        for concept in loaded.adapter.concepts
        for token in handle_tokens(concept.handle, concept.n_vectors)
    }
    parts = zip(state.vocabularies, _text_parts(pipeline, state), strict=True)
    foreign = {
        token
        for vocabulary, (tokenizer, _) in parts
        for token in set(tokenizer.get_vocab()) - vocabulary.tokens - ours
    }
    if foreign:
        raise AdapterError(
            "other tokens were added to this pipeline after the adapter",
            got=", ".join(sorted(foreign)[:5]),
            hint="take them out first with pipeline.unload_textual_inversion",
        )
