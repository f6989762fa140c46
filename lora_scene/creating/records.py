"""What a picture says of itself, from which it can be made again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

import lora_scene
from lora_scene.backbones.sources import is_same_base, public_name
from lora_scene.creating.rendering import negative_of, prompt_of
from lora_scene.creating.requests import Box, Control, Place, Request
from lora_scene.creating.studio import Studio
from lora_scene.errors import CreationError, LoraSceneError
from lora_scene.forms import build
from lora_scene.learning.outcome import installed_versions

VERB = "generate"
TELLING_VERSIONS = ("torch", "diffusers", "transformers", "peft")


@dataclass(frozen=True)
class BaseTold:
    """The base of a record; its hash is empty for low-bit weights."""

    name: str
    hash: str

    def __str__(self) -> str:
        return f"{self.name} (sha256 {self.hash[:12]})"


@dataclass(frozen=True)
class AdapterTold:
    """An adapter of a record; `renamed` has old handles and new ones."""

    name: str
    weight: float
    fingerprint: str
    renamed: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name}:{self.weight:g} (sha256 {self.fingerprint[:12]})"


@dataclass(frozen=True)
class PictureTold:
    """The record of a picture of `generate`, as it is read back."""

    prompt: str
    negative: str
    seed: int
    width: int
    height: int
    steps: int
    guidance: float
    scheduler: str
    weight: float
    base: BaseTold
    quantization: str
    adapters: tuple[AdapterTold, ...]
    device: str
    dtype: str
    versions: Mapping[str, str]
    places: Mapping[str, Box] = field(default_factory=dict)
    strengths: Mapping[str, float] = field(default_factory=dict)
    emphases: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    is_base: bool = False

    @property
    def request(self) -> Request:
        """Return what was asked for.

        Raises:
            CreationError: A number is out of range.
        """
        control = Control(
            tuple(Place(handle, box) for handle, box in self.places.items()),
            tuple(self.strengths.items()),
            tuple(self.emphases.items()),
        )
        weight = tuple(self.weights.items()) or self.weight
        asked = Request("", control=control, is_base=self.is_base)
        return asked.with_settings({**vars(self), "weight": weight})

    @property
    def renames(self) -> list[str]:
        """Return the handles that were renamed, as `read_cast` takes them."""
        numbered = enumerate(self.adapters, 1)
        return [f"{n}:{old}={new}" for n, one in numbered for old, new in one.renamed.items()]

    def refuse_others(self, n_adapters: int) -> None:
        """Refuse more or fewer adapters than it was made with, before they are read.

        Raises:
            CreationError: There are.
        """
        if n_adapters != len(self.adapters):
            raise CreationError(
                "more or fewer adapters than this picture was made with",
                expected=", ".join(map(str, self.adapters)) or "none",
                got=n_adapters,
            )


def record_of(studio: Studio, request: Request) -> dict[str, Any]:
    """Return everything that makes a picture again; of a request that was `checked`."""
    asked = replace(request, control=Control()) if request.is_base else request
    return {
        **provenance(studio),
        "verb": VERB,
        **asked.record(),
        "prompt": prompt_of(studio, request),
        "negative": negative_of(studio, request),
    }


def provenance(studio: Studio) -> dict[str, Any]:
    """Return what every picture of a studio shares: base, adapters, versions; no folder's path."""
    versions = installed_versions()
    return {
        "software": f"lora_scene {lora_scene.__version__}",
        "base": {"name": public_name(studio.backbone.name), "hash": studio.base_hash},
        "quantization": studio.quantization,
        "adapters": [
            {
                "name": one.name,
                "weight": one.choice.weight,
                "fingerprint": one.fingerprint,
                **({"renamed": dict(one.renamed)} if one.renamed else {}),
            }
            for one in studio.members
        ],
        "device": studio.backbone.device.type,
        "dtype": str(studio.backbone.dtype).removeprefix("torch."),
        "versions": {name: versions[name] for name in TELLING_VERSIONS},
    }


def picture_hash(pixels: npt.NDArray[np.generic]) -> str:
    """Return the sha256 over a picture's or a mask's values, hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def parse_record(record: Mapping[str, Any]) -> PictureTold:
    """Read a record of `generate`, whoever wrote it.

    Raises:
        CreationError: It is another verb's, or no record.
    """
    if record.get("verb") != VERB:
        raise CreationError("a picture of another verb", expected=VERB, got=record.get("verb"))
    problems: list[LoraSceneError] = []
    told = build(PictureTold, record, problems, error=CreationError, ignores_unknown=True)
    if problems or told is None:
        raise CreationError.collect(problems, "the picture's record cannot be used")
    return told


def differences(studio: Studio, told: PictureTold) -> tuple[str, ...]:
    """Return why a picture may come out a little different when it is drawn here again.

    Raises:
        CreationError: The studio holds another base or other adapters than the record names.
    """
    here = build(PictureTold, {**vars(told), **provenance(studio)}, [], error=CreationError)
    assert here is not None
    changed = [
        key
        for key in ("device", "dtype", "quantization", "versions")
        if getattr(told, key) != getattr(here, key)
    ]
    # float16 rounds 32-bit weights, and low-bit ones have no hash.
    is_rounded = "dtype" in changed and "float16" in (told.dtype, here.dtype)
    can_compare = not is_rounded and "quantization" not in changed
    problems = []
    if can_compare and not is_same_base(told.base.hash, here.base.hash):
        problems.append(CreationError("another base", expected=told.base, got=here.base))
    if _identity(told) != _identity(here):
        expected, got = (", ".join(map(str, one.adapters)) or "none" for one in (told, here))
        problems.append(
            CreationError("another choice of adapters or weights", expected=expected, got=got)
        )
    if problems:
        raise CreationError.collect(problems, "this picture cannot be made again from these")
    notices = tuple(
        f"made with {key} {getattr(told, key)}, now {getattr(here, key)}: small differences are "
        "to be expected"
        for key in changed
    )
    if not can_compare and told.base.name != here.base.name:
        notices += (
            f"made on {told.base.name}, now {here.base.name}: their weights cannot be"
            " compared in these dtypes",
        )
    return notices


def _identity(told: PictureTold) -> list[Any]:
    """Return what must be equal of adapters: hashes, weights and handles, not names."""
    return [(one.fingerprint, one.weight, dict(one.renamed)) for one in told.adapters]
