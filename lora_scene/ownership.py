"""What this program wrote, told from the files themselves.

    pictures       Software: PNG's text, the EXIF of JPEG, WebP and TIFF; a GIF's comment
    safetensors    metadata of our prefix
    JSON, JSONL    `written_by` of the object, or of each line's: our name, a checksum of the rest
    TOML, MD, HTML a comment as the last line: our name, a checksum of all before it
    other files    listed with size and checksum in the `lora_scene.json` of their folder

A text that was edited by hand fails its checksum: it is its editor's, and never replaced.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

NAME = "lora_scene"
KEY = "written_by"
LISTING = f"{NAME}.json"
EXIF_SOFTWARE = 0x0131  # TIFF 6.0, section 8
COMMENTS = {".toml": ("# ", ""), ".md": ("<!-- ", " -->"), ".html": ("<!-- ", " -->")}
PICTURES = {"PNG", "JPEG", "GIF", "WEBP", "TIFF", "MPO"}

_SEAL = re.compile(rf"written by {NAME} \(([0-9a-f]{{16}})\)")
_MAX_HEADER = 1 << 25  # bytes of a safetensors header
_MAX_TEXT = 1 << 28  # bytes
_LISTED_START = 1 << 20  # bytes of a listed file that its checksum covers; its size tells more
_LISTED_DEPTH = 3


def is_ours(path: Path) -> bool:
    """Tell whether this program wrote a file, and, of a text, whether it still is as written."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        return _carries_mark(path) or _is_listed(path)
    except Exception:  # a file may be damaged in any way; what cannot be read is not ours
        return False


def seal_text(text: str, suffix: str) -> str:
    """Add the line that tells an unchanged text of ours.

    Args:
        text: The text.
        suffix: `.toml`, `.md` or `.html`, whose comments hold it.
    """
    body = text if text.endswith("\n") else text + "\n"
    begin, end = COMMENTS[suffix]
    return f"{body}{begin}written by {NAME} ({_digest(body)}); edited, it is yours{end}\n"


def seal_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object with the key that tells an unchanged one of ours."""
    plain = {key: item for key, item in value.items() if key != KEY}
    return {**plain, KEY: f"{NAME} {_json_digest(plain)}"}


def unsealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object without our key."""
    return {key: item for key, item in value.items() if key != KEY}


def list_folder(folder: Path) -> dict[str, Any]:
    """Return the object for `LISTING`, which makes all files of a folder ours, of any format."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != LISTING)
    return seal_json({"files": {p.relative_to(folder).as_posix(): _entry(p) for p in files}})


def metadata_of(path: Path) -> Mapping[str, Any]:
    """Return the metadata of a safetensors file, whole or cut short; empty where it has none."""
    try:
        with path.open("rb") as file:
            n_bytes = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(n_bytes)) if n_bytes <= _MAX_HEADER else {}
        metadata = header.get("__metadata__", {})
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def own_files(folder: Path) -> Iterator[Path]:
    """Yield the files in and below a folder that this program wrote; no link is followed."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from own_files(path)
        elif path.name != LISTING and is_ours(path):
            yield path
    if is_ours(folder / LISTING):  # last, for it speaks for the others
        yield folder / LISTING


def _carries_mark(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _is_own_metadata(metadata_of(path))
    if suffix in COMMENTS or suffix in (".json", ".jsonl"):
        if path.stat().st_size > _MAX_TEXT:
            return False
        text = path.read_bytes().decode("utf-8").replace("\r\n", "\n")
        if suffix in COMMENTS:
            return _is_sealed_text(text)
        lines = text.splitlines() if suffix == ".jsonl" else [text]
        return bool(lines) and all(_is_sealed_json(json.loads(line)) for line in lines)
    return _is_own_picture(path)


def _is_own_metadata(metadata: Mapping[str, Any]) -> bool:
    return any(key.startswith(f"{NAME}.") for key in metadata) or (
        str(metadata.get("format")).startswith(f"{NAME}.")
    )


def _is_sealed_text(text: str) -> bool:
    body, _, last = text.rstrip("\n").rpartition("\n")
    found = _SEAL.search(last)
    return found is not None and found[1] == _digest(body + "\n")


def _is_sealed_json(value: Any) -> bool:
    return isinstance(value, dict) and value.get(KEY) == f"{NAME} {_json_digest(unsealed(value))}"


def _is_own_picture(path: Path) -> bool:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            if image.format not in PICTURES:
                return False
            if image.format in ("PNG", "GIF"):
                text = image.info.get("Software") or image.info.get("comment")
            else:
                text = image.getexif().get(EXIF_SOFTWARE)
    return text in (NAME, NAME.encode())


def _is_listed(path: Path) -> bool:
    for folder in list(path.parents)[:_LISTED_DEPTH]:
        listing = folder / LISTING
        if listing.is_file() and _carries_mark(listing):
            files = json.loads(listing.read_text("utf-8"))["files"]
            return bool(files.get(path.relative_to(folder).as_posix()) == _entry(path))
    return False


def _entry(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(_LISTED_START)
    return f"{path.stat().st_size} {hashlib.sha256(start).hexdigest()[:16]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def _json_digest(value: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(value))  # as a reader will see it: tuples as lists, text keys
    return _digest(json.dumps(plain, sort_keys=True))
