"""A stranger's safetensors file, read within bounds.

The library refuses headers that lie. What is looked at here besides is that a file cannot exhaust
memory, block, steer a terminal by its tensors' names, or hold numbers that are none.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import torch
from safetensors.torch import load

from lora_scene.backbones.tensor_header import TensorHeader, read_tensor_header
from lora_scene.errors import AdapterError

MAX_FILE_BYTES = 8 << 30  # the largest LoRA file in the wild is well under this
MAX_TENSORS = 50_000
MAX_DIMENSIONS = 6

_NAME = re.compile(r"[!-~]{1,512}")  # printable ASCII without spaces


def read_header(path: Path) -> TensorHeader:
    """Read and check a safetensors header, without touching the tensors.

    Raises:
        AdapterError: The file is missing, no regular file, no safetensors file, damaged, too
            large, or names something odd.
    """
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
    header = read_tensor_header(path, AdapterError)
    if len(header.shapes) > MAX_TENSORS:
        raise AdapterError(
            "too many tensors",
            where=path,
            expected=f"at most {MAX_TENSORS}",
            got=len(header.shapes),
        )
    for name, shape in header.shapes.items():
        if _NAME.fullmatch(name) is None or len(shape) > MAX_DIMENSIONS:
            raise AdapterError("an odd tensor name or shape", where=f"{path}: {name[:80]!a}")
    return header


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], TensorHeader]:
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
