"""Safetensors files of the same bytes for the same content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch

DTYPE_NAMES: Mapping[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
}
HEADER_ALIGNMENT = 8  # bytes, so that readers can map the tensors without copying


def write_tensors(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a safetensors file; the safetensors library itself orders metadata by chance.

    Args:
        path: A new file, in a folder that `written_together` gave; its folder is made if need be.
        tensors: Name to tensor, in any device and layout.
        metadata: String to string; sorted in the file, with `format` = `pt` added.
        dtype: What floating-point tensors are cast to; integers and single numbers, such as alphas,
            keep theirs: bf16 has no 257.
    """
    header: dict[str, object] = {"__metadata__": dict(sorted({"format": "pt", **metadata}.items()))}
    cast = _in_order(tensors, dtype)
    end = 0
    for name, tensor in cast.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    raw = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % HEADER_ALIGNMENT)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little"))
        file.write(raw)
        for tensor in cast.values():
            file.write(_bytes(tensor))


def tensors_sha256(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype = torch.float32) -> str:
    """Return the sha256 over the tensor bytes that `write_tensors` would write, hexadecimal."""
    digest = hashlib.sha256()
    for tensor in _in_order(tensors, dtype).values():
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _in_order(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Cast, and order by size of an item, then by name: so that every tensor is aligned."""
    cast = {
        name: tensor.detach().to(
            "cpu", dtype if tensor.is_floating_point() and tensor.ndim else tensor.dtype
        )
        for name, tensor in tensors.items()
    }
    return dict(sorted(cast.items(), key=lambda item: (-item[1].element_size(), item[0])))


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
