"""What this program wrote, told from the files themselves.

    pictures       PNG's Software text, EXIF's in JPEG and WebP, a GIF's comment: our name and a
                   checksum of the rest of the file
    safetensors    metadata of our prefix, and nothing behind the tensors
    JSON, JSONL    `written_by` of the object, or of each line's: our name, a checksum of the rest
    TOML, MD, HTML a comment as the last line: our name, a checksum of all before it
    other files    listed with size and checksum in the `lora_scene.json` of their folder

What was edited by hand fails its checksum: it is its editor's, and never replaced.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import stat
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

NAME = "lora_scene"
KEY = "written_by"
LISTING = f"{NAME}.json"
EXIF_SOFTWARE = 0x0131  # TIFF 6.0, section 8
COMMENTS = {".toml": ("# ", ""), ".md": ("<!-- ", " -->"), ".html": ("<!-- ", " -->")}
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif")

_SEAL = re.compile(rf"written by {NAME} \(([0-9a-f]{{16}})\)")
_MARK = re.compile(f"{NAME} ([0-9a-f]{{16}})".encode())
_MOST_MARKS = 8  # that are looked at in one picture
_CRC = 4  # bytes behind a PNG's chunk
_MAX_HEADER = 1 << 25  # bytes of a safetensors header
_MAX_TEXT = 1 << 28  # bytes
_LISTED_START = 1 << 20  # bytes of a listed file that its checksum covers; its size tells more
_LISTED_DEPTH = 3
_DEEPEST = 8  # folders below a run's: nothing of ours lies deeper

_Listing = Mapping[str, str] | None  # what a folder's says of each file; None where there is none


def is_ours(path: Path, listings: dict[Path, _Listing] | None = None) -> bool:
    """Tell whether this program wrote a file, and, of a text, whether it still is as written.

    Args:
        path: The file.
        listings: Those of folders that were read already; what is read here is added.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        return _carries_mark(path) or _is_listed(path, {} if listings is None else listings)
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


def mark_picture(encode: Callable[[str], bytes]) -> bytes:
    """Return a picture's file that holds its own checksum.

    Args:
        encode: Returns the file with a text in the place of the mark, as it is and nowhere else.
    """
    for n in itertools.count():  # until what stands in for the mark is nothing that a user wrote
        data = encode(stand_in := f"{NAME} {n:016x}")
        if data.count(stand_in.encode()) == 1:
            break
    start = data.index(stand_in.encode()) + len(NAME) + 1
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
        metadata = _tensor_header(path)[1].get("__metadata__", {})
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def own_files(folder: Path) -> list[Path]:
    """Return the files in and below a folder that this program wrote; no link is followed.

    Listings come last, for they speak for the others.
    """
    if folder.is_symlink():
        return []
    found: list[Path] = []
    listings: dict[Path, _Listing] = {}
    for place, folders, names in os.walk(folder):
        if len(Path(place).parts) - len(folder.parts) >= _DEEPEST:
            folders.clear()
        found += [path for name in names if is_ours(path := Path(place, name), listings)]
    return sorted(found, key=lambda path: (path.name == LISTING, path))


def _carries_mark(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _is_own_tensors(path)
    if suffix in COMMENTS or suffix in (".json", ".jsonl"):
        if path.stat().st_size > _MAX_TEXT:
            return False
        text = path.read_bytes().decode("utf-8").replace("\r\n", "\n")
        if suffix in COMMENTS:
            return _is_sealed_text(text)
        lines = text.splitlines() if suffix == ".jsonl" else [text]
        return bool(lines) and all(_is_sealed_json(json.loads(line)) for line in lines)
    return _is_own_picture(path)


def _tensor_header(path: Path) -> tuple[int, Any]:
    """Return the bytes before a safetensors file's tensors, and its header."""
    if not path.is_file():  # a pipe may never end
        return 0, {}
    with path.open("rb") as file:
        n_bytes = int.from_bytes(file.read(8), "little")
        return 8 + n_bytes, json.loads(file.read(n_bytes)) if n_bytes <= _MAX_HEADER else {}


def _is_own_tensors(path: Path) -> bool:
    n_before, header = _tensor_header(path)
    metadata = header.pop("__metadata__", {})
    is_marked = str(metadata.get("format")).startswith(f"{NAME}.") or any(
        key.startswith(f"{NAME}.") for key in metadata
    )
    n_named = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    return is_marked and path.stat().st_size <= n_before + n_named


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


def _is_listed(path: Path, listings: dict[Path, _Listing]) -> bool:
    for folder in path.parents[:_LISTED_DEPTH]:
        if folder not in listings:
            listings[folder] = _read_listing(folder / LISTING)
        found = listings[folder]
        if found is not None:
            return bool(found.get(path.relative_to(folder).as_posix()) == _entry(path))
    return False


def _read_listing(path: Path) -> _Listing:
    is_own = path.is_file() and _carries_mark(path)
    return json.loads(path.read_text("utf-8"))["files"] if is_own else None


def _entry(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(_LISTED_START)
    return f"{path.stat().st_size} {hashlib.sha256(start).hexdigest()[:16]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def _json_digest(value: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(value))  # as a reader will see it: tuples as lists, text keys
    return _digest(json.dumps(plain, sort_keys=True))
