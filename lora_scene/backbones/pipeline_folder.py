"""What a diffusers folder holds, told from its small files and its names before weights are read.

The same questions are asked of a repository on the hub, before anything large is downloaded.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_scene.backbones.families import (
    Family,
    identify,
    map_level,
    side_multiple,
    vae_factor,
)
from lora_scene.backbones.noise_schedules import check_schedule
from lora_scene.errors import BackboneError

INDEX = "model_index.json"
KINDS = re.compile(  # pipelines whose parts are a text-to-image base's, if the UNet says so too
    "(StableDiffusion(XL)?(Img2Img|Inpaint)?|LatentConsistencyModel(Img2Img)?)Pipeline"
)
CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel", "CLIPTextModelWithProjection"),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
}
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
WEIGHTS = re.compile(
    r"(?:model|diffusion_pytorch_model)(?:\.(?P<variant>\w+))?(?:-\d{5}-of-\d{5})?\.safetensors"
)
ALIEN_WEIGHTS = {".bin": "pickles", ".msgpack": "flax", ".onnx": "ONNX", ".gguf": "GGUF"}


@dataclass(frozen=True)
class StatedSizes:
    """What the configurations of a base say of sizes, pixels.

    Attributes:
        own: The side that it was made for.
        multiple: What sides are multiples of.
        latent_cell: Side of a cell of the latents.
        map_cell: Side of a cell of the attention maps that are usually read.
    """

    own: int
    multiple: int
    latent_cell: int
    map_cell: int


def read_index(folder: Path, *, where: object) -> dict[str, Any]:
    """Read what a folder says of its parts; refuse other folders by what they are.

    Args:
        folder: With `model_index.json`.
        where: The base, for messages.

    Raises:
        BackboneError: No pipeline, or not a text-to-image Stable Diffusion.
    """
    if not (folder / INDEX).is_file():
        raise _no_pipeline(folder, where)
    index = read_json(folder / INDEX)
    kind = index.get("_class_name")
    if not isinstance(kind, str) or not KINDS.fullmatch(kind):
        raise BackboneError(
            "not a Stable Diffusion 1.x, 2.x or XL text-to-image base", where=where, got=kind
        )
    for part, classes in CLASSES.items():
        entry = index.get(part, [None, None])
        name = entry[1] if isinstance(entry, list) and len(entry) == 2 else entry
        if name is not None and name not in classes:
            raise BackboneError(
                f"a base whose {part} is of an unknown kind",
                where=where,
                expected=" or ".join(classes),
                got=name,
            )
    return index


def check_parts(folder: Path, index: Mapping[str, Any], *, where: object) -> Family:
    """Tell the family from the parts' configurations, and refuse what cannot be trained rightly.

    Raises:
        BackboneError: A part is missing, or the UNet or the schedule are of an unknown kind.
    """
    present = {part for part, entry in index.items() if isinstance(entry, list) and any(entry)}
    missing = {"unet", "vae", "scheduler"} - present
    if missing:
        raise _lacks(missing, where)
    unet = {"in_channels": 4, "out_channels": 4, **read_json(folder / "unet" / "config.json")}
    try:
        family = identify(unet)
    except BackboneError as error:
        raise BackboneError(
            error.what, where=where, expected=error.expected, got=error.got, hint=error.hint
        ) from None
    missing = {*family.text_encoders, *family.tokenizers} - present
    if missing:
        is_refiner = family.has_pooled_text and "text_encoder_2" in present
        hint = "the SDXL refiner cannot be trained; take the base model" if is_refiner else None
        raise _lacks(missing, where, hint)
    schedule = read_json(folder / "scheduler" / "scheduler_config.json")
    kind = str(schedule.get("_class_name", index["scheduler"][1]))
    check_schedule(kind, {"beta_schedule": "linear", **schedule}, where=where)
    return family


def stated_sizes(folder: Path) -> StatedSizes | None:
    """Read a base's sizes in its configurations.

    None where they leave them to a library's defaults, or are none of a base.
    """
    try:
        return sizes_of(*(read_json(folder / part / "config.json") for part in ("unet", "vae")))
    except BackboneError:
        return None


def sizes_of(unet: Mapping[str, Any], vae: Mapping[str, Any]) -> StatedSizes | None:
    """Return what configurations say of sizes; None as `stated_sizes`."""
    try:
        cell = vae_factor(vae)
        own = unet["sample_size"] * cell
        found = StatedSizes(own, side_multiple(unet, vae), cell, cell * 2 ** map_level(unet))
    except (BackboneError, KeyError, TypeError, AttributeError):
        return None
    return found if isinstance(own, int) and own > 0 else None


def choose_variant(files: Collection[str], parts: Collection[str], *, where: object) -> str | None:
    """Return the variant (`fp16`) to load, or None where every part has its plain weights.

    Args:
        files: Names of all files, relative, with `/`.
        parts: Subfolders that hold weights.
        where: The base, for messages.

    Raises:
        BackboneError: A part without safetensors weights.
    """
    found: dict[str, set[str | None]] = defaultdict(set)
    alien: dict[str, str] = {}
    for name in files:
        part, _, file = name.partition("/")
        match = WEIGHTS.fullmatch(file)
        if part in parts and match:
            found[part].add(match["variant"])
        elif part in parts and Path(file).suffix in ALIEN_WEIGHTS:
            alien[part] = ALIEN_WEIGHTS[Path(file).suffix]
    bare = [part for part in parts if not found[part]]
    if bare:
        kinds = " and ".join(sorted({alien[part] for part in bare if part in alien}))
        raise BackboneError(
            "only safetensors weights are opened, since pickles can run code",
            where=where,
            expected=f"*.safetensors in {', '.join(bare)}",
            got=f"{kinds} alone" if kinds else "no weights",
            hint="save it anew with safe_serialization=True, or take a base published so"
            if kinds
            else None,
        )
    lacking = [found[part] for part in parts if None not in found[part]]
    if not lacking:
        return None
    shared = set.intersection(*lacking)
    if not shared:
        raise BackboneError(
            "the parts' weights come in different variants",
            where=where,
            got=", ".join(f"{part}: {sorted(map(str, found[part]))}" for part in parts),
        )
    return "fp16" if "fp16" in shared else sorted(map(str, shared))[0]


def weight_parts(family: Family) -> tuple[str, ...]:
    """Return the subfolders that hold weights."""
    return ("unet", "vae", *family.text_encoders)


def read_json(path: Path) -> dict[str, Any]:
    """Read a configuration.

    Raises:
        BackboneError: It is missing or damaged.
    """
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        raise BackboneError("a base without its configuration", where=path) from None
    except (OSError, ValueError, RecursionError) as error:
        got = "endless nesting" if isinstance(error, RecursionError) else error
        raise BackboneError("a damaged configuration", where=path, got=got) from error
    if not isinstance(content, dict):
        raise BackboneError("a damaged configuration", where=path, expected="a JSON object")
    return content


def _no_pipeline(folder: Path, where: object) -> BackboneError:
    """Say what a folder without an index is instead."""
    hint = None
    got: object = f"a folder without {INDEX}"
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    if (folder / "config.json").is_file():
        config = read_json(folder / "config.json")
        got = config.get("_class_name") or config.get("architectures") or got
        if (folder.parent / INDEX).is_file():
            hint = f"it is a part; the base is {folder.parent}"
    elif (folder / "adapter_config.json").is_file() or any("lora" in name for name in files):
        got = "a folder of a LoRA"
    elif files:
        hint = f"for a single-file base give the file: {folder / files[0]}"
    return BackboneError(
        "not a base", where=where, expected="a diffusers folder", got=got, hint=hint
    )


def _lacks(parts: Collection[str], where: object, hint: str | None = None) -> BackboneError:
    return BackboneError(f"a base without {' and '.join(sorted(parts))}", where=where, hint=hint)
