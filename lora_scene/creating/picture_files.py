"""Pictures on disk: files that say how they were made; none is written over another picture."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from lora_scene.documents import parse_json
from lora_scene.errors import CreationError, FileError
from lora_scene.files import write_bytes
from lora_scene.folder_lock import NUMBERS, WAIT, locked
from lora_scene.ownership import NAME as RECORD  # the PNG text that holds the record, as JSON
from lora_scene.ownership import is_ours
from lora_scene.picture_writing import EXIF_DESCRIPTION, encode_picture
from lora_scene.scenes.pictures import MAX_PIXELS, Pixels
from lora_scene.silence import quiet_warnings

PARAMETERS = "parameters"  # the PNG text that user interfaces show

Record = Mapping[str, Any]


def save_picture(path: Path, pixels: Pixels, record: Record) -> Path:
    """Write a picture with its record; one that the same verb drew is replaced.

    Args:
        path: A `.png`, `.jpg` or `.webp` file.
        pixels: (H, W, 3) uint8.
        record: How it was made, as JSON can hold it.

    Raises:
        FileError: Another ending, or it cannot be written, or the file there is not ours, or
            another verb's.
    """
    refuse_other_verb(path, record.get("verb"))
    return write_bytes(path, picture_bytes(path, pixels, record))


def refuse_other_verb(path: Path, verb: str | None) -> None:
    """Refuse to replace a picture of ours that another verb drew.

    Args:
        path: Where a picture will be written.
        verb: What its record says; None for what has no record.

    Raises:
        FileError: Such a picture stands there.
    """
    if not is_ours(path):  # whoever writes there is told
        return
    try:
        drawn_by = read_record(path).get("verb")
    except CreationError:
        drawn_by = None
    if drawn_by != verb:
        raise FileError(
            "a picture of another verb stands here",
            where=path,
            expected="nothing, or a picture of " + (verb or "its own kind"),
            got=drawn_by or "one that is not drawn by a prompt",
            hint="choose another name",
        )


def picture_bytes(path: Path, pixels: Pixels, record: Record) -> bytes:
    """Return a picture's file with its record."""
    is_png = path.suffix.lower() == ".png"
    texts = {RECORD: json.dumps(record, ensure_ascii=not is_png, sort_keys=True)}
    if "prompt" in record:
        texts[PARAMETERS] = parameters_text(record)
    return encode_picture(Image.fromarray(pixels), path, texts)


def save_numbered(path: Path, pixels: Pixels, record: Record) -> Path:
    """Write a PNG with its record beside what is there, see `save_set`; return where it is."""
    return save_set({path: picture_bytes(path, pixels, record)})[0]


def save_image(path: Path, image: Image.Image) -> Path:
    """Write a sheet as PNG beside what is there, see `save_set`; return where it is."""
    return save_set({path: encode_picture(image, path)})[0]


def save_set(files: Mapping[Path, bytes]) -> list[Path]:
    """Write files that belong together; where other files have their names, numbered on.

    A file that is there already, byte for byte, is left as it is. If any other is there, all get
    the first number that is free: `name_2.png`.

    Raises:
        FileError: They cannot be written.
    """
    with locked(next(iter(files)).parent, wait=WAIT, name=NUMBERS):  # or two would take one number
        return _write_numbered(files, _free_number(files, 1))


def save_growing(files: Iterable[tuple[Path, bytes]]) -> list[Path]:
    """Write files that belong together, each as soon as it is there, all under one number.

    What an interrupted call wrote, the same call finds as it left it. A later file whose name
    another has moves the whole set on, see `save_set`.

    Raises:
        FileError: They cannot be written.
    """
    known: dict[Path, bytes] = {}
    number = 1
    for path, data in files:
        known[path] = data
        with locked(path.parent, wait=WAIT, name=NUMBERS):
            same = _free_number({path: data}, number) == number
            number = number if same else _free_number(known, number + 1)
            _write_numbered({path: data} if same else known, number)
    return [_numbered(path, number) for path in known]


def read_record(path: Path) -> dict[str, Any]:
    """Return how a picture was made.

    Raises:
        CreationError: It is no picture, or not one of ours, or laid out of several.
    """
    if not path.is_file():
        raise CreationError("not a readable picture", where=path, expected="a file")
    try:
        with quiet_warnings(), Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            text = image.info.get(RECORD) or image.getexif().get(EXIF_DESCRIPTION)
    except Exception as error:  # Pillow's readers raise whatever a damaged file leads them to
        raise CreationError("not a readable picture", where=path, got=str(error)) from error
    record = parse_json(text, path, CreationError) if isinstance(text, str) and text else None
    if not isinstance(record, dict) and is_ours(path):
        raise CreationError(
            "a sheet or a mask: no one prompt drew it",
            where=path,
            hint="of a grid's pictures each is made again from its own file",
        )
    if not isinstance(record, dict):
        raise CreationError(
            "this picture does not say how it was made",
            where=path,
            expected="a picture as this program wrote it; editors often drop its texts",
        )
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


def _free_number(files: Mapping[Path, bytes], number: int) -> int:
    """Return the first number, from the given one on, under which nothing else stands."""
    while any(_state(_numbered(path, number), data) == "other" for path, data in files.items()):
        number += 1
    return number


def _write_numbered(files: Mapping[Path, bytes], number: int) -> list[Path]:
    """Write what is not there yet; return where all of them are."""
    named = {_numbered(path, number): data for path, data in files.items()}
    for path, data in named.items():
        if _state(path, data) == "absent":
            write_bytes(path, data)
    return list(named)


def _numbered(path: Path, number: int) -> Path:
    return path if number == 1 else path.with_name(f"{path.stem}_{number}{path.suffix}")


def _state(path: Path, data: bytes) -> Literal["absent", "same", "other"]:
    """Tell what is under a name."""
    try:
        mode = path.lstat().st_mode
        is_same = stat.S_ISREG(mode) and path.stat().st_size == len(data)
        return "same" if is_same and path.read_bytes() == data else "other"
    except PermissionError:
        return "other"
    except OSError:  # nothing there; or what writing will tell better
        return "absent"
