"""Pictures on disk: PNG files that say how they were made, written aside and renamed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from lora_scene.creating.sampling import Pixels
from lora_scene.errors import CreationError
from lora_scene.picture_writing import write_gif, write_picture

RECORD = "lora_scene"  # the PNG text that holds the record, as JSON
PARAMETERS = "parameters"  # the PNG text that user interfaces show

Record = Mapping[str, Any]


def save_picture(path: Path, pixels: Pixels, record: Record) -> Path:
    """Write a picture with its record; folders are made if need be.

    Args:
        path: A `.png` file.
        pixels: (H, W, 3) uint8.
        record: How it was made, as JSON can hold it.
    """
    texts = {RECORD: json.dumps(record, ensure_ascii=False, sort_keys=True)}
    if "prompt" in record:
        texts[PARAMETERS] = parameters_text(record)
    return save_image(path, Image.fromarray(pixels), texts)


def save_image(path: Path, image: Image.Image, texts: Mapping[str, str] | None = None) -> Path:
    """Write a picture, a PNG with texts.

    Raises:
        FileError: A file of others stands there, or the folder cannot be written to.
    """
    return write_picture(path, image, texts)


def save_gif(path: Path, frames: Sequence[Pixels], *, milliseconds: int) -> Path:
    """Write frames (H, W, 3) uint8 as an endless GIF, `milliseconds` each."""
    return write_gif(path, [Image.fromarray(frame) for frame in frames], milliseconds=milliseconds)


def read_record(path: Path) -> dict[str, Any]:
    """Return how a picture was made.

    Raises:
        CreationError: It is no picture, or not one of ours.
    """
    try:
        with Image.open(path) as image:
            text = image.info.get(RECORD)
    except OSError as error:
        raise CreationError("not a readable picture", where=path, got=str(error)) from error
    if text is None:
        raise CreationError(
            "this picture does not say how it was made",
            where=path,
            expected="a PNG as this program wrote it; editors often drop its texts",
        )
    record: dict[str, Any] = json.loads(text)
    return record


def parameters_text(record: Record) -> str:
    """Return a record as the line of settings that Stable Diffusion interfaces read."""
    settings = {
        "Steps": record["steps"],
        "Sampler": record["scheduler"],
        "CFG scale": record["guidance"],
        "Seed": record["seed"],
        "Size": f"{record['width']}x{record['height']}",
        "Model": record["base"]["name"],
        "Model hash": record["base"]["hash"][:12],
    }
    hashes = ", ".join(f"{a['name']}: {a['fingerprint'][:12]}" for a in record["adapters"])
    if hashes:
        settings["Lora hashes"] = f'"{hashes}"'
    line = ", ".join(f"{name}: {value}" for name, value in settings.items())
    negative = f"Negative prompt: {record['negative']}\n" if record["negative"] else ""
    return f"{record['prompt']}\n{negative}{line}"
