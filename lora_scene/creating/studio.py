"""A base with adapters in it, ready to draw: what every verb of this room works with."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_scene.adapters.adapter import Adapter, TrainingInfo
from lora_scene.adapters.adapter_folder import read_adapter
from lora_scene.adapters.attachment import LoadedAdapter, load_adapter, locate, plain_name
from lora_scene.adapters.layers import lora_layers
from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.loading import Dtype, load_pipeline, resolve_device
from lora_scene.backbones.sources import find_base
from lora_scene.backbones.storage import Quantization
from lora_scene.errors import CreationError, did_you_mean
from lora_scene.learning.runs import FULL_MODEL
from lora_scene.scenes.handle_names import HANDLE_FORM

PARTS = ("unet", "text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class AdapterChoice:
    """An adapter to draw with.

    Attributes:
        source: Its folder or hub id, or the adapter itself.
        weight: Factor of its LoRA update.
    """

    source: Adapter | Path | str
    weight: float = 1.0

    @classmethod
    def parse(cls, text: str) -> AdapterChoice:
        """Read `DIR` or `DIR:weight`; a folder whose name ends so wins over the weight."""
        head, colon, tail = text.rpartition(":")
        if colon and head and not Path(text).exists() and re.fullmatch(r"-?\d*\.?\d+", tail):
            return cls(head, float(tail))
        return cls(text)


@dataclass(frozen=True, eq=False)
class Studio:
    """A base with adapters in it.

    Attributes:
        backbone: The base.
        base_hash: `Backbone.content_hash` before adapters were loaded; empty for low-bit weights.
        adapters: What was loaded, in order.
        notices: What a person should know of how they fit together.
        quantization: Storage of the UNet's weights.
    """

    backbone: Backbone
    base_hash: str
    adapters: tuple[LoadedAdapter, ...]
    notices: tuple[str, ...] = ()
    quantization: Quantization = "none"

    @property
    def pipeline(self) -> Any:
        """Return the stock pipeline."""
        return self.backbone.pipeline

    @property
    def nouns(self) -> Mapping[str, str]:
        """Return every handle with its class noun."""
        return {h: noun for loaded in self.adapters for h, noun in loaded.nouns.items()}

    @property
    def background(self) -> str | None:
        """Return the handle of the background, if one was learnt."""
        concepts = [c for loaded in self.adapters for c in loaded.adapter.concepts]
        return next((c.handle for c in concepts if c.is_background), None)

    @property
    def things(self) -> tuple[str, ...]:
        """Return the handles that do not stand for a background."""
        concepts = [c for loaded in self.adapters for c in loaded.adapter.concepts]
        return tuple(c.handle for c in concepts if not c.is_background)

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Return each adapter's name with the sha256 over its tensors."""
        return {loaded.name: loaded.fingerprint for loaded in self.adapters}

    def handles_in(self, prompt: str) -> tuple[str, ...]:
        """Return the handles that a prompt names, in its order, each once.

        Raises:
            CreationError: The prompt names a handle that no adapter has.
        """
        known = {handle.casefold(): handle for handle in self.nouns}
        named: dict[str, None] = {}
        for match in HANDLE_FORM.finditer(prompt):
            handle = known.get(match.group().casefold())
            if handle is None:
                raise unknown_handle(match.group(), self.nouns, where=prompt)
            named[handle] = None
        return tuple(named)

    def find_handle(self, name: str) -> str:
        """Return the handle for `<bear>` or just `bear`.

        Raises:
            CreationError: No adapter has it.
        """
        plain = name.strip("<>").casefold()
        for handle in self.nouns:
            if handle.strip("<>").casefold() == plain:
                return handle
        raise unknown_handle(name, self.nouns)

    def without_handles(self, prompt: str) -> str:
        """Return a prompt with every handle replaced by its class noun."""
        for handle in self.handles_in(prompt):
            prompt = re.sub(re.escape(handle), self.nouns[handle], prompt, flags=re.IGNORECASE)
        return prompt

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
    adapters: Sequence[AdapterChoice | Path | str],
    *,
    base: str | Path | None = None,
    device: str = "auto",
    dtype: Dtype = "auto",
    quantization: Quantization = "none",
    config: str | Path | None = None,
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

    Raises:
        AdapterError: An adapter is missing, damaged or does not fit.
        BackboneError: The base cannot be loaded.
        CreationError: Neither a base nor an adapter is given.
    """
    choices = [a if isinstance(a, AdapterChoice) else AdapterChoice(a) for a in adapters]
    read = [
        c.source if isinstance(c.source, Adapter) else read_adapter(locate(c.source))
        for c in choices
    ]
    name = str(base) if base is not None else _default_base(choices, read)
    chosen = resolve_device(device)
    pipeline = load_pipeline(
        name, device=chosen, dtype=dtype, quantization=quantization, config=config
    )
    is_full = base is None and Path(name).name == FULL_MODEL
    return assemble_studio(
        pipeline, choices, name=name, quantization=quantization, is_expected=not is_full
    )


def assemble_studio(
    pipeline: Any,
    adapters: Sequence[AdapterChoice] = (),
    *,
    name: str = "pipeline",
    quantization: Quantization = "none",
    is_expected: bool = True,
) -> Studio:
    """Load adapters into a pipeline that is already there.

    Args:
        pipeline: A stock pipeline.
        adapters: What to draw with.
        name: What to call the base.
        quantization: How the UNet's weights are stored.
        is_expected: Whether the base should be the one that the adapters were trained on, so that
            another one is worth a notice.
    """
    backbone = Backbone(pipeline, name=name)
    base_hash = backbone.content_hash() if quantization == "none" else ""
    loaded = []
    taken: set[str] = set()
    for choice in adapters:
        one = load_adapter(
            pipeline, choice.source, name=_free_name(choice.source, taken), weight=choice.weight
        )
        taken.add(one.name)
        loaded.append(one)
    notices = tuple(
        f"{one.name} was trained on another base ({one.adapter.info.base_model}, "
        f"sha256 {one.adapter.info.base_hash[:12]}) than this one ({name}, {base_hash[:12]}): "
        "its concepts may look different"
        for one in loaded
        if is_expected and _is_other(one.adapter.info, name, base_hash)
    )
    return Studio(backbone, base_hash, tuple(loaded), notices, quantization)


def unknown_handle(name: str, known: Mapping[str, str], where: str | None = None) -> CreationError:
    """Build the error for a handle that no adapter has, with those that there are."""
    listed = ", ".join(f"{handle} ({noun})" for handle, noun in known.items())
    return CreationError(
        f"no adapter knows the handle {name}",
        where=where,
        expected=listed or "no handles: no adapter is loaded",
        hint=did_you_mean(name, known),
    )


def _default_base(choices: Sequence[AdapterChoice], read: Sequence[Adapter]) -> str:
    if not choices:
        raise CreationError("neither an adapter nor a base is given", hint="pass --base")
    source = choices[0].source
    if not isinstance(source, Adapter):
        full = locate(source) / FULL_MODEL
        if (full / "model_index.json").is_file():
            return str(full)
    info = read[0].info
    near = None if isinstance(source, Adapter) else locate(source)
    return find_base(info.base_model, base_hash=info.base_hash, near=near)


def _is_other(info: TrainingInfo, name: str, base_hash: str) -> bool:
    """Tell whether neither name nor hash match; hashes differ between dtypes, names by place."""
    return info.base_model != name and "" != info.base_hash != base_hash != ""


def _free_name(source: Adapter | Path | str, taken: set[str]) -> str | None:
    """Return a name for a second adapter from a folder of the same name, else None."""
    stem = plain_name(source)
    if stem not in taken:
        return None
    return next(f"{stem}_{n}" for n in range(2, len(taken) + 3) if f"{stem}_{n}" not in taken)
