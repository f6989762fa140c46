"""What a picture was asked for, and the record from which it can be made again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import lora_scene
from lora_scene.creating.control import Control
from lora_scene.creating.sampling import Sampling, check_size
from lora_scene.creating.studio import Studio
from lora_scene.errors import CreationError
from lora_scene.learning.outcome import installed_versions

VERB = "generate"
TELLING_VERSIONS = ("torch", "diffusers", "transformers", "peft")


@dataclass(frozen=True)
class Request:
    """One picture to be drawn.

    Attributes:
        prompt: With handles.
        seed: Of its noise.
        negative: The negative prompt; empty for the base's default.
        size: (width, height) in pixels; None takes the base's own.
        sampling: Solver, steps, guidance.
        weight: Factor of every adapter's own weight; the handles' rows are not scaled.
        is_base: Whether the bare base draws it, each handle replaced by its class noun.
        control: Places, strengths and emphases of single concepts.
    """

    prompt: str
    seed: int = 0
    negative: str = ""
    size: tuple[int, int] | None = None
    sampling: Sampling = field(default_factory=Sampling)
    weight: float = 1.0
    is_base: bool = False
    control: Control = field(default_factory=Control)


def prompt_of(studio: Studio, request: Request) -> str:
    """Return the prompt that the text encoder reads."""
    return studio.without_handles(request.prompt) if request.is_base else request.prompt


def record_of(studio: Studio, request: Request) -> dict[str, Any]:
    """Return everything that makes a picture again."""
    width, height = check_size(studio, request.size)
    sampling = request.sampling
    return {
        **provenance(studio),
        "verb": VERB,
        "prompt": prompt_of(studio, request),
        "negative": request.negative,
        "seed": request.seed,
        "width": width,
        "height": height,
        "steps": sampling.n_steps,
        "guidance": sampling.guidance,
        "scheduler": sampling.scheduler,
        "weight": request.weight,
        **({} if request.is_base else request.control.record()),
    }


def provenance(studio: Studio) -> dict[str, Any]:
    """Return what every picture of a studio shares: base, adapters, versions; no folder's path."""
    hashes = studio.fingerprints
    versions = installed_versions()
    name = studio.backbone.name
    return {
        "software": f"lora_scene {lora_scene.__version__}",
        "base": {
            "name": Path(name).name if Path(name).exists() else name,
            "hash": studio.base_hash,
        },
        "quantization": studio.quantization,
        "adapters": [
            {"name": one.name, "weight": one.weight, "fingerprint": hashes[one.name]}
            for one in studio.adapters
        ],
        "device": studio.backbone.device.type,
        "dtype": str(studio.backbone.dtype).removeprefix("torch."),
        "versions": {name: versions[name] for name in TELLING_VERSIONS},
    }


def picture_hash(pixels: npt.NDArray[np.generic]) -> str:
    """Return the sha256 over a picture's or a mask's values, hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def request_again(studio: Studio, record: dict[str, Any]) -> tuple[Request, tuple[str, ...]]:
    """Return the request that a record stands for, and why it may come out a little different.

    Raises:
        CreationError: The record is another verb's, or the studio holds another base or other
            adapters than the record names.
    """
    if record["verb"] != VERB:
        raise CreationError("a picture of another verb", expected=VERB, got=record["verb"])
    here = provenance(studio)
    changed = [
        key for key in ("device", "dtype", "quantization", "versions") if record[key] != here[key]
    ]
    compared = {"adapters": "choice of adapters or weights"}
    # float16 rounds 32-bit weights, and low-bit ones have no hash.
    is_rounded = "dtype" in changed and "float16" in (record["dtype"], here["dtype"])
    can_compare = not is_rounded and "quantization" not in changed
    if can_compare:
        compared = {"base": "base", **compared}
    problems = [
        CreationError(f"another {what}", expected=_told(record[key]), got=_told(here[key]))
        for key, what in compared.items()
        if _identity(record[key]) != _identity(here[key])
    ]
    if problems:
        raise CreationError.collect(problems, "this picture cannot be made again from these")
    notices = tuple(
        f"made with {key} {record[key]}, now {here[key]}: small differences are to be expected"
        for key in changed
    )
    if not can_compare and record["base"]["name"] != here["base"]["name"]:
        notices += (
            f"made on {record['base']['name']}, now {here['base']['name']}: their weights cannot be"
            " compared in these dtypes",
        )
    request = Request(
        prompt=record["prompt"],
        seed=record["seed"],
        negative=record["negative"],
        size=(record["width"], record["height"]),
        sampling=Sampling(record["steps"], record["guidance"], record["scheduler"]),
        weight=record["weight"],
        control=Control.from_record(record),
    )
    return request, notices


def _identity(value: Any) -> Any:
    """Return what must be equal: hashes and weights, not names."""
    if isinstance(value, Mapping):
        return value["hash"]
    return [(adapter["fingerprint"], adapter["weight"]) for adapter in value]


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{value['name']} (sha256 {value['hash'][:12]})"
    told = [f"{a['name']}:{a['weight']:g} (sha256 {a['fingerprint'][:12]})" for a in value]
    return ", ".join(told) or "none"
