"""A stranger's safetensors file, read only after its header has been checked.

A safetensors file is an 8-byte little-endian header length N, N bytes of JSON, then the tensors'
bytes. Nothing here executes what a file holds; what is checked is that it cannot exhaust memory,
hide bytes, or smuggle names that become paths or prompts.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load

from lora_scene.errors import AdapterError
from lora_scene.scenes.handles import HANDLE_FORM, HANDLE_HELP, RESERVED_STEMS

MAX_HEADER_BYTES = 32 << 20  # previews travel in metadata; the format itself allows 100 MB
MAX_FILE_BYTES = 8 << 30  # the largest LoRA file in the wild is well under this
MAX_TENSORS = 50_000
MAX_DIMENSIONS = 6
MAX_KEY_CHARACTERS = 512
MAX_HANDLE_CHARACTERS = 128
MAX_PROBLEMS_SHOWN = 10

ITEM_BYTES: Mapping[str, int] = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
    "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip

_KEY = re.compile(r"[!-~]+")  # printable ASCII without spaces


@dataclass(frozen=True)
class TensorSpec:
    """What a header says of one tensor.

    Attributes:
        dtype: safetensors' name of it, such as `F16`.
        shape: Its shape.
        n_bytes: Its size in the file, bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    n_bytes: int


@dataclass(frozen=True)
class Header:
    """A checked header.

    Attributes:
        path: The file.
        tensors: Tensor name to what the header says of it.
        metadata: The file's own string-to-string metadata.
        n_bytes: The file's size, bytes.
    """

    path: Path
    tensors: Mapping[str, TensorSpec]
    metadata: Mapping[str, str]
    n_bytes: int


def read_header(path: Path) -> Header:
    """Read and check a safetensors header, without touching the tensors.

    Raises:
        AdapterError: The file is missing, no regular file, no safetensors file, or its header
            lies about sizes, overlaps, or names something odd.
    """
    n_bytes = _regular_file_size(path)
    try:
        with path.open("rb") as file:
            n_header = int.from_bytes(file.read(8), "little")
            n_allowed = max(min(MAX_HEADER_BYTES, n_bytes - 8), 0)
            if n_bytes < 8 or n_header > n_allowed:
                raise AdapterError(
                    "not a safetensors file",
                    where=path,
                    expected=f"a header of at most {n_allowed} bytes" if n_bytes >= 8 else None,
                    got=f"{n_header} bytes" if n_bytes >= 8 else f"a file of {n_bytes} bytes",
                    hint="only .safetensors files are opened, never pickles",
                )
            raw = file.read(n_header)
    except OSError as error:
        raise AdapterError(f"cannot be read: {error.strerror}", where=path) from error
    return _check_header(path, _parse_json(path, raw), n_bytes, n_bytes - 8 - n_header)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], Header]:
    """Read a safetensors file whose header has been checked; every number must be finite.

    Returns:
        The tensors by name, on the CPU, and the header.

    Raises:
        AdapterError: See `read_header`; or a tensor holds NaN or an infinity.
    """
    header = read_header(path)
    try:
        # read, not mapped: a mapped file that shrinks meanwhile kills the process
        tensors = load(path.read_bytes())
    except Exception as error:  # safetensors raises its own type, and some of Python's
        raise AdapterError(f"cannot be read: {error}", where=path) from error
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
            raise AdapterError(
                "holds NaN or an infinity",
                where=f"{path}: {key}",
                hint="this adapter would draw black pictures; take an earlier one",
            )
    return tensors, header


def check_handle(handle: str, where: object) -> None:
    """Check that a handle is safe in a prompt and as a file stem.

    Raises:
        AdapterError: It is none, or too long.
    """
    is_short = len(handle) <= MAX_HANDLE_CHARACTERS
    is_free = handle.strip("<>").casefold() not in RESERVED_STEMS
    if HANDLE_FORM.fullmatch(handle) is None or not is_short or not is_free:
        raise AdapterError(
            "not a usable handle",
            where=where,
            expected=f"{HANDLE_HELP}, of at most {MAX_HANDLE_CHARACTERS} characters, and"
            " none of Windows' devices",
            got=ascii(handle[: 2 * MAX_HANDLE_CHARACTERS]),
        )


def _regular_file_size(path: Path) -> int:
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise AdapterError("no such file", where=path) from error
    if not stat.S_ISREG(status.st_mode):
        raise AdapterError("not a regular file", where=path)
    if status.st_size > MAX_FILE_BYTES:
        raise AdapterError(
            "too large for an adapter",
            where=path,
            expected=f"at most {MAX_FILE_BYTES >> 30} GiB",
            got=f"{status.st_size / 2**30:.1f} GiB",
        )
    return status.st_size


def _parse_json(path: Path, raw: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError("a name occurs twice")
        return made

    try:
        parsed = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise AdapterError(
            "not a safetensors file: its header is no JSON", where=path, got=error
        ) from error
    if not isinstance(parsed, dict):
        raise AdapterError(
            "not a safetensors file",
            where=path,
            expected="a JSON object",
            got=type(parsed).__name__,
        )
    return parsed


def _check_header(path: Path, parsed: dict[str, Any], n_bytes: int, n_data: int) -> Header:
    metadata = parsed.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise AdapterError("metadata must map strings to strings", where=path)
    if len(parsed) > MAX_TENSORS:
        raise AdapterError(
            "too many tensors", where=path, expected=f"at most {MAX_TENSORS}", got=len(parsed)
        )
    problems: list[AdapterError] = []
    tensors: dict[str, TensorSpec] = {}
    spans: list[tuple[int, int]] = []
    for key, entry in parsed.items():
        problem = _entry_problem(key, entry)
        if problem is not None:
            problems.append(AdapterError(problem, where=f"{path}: {key[:80]!a}"))
            continue
        start, end = entry["data_offsets"]
        spans.append((start, end))
        tensors[key] = TensorSpec(entry["dtype"], tuple(entry["shape"]), end - start)
    if problems:
        raise AdapterError.collect(problems[:MAX_PROBLEMS_SHOWN], f"{path}: a damaged header")
    end_of_last = 0
    for start, end in sorted(spans):
        if start != end_of_last:
            raise AdapterError("tensors overlap, or hide bytes between them", where=path)
        end_of_last = end
    if end_of_last != n_data:
        raise AdapterError(
            "truncated, or followed by foreign bytes",
            where=path,
            expected=f"{end_of_last} bytes of tensors",
            got=f"{n_data} bytes",
        )
    return Header(path, tensors, metadata, n_bytes)


def _entry_problem(key: str, entry: Any) -> str | None:
    """Return what is wrong with one header entry, or None."""
    if len(key) > MAX_KEY_CHARACTERS or _KEY.fullmatch(key) is None:
        return "an odd tensor name"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return "an entry needs dtype, shape and data_offsets"
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        return f"an unknown dtype {ascii(dtype)[:40]}"
    if not _is_count_list(shape) or len(shape) > MAX_DIMENSIONS:
        return "a shape must be a short list of sizes"
    if not _is_count_list(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        return "data_offsets must be [start, end]"
    if math.prod(shape) * ITEM_BYTES[dtype] != offsets[1] - offsets[0]:
        return "shape, dtype and data_offsets disagree"
    return None


def _is_count_list(value: Any) -> bool:
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item < 1 << 62 for item in value
    )
