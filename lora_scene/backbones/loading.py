"""Bases from anywhere: a hub id, a diffusers folder, a single file, or the embedded `mini`."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open

from lora_scene.backbones.families import Family, identify
from lora_scene.backbones.sources import resolve_model
from lora_scene.backbones.storage import Quantization, store
from lora_scene.errors import BackboneError

Dtype = Literal["auto", "fp32", "fp16", "bf16"]

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def load_pipeline(
    model: str | Path,
    *,
    device: str = "cpu",
    dtype: Dtype = "fp32",
    quantization: Quantization = "none",
    config: str | Path | None = None,
) -> Any:
    """Load a base as its stock diffusers pipeline, without a safety checker.

    Args:
        model: Hub id, diffusers folder, single `.safetensors` checkpoint, or `mini`.
        device: `cuda`, `cuda:1`, `mps` or `cpu`.
        dtype: Of all weights; `auto` as `resolve_dtype`.
        quantization: Storage of the UNet's weights: `nf4` and `int8` of its linear layers, by
            bitsandbytes; `fp8` of its convolutions too.
        config: For a single file: hub id or folder of a base of the same family, for what the
            file lacks (tokenizer and configurations); None lets diffusers guess a hub id.

    Returns:
        A `StableDiffusionPipeline` or `StableDiffusionXLPipeline` on `device`.

    Raises:
        BackboneError: The base cannot be had, or is not of a known family.
    """
    kind = resolve_dtype(dtype, device)
    source = resolve_model(model)
    is_file = source.endswith((".safetensors", ".ckpt", ".pt", ".bin"))
    if is_file and not source.endswith(".safetensors"):
        raise BackboneError(
            "only safetensors checkpoints are opened, since pickled ones can run code",
            where=source,
            hint="convert it, or use the base's hub id or folder",
        )
    with _plain_errors(source), quiet_libraries():
        pipeline = _load_file(source, kind, config) if is_file else _load_folder(source, kind)
    _check(pipeline, source)
    store(pipeline.unet, quantization, device=device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def resolve_dtype(dtype: Dtype, device: str) -> torch.dtype:
    """Return the torch dtype; `auto` is bf16 or fp16 on CUDA, fp32 elsewhere.

    Cards older than Ampere only emulate bf16: they take fp16.
    """
    if dtype != "auto":
        return DTYPES[dtype]
    if device.startswith("cuda"):
        with torch.cuda.device(device):
            has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bf16 else torch.float16
    return torch.float32


def resolve_device(device: str) -> str:
    """Return a device that exists; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        BackboneError: The device is not there.
    """
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next((name for name, is_there in found.items() if is_there), "cpu")
    name, _, index = device.partition(":")
    n_cards = torch.cuda.device_count() if name == "cuda" else 1
    if (name == "cpu" or found.get(name)) and _is_index_below(index, n_cards):
        return device
    there = ["cpu", *(name for name, is_there in found.items() if is_there)]
    raise BackboneError("no such device here", where=device, expected=" or ".join(there))


def _is_index_below(index: str, n: int) -> bool:
    return not index or (index.isdecimal() and int(index) < n)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the loading libraries' progress bars and chatter, and restore them."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    levels = [library.get_verbosity() for library in libraries]
    had_bars = [_has_bars(library) for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for library, level, had in zip(libraries, levels, had_bars, strict=True):
            library.set_verbosity(level)
            if had:
                library.enable_progress_bar()


def _has_bars(library: Any) -> bool:
    """Tell whether a library shows bars; diffusers has no public way to ask."""
    return bool(getattr(library, "_tqdm_active", True))


def _load_folder(source: str, kind: torch.dtype) -> Any:
    from diffusers import DiffusionPipeline

    index = DiffusionPipeline.load_config(source)
    if "unet" not in index:
        raise _not_a_base(source, index.get("_class_name"))
    absent: dict[str, Any] = {
        name: None
        for name in ("safety_checker", "feature_extractor", "image_encoder")
        if name in index
    }
    if "requires_safety_checker" in index:
        absent["requires_safety_checker"] = False
    return DiffusionPipeline.from_pretrained(
        source, torch_dtype=kind, use_safetensors=True, **absent
    )


def _load_file(source: str, kind: torch.dtype, config: str | Path | None) -> Any:
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    with safe_open(source, framework="pt") as file:
        is_xl = any(key.startswith("conditioner.embedders.1.") for key in file.keys())  # noqa: SIM118
    pipeline = StableDiffusionXLPipeline if is_xl else StableDiffusionPipeline
    extra: dict[str, Any] = {} if is_xl else {"safety_checker": None}
    if config is not None:
        extra["config"] = resolve_model(config)
    return pipeline.from_single_file(source, torch_dtype=kind, **extra)


def _not_a_base(source: str, kind: object) -> BackboneError:
    return BackboneError("not a Stable Diffusion 1.x, 2.x or XL base", where=source, got=kind)


def _check(pipeline: Any, source: str) -> Family:
    """Refuse what is not a text-to-image Stable Diffusion."""
    if getattr(pipeline, "unet", None) is None:
        raise _not_a_base(source, type(pipeline).__name__)
    family = identify(pipeline.unet.config)
    missing = [name for name in family.text_encoders if getattr(pipeline, name, None) is None]
    if missing:
        raise BackboneError(
            f"{family.title} needs {' and '.join(missing)}",
            where=source,
            hint="the SDXL refiner cannot be trained; take the base model" if missing else None,
        )
    return family


@contextlib.contextmanager
def _plain_errors(source: str) -> Iterator[None]:
    """Turn the libraries' loading errors into one sentence."""
    try:
        yield
    except BackboneError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
        lines = str(error).strip().splitlines() or [""]
        said = lines[0] if len(lines) == 1 else f"{lines[0]} ... {lines[-1]}"
        raise BackboneError(
            "the base cannot be loaded",
            where=source,
            got=f"{type(error).__name__}: {said}",
            hint="check the name and the connection, or give a folder or a .safetensors file; "
            "the embedded base, --recipe mini, needs neither",
        ) from error
