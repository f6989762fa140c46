"""What this program wrote, told from the files themselves.

    pictures       PNG's Software text, EXIF's in JPEG and WebP, a GIF's comment: our name and a
                   checksum of the rest of the file
    safetensors    metadata of our prefix
    JSON, JSONL    `written_by` of the object, or of each line's: our name, a checksum of the rest
    TOML, MD, HTML a comment as the last line: our name, a checksum of all before it
    other files    listed with size and checksum in the `lora_scene.json` of their folder

What was edited by hand fails its checksum: it is its editor's, and never replaced.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import stat
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

NAME = "lora_scene"
KEY = "written_by"
LISTING = f"{NAME}.json"
EXIF_SOFTWARE = 0x0131  # TIFF 6.0, section 8
COMMENTS = {".toml": ("# ", ""), ".md": ("<!-- ", " -->"), ".html": ("<!-- ", " -->")}
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
UNMARKED = f"{NAME} {'0' * 16}"  # stands in a picture until `mark_picture` puts the checksum there

_SEAL = re.compile(rf"written by {NAME} \(([0-9a-f]{{16}})\)")
_MARK = re.compile(f"{NAME} ([0-9a-f]{{16}})".encode())
_MOST_MARKS = 8  # that are looked at in one picture
_CRC = 4  # bytes behind a PNG's chunk
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


def mark_picture(data: bytes) -> bytes:
    """Put the checksum into a picture's file that has `UNMARKED` in its place."""
    start = data.index(UNMARKED.encode()) + len(NAME) + 1
    end = start + 16
    marked = data[:start] + _picture_digest(data, (start, end)) + data[end:]
    chunk = marked.rfind(b"tEXt", 0, start)
    if not marked.startswith(b"\x89PNG"):
        return marked
    return marked[:end] + zlib.crc32(marked[chunk:end]).to_bytes(_CRC) + marked[end + _CRC :]


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
    if path.suffix.lower() not in PICTURES or path.stat().st_size > _MAX_TEXT:
        return False
    data = path.read_bytes()
    found = itertools.islice(_MARK.finditer(data), _MOST_MARKS)
    return any(match[1] == _picture_digest(data, match.span(1)) for match in found)


def _picture_digest(data: bytes, at: tuple[int, int]) -> bytes:
    """Return the checksum of a picture's file without what it stands in, a PNG's chunk whole."""
    start, end = at
    is_chunk = data[:start].endswith(b"tEXtSoftware\0" + f"{NAME} ".encode())
    rest = end + _CRC if is_chunk else end  # the chunk has a checksum of its own, right behind
    digest = hashlib.sha256(data[:start])
    digest.update(data[rest:])
    return digest.hexdigest()[:16].encode()


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
