"""A base with adapters in it, ready to draw: what every verb of this room works with.

    folders -> read_cast -> Cast -> Cast.studio(base) -> Studio

A cast already knows handles and nouns, so requests can be checked before the base is loaded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lora_scene.adapters.adapter import Adapter, LearnedConcept, TrainingInfo
from lora_scene.adapters.attachment import LoadedAdapter, load_adapter
from lora_scene.adapters.folder import read_adapter
from lora_scene.adapters.formats.factors import PARTS
from lora_scene.adapters.formats.metadata import fingerprint
from lora_scene.adapters.layers import lora_layers
from lora_scene.adapters.location import locate, name_in_pipeline
from lora_scene.adapters.renaming import parse_renames
from lora_scene.adapters.whole_model import FULL_MODEL, own_model
from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.loading import Dtype, load_pipeline, resolve_device
from lora_scene.backbones.sources import find_base, other_base
from lora_scene.backbones.storage import Quantization
from lora_scene.creating.choices import AdapterChoice, Adapters
from lora_scene.creating.names import Names
from lora_scene.errors import CreationError


@dataclass(frozen=True, eq=False)
class Member:
    """An adapter of a cast.

    Attributes:
        name: What to call it in the pipeline.
        choice: What it was read from, and its weight.
        adapter: What was read, its handles renamed.
        fingerprint: sha256 over its tensors, as they were read.
        renamed: Old handle to new one.
    """

    name: str
    choice: AdapterChoice
    adapter: Adapter
    fingerprint: str
    renamed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Cast(Names):
    """Adapters that are read, but in no base yet."""

    members: tuple[Member, ...] = ()

    @property
    def concepts(self) -> tuple[LearnedConcept, ...]:
        """Return the concepts of all adapters, in order."""
        return tuple(c for member in self.members for c in member.adapter.concepts)

    @property
    def infos(self) -> tuple[TrainingInfo, ...]:
        """Return where each adapter comes from, in order."""
        return tuple(member.adapter.info for member in self.members)

    def studio(
        self,
        *,
        base: str | Path | None = None,
        device: str = "auto",
        dtype: Dtype = "auto",
        quantization: Quantization = "none",
        config: str | Path | None = None,
    ) -> Studio:
        """Load a base, and the adapters into it; see `open_studio`."""
        name = str(base) if base is not None else _default_base(self.members)
        chosen = resolve_device(device)
        pipeline = load_pipeline(
            name, device=chosen, dtype=dtype, quantization=quantization, config=config
        )
        is_full = base is None and Path(name).name == FULL_MODEL
        return self.assembled(
            pipeline, name=name, quantization=quantization, is_expected=not is_full
        )

    def assembled(
        self,
        pipeline: Any,
        *,
        name: str,
        quantization: Quantization = "none",
        is_expected: bool = True,
    ) -> Studio:
        """Load the adapters into a stock pipeline that is already there.

        Args:
            pipeline: Where they go.
            name: What to call the base.
            quantization: Storage of the UNet's weights.
            is_expected: Whether adapters of another base are worth a notice.

        Raises:
            AdapterError: An adapter does not fit.
            BackboneError: The pipeline is of no known kind.
        """
        backbone = Backbone(pipeline, name=name)
        base_hash = backbone.content_hash() if quantization == "none" else ""
        loaded = tuple(
            load_adapter(pipeline, one.adapter, name=one.name, weight=one.choice.weight)
            for one in self.members
        )
        notices = tuple(
            f"{one.name} {difference}: its concepts may look different"
            for one in loaded
            if is_expected
            and (
                difference := other_base(
                    (one.adapter.info.base_model, one.adapter.info.base_hash),
                    (name, base_hash),
                    is_rounded=backbone.dtype == torch.float16,
                )
            )
        )
        return Studio(backbone, base_hash, loaded, notices, quantization, self.members)


@dataclass(frozen=True, eq=False)
class Studio(Names):
    """A base with adapters in it.

    Attributes:
        backbone: The base.
        base_hash: `Backbone.content_hash` before adapters were loaded; empty for low-bit weights.
        adapters: What was loaded, in order.
        notices: What a person should know of how they fit together.
        quantization: Storage of the UNet's weights.
        members: What the adapters were read from, in their order.
    """

    backbone: Backbone
    base_hash: str
    adapters: tuple[LoadedAdapter, ...]
    notices: tuple[str, ...] = ()
    quantization: Quantization = "none"
    members: tuple[Member, ...] = ()

    @property
    def pipeline(self) -> Any:
        """Return the stock pipeline."""
        return self.backbone.pipeline

    @property
    def concepts(self) -> tuple[LearnedConcept, ...]:
        """Return the concepts of all adapters, in order."""
        return tuple(c for loaded in self.adapters for c in loaded.adapter.concepts)

    @property
    def infos(self) -> tuple[TrainingInfo, ...]:
        """Return where each adapter comes from, in order."""
        return tuple(loaded.adapter.info for loaded in self.adapters)

    @contextlib.contextmanager
    def weighted(self, factor: float | Mapping[str, float] = 1.0) -> Iterator[None]:
        """Scale the LoRA updates for a while; handles' rows stay as they are.

        Args:
            factor: Of every adapter's own weight, or one an adapter by name.
        """
        try:
            self._weigh(factor)
            yield
        finally:
            self._weigh(1.0)

    def _weigh(self, factor: float | Mapping[str, float]) -> None:
        layers = [layer for part in PARTS for layer in lora_layers(self.pipeline, part)]
        for loaded in self.adapters:
            own = factor if isinstance(factor, int | float) else factor.get(loaded.name, 1.0)
            for layer in layers:
                layer.set_scale(loaded.name, loaded.weight * own)


def open_studio(
    adapters: Adapters,
    *,
    base: str | Path | None = None,
    device: str = "auto",
    dtype: Dtype = "auto",
    quantization: Quantization = "none",
    config: str | Path | None = None,
    rename: Sequence[str] = (),
) -> Studio:
    """Load a base and adapters into it.

    Args:
        adapters: What to draw with; none draws with the bare base.
        base: Hub id, folder, single file or `mini`; None takes what the first adapter was
            trained on.
        device: `auto`, `cuda`, `cuda:1`, `mps` or `cpu`.
        dtype: Of the base's weights.
        quantization: Storage of the UNet's weights, see `load_pipeline`.
        config: For a single-file base, see `load_pipeline`.
        rename: See `read_cast`.

    Raises:
        AdapterError: An adapter is missing, damaged or does not fit.
        BackboneError: The base cannot be loaded.
        CreationError: Neither a base nor an adapter is given; or see `read_cast`.
    """
    return read_cast(adapters, rename=rename).studio(
        base=base, device=device, dtype=dtype, quantization=quantization, config=config
    )


def read_cast(adapters: Adapters, *, rename: Sequence[str] = ()) -> Cast:
    """Read adapters without a base.

    Args:
        adapters: What to draw with.
        rename: Such as `ground=lawn`; see `parse_renames`.

    Raises:
        AdapterError: An adapter is missing or damaged.
        CreationError: Two adapters have one handle, or a handle cannot be renamed so.
    """
    choices = [one if isinstance(one, AdapterChoice) else AdapterChoice(one) for one in adapters]
    sources = [choice.source for choice in choices]
    read = [one if isinstance(one, Adapter) else read_adapter(locate(one)) for one in sources]
    renames = parse_renames(rename, read)
    members: list[Member] = []
    for choice, adapter, table in zip(choices, read, renames, strict=True):
        name = _free_name(choice.source, {member.name for member in members})
        members.append(Member(name, choice, adapter.renamed(table), fingerprint(adapter), table))
    cast = Cast(tuple(members))
    known = [concept.handle for concept in cast.concepts]
    folded = [handle.casefold() for handle in known]
    doubled = list(dict.fromkeys(h for h in known if folded.count(h.casefold()) > 1))
    if doubled:
        raise CreationError(
            "two adapters have one handle",
            where=", ".join(doubled),
            hint=f"--rename {doubled[0].strip('<>')}=another renames it in the last of them",
        )
    return cast


def _default_base(members: Sequence[Member]) -> str:
    if not members:
        raise CreationError("neither an adapter nor a base is given", hint="pass --base")
    source = members[0].choice.source
    near = None if isinstance(source, Adapter) else locate(source)
    full = own_model({member.name: member.adapter for member in members}, near)
    if full is not None:
        return str(full)
    info = members[0].adapter.info
    return find_base(info.base_model, base_hash=info.base_hash, near=near)


def _free_name(source: Adapter | Path | str, taken: set[str]) -> str:
    """Return a name for an adapter, numbered where it is taken: two folders may be called alike."""
    stem = name_in_pipeline(source)
    names = (stem, *(f"{stem}_{n}" for n in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)
