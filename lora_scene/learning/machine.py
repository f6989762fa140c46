"""What this machine offers to training: device, memory, dtypes, libraries, disk."""

from __future__ import annotations

import importlib
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from lora_scene.backbones.loading import resolve_device, resolve_dtype
from lora_scene.backbones.storage import Quantization, check_storage
from lora_scene.errors import BackboneError
from lora_scene.learning.devices import device_bytes
from lora_scene.learning.outcome import installed_versions

SMALL_CARDS = {55 * 10**8: "sd15-4gb", 75 * 10**8: "sd15-6gb"}  # below so many bytes of memory
DISK_NEEDED = 15 * 10**9  # bytes: SDXL's files, checkpoints and results


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What it is.
        value: What was found.
        problem: What it keeps from working and what to do, or None where all is well.
    """

    name: str
    value: str
    problem: str | None = None


def examine(folder: Path, device: str = "auto") -> tuple[Finding, ...]:
    """Look at the machine; bitsandbytes is tried on real numbers.

    Args:
        folder: Where results would go; its disk is looked at.
        device: `auto`, `cuda`, `cuda:1`, `mps` or `cpu`.

    Raises:
        BackboneError: The device is not there.
    """
    chosen = resolve_device(device)
    versions = installed_versions()
    return (
        Finding("python", platform.python_version()),
        *(_library(name, version) for name, version in versions.items()),
        _device(chosen),
        _memory(chosen),
        Finding("dtype auto", str(resolve_dtype("auto", chosen)).removeprefix("torch.")),
        *(_dtype(kind, chosen) for kind in (torch.float16, torch.bfloat16, torch.float8_e4m3fn)),
        _eight_bit_step(chosen),
        _low_bit_layer("nf4", chosen),
        _low_bit_layer("int8", chosen),
        _disk(folder),
    )


def fitting_recipe(base: str | None = None) -> str:
    """Return the name of the recipe to begin with: by the card's memory, `mini` without a card.

    Args:
        base: The base model, where it is chosen already.
    """
    device = torch.device(resolve_device("auto"))
    if base == "mini" or (base is None and device.type == "cpu"):
        return "mini"
    memory = device_bytes(device)  # 0 where it is not a card's own
    fitting = (name for most, name in SMALL_CARDS.items() if 0 < memory < most)
    return next(fitting, "sd15")


def _device(device: str) -> Finding:
    if device.startswith("cuda"):
        return Finding("device", f"{device}: {torch.cuda.get_device_name(device)}")
    problem = None
    if device == "cpu":
        problem = "no GPU was found: --recipe mini trains in minutes, others take hours or days"
        if torch.version.cuda is None and has_nvidia_card():
            problem = (
                "there is an NVIDIA card, but this torch is built for the CPU alone: install the "
                "build for CUDA that pytorch.org/get-started names for this system"
            )
    return Finding("device", device, problem)


def has_nvidia_card() -> bool:
    """Tell whether the driver of an NVIDIA card is here, whatever torch was built for."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def _library(name: str, version: str) -> Finding:
    """Import a library, and what brings in the rest of diffusers."""
    try:
        module = importlib.import_module(name.replace("-", "_"))
        if name == "diffusers":
            _ = module.StableDiffusionPipeline
    except Exception as error:  # whatever a broken installation raises
        lines = str(error).strip().splitlines() or [""]
        problem = f"it does not load: {lines[-1]}; reinstall it, in a version that fits the others"
        return Finding(name, version, problem)
    return Finding(name, version)


def _memory(device: str) -> Finding:
    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(device)
        problem = "other programs hold much of the device" if free < 0.8 * total else None
        return Finding("device memory", f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free", problem)
    memory = psutil.virtual_memory()
    return Finding(
        "host memory", f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free"
    )


def _dtype(kind: torch.dtype, device: str) -> Finding:
    """Store in a dtype and compute in it; float8 is only stored and restored."""
    name = str(kind).removeprefix("torch.")
    try:
        numbers = torch.ones(8, 8, device=device).to(kind)
        restored = numbers.float() if kind == torch.float8_e4m3fn else (numbers @ numbers).float()
        works = bool(torch.isfinite(restored).all())
    except (RuntimeError, TypeError) as error:
        return Finding(name, "no", _first_line(error))
    return Finding(name, "yes" if works else "no", None if works else "its numbers are not finite")


def _eight_bit_step(device: str) -> Finding:
    """Make one step of 8-bit AdamW on a matrix large enough for 8-bit state."""
    name, loss = "8-bit optimizer", "adamw8bit falls back to 32-bit state"
    try:
        import bitsandbytes as bnb

        weight = torch.nn.Parameter(torch.ones(64, 128, device=device))
        optimizer = bnb.optim.AdamW8bit([weight], lr=0.1)
        weight.square().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        kind = optimizer.state[weight]["state1"].dtype
        moved = bool((weight < 1).all())
    except (ImportError, OSError, RuntimeError, AttributeError, KeyError, ValueError) as error:
        return Finding(name, "no", f"{_first_line(error)}; {loss}")
    works = moved and kind == torch.uint8
    return Finding(name, "yes" if works else "no", None if works else f"no 8-bit state; {loss}")


def _low_bit_layer(kind: Quantization, device: str) -> Finding:
    try:
        check_storage(kind, device)
    except BackboneError as error:
        problem = f"{error.what}: {error.got}; base.quantization=fp8 is left"
        return Finding(f"{kind} base", "no", problem)
    return Finding(f"{kind} base", "yes")


def _disk(folder: Path) -> Finding:
    places = (folder.absolute(), *folder.absolute().parents)
    existing = next(place for place in places if place.exists())
    free = shutil.disk_usage(existing).free
    problem = "an SDXL base and its results need about 15 GB" if free < DISK_NEEDED else None
    return Finding("disk", f"{free / 1e9:.1f} GB free at {existing}", problem)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
