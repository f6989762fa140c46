"""What a safetensors file says of its tensors, without them; the library checks what it says.

It refuses lengths, sizes and offsets that lie, overlap, or leave bytes out, and executes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from lora_scene.errors import LoraSceneError
from lora_scene.targets import refuse_unread_names


@dataclass(frozen=True)
class TensorHeader:
    """A safetensors file's header.

    Attributes:
        path: The file.
        shapes: Tensor name to shape.
        dtypes: Tensor name to dtype, such as `F16`.
        metadata: The file's own string-to-string metadata.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    metadata: Mapping[str, str]

    def has(self, pattern: str) -> bool:
        """Tell whether a tensor's name matches."""
        found = re.compile(pattern)
        return any(found.search(name) for name in self.shapes)


def read_tensor_header(path: Path, error: type[LoraSceneError]) -> TensorHeader:
    """Read a header.

    Args:
        path: A regular file.
        error: What is raised.

    Raises:
        LoraSceneError: Of the kind `error`: it is no safetensors file, or damaged, or below a
            name that is no UTF-8.
    """
    refuse_unread_names(path, error)
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return TensorHeader(
                path,
                {name: tuple(each.get_shape()) for name, each in slices.items()},
                {name: each.get_dtype() for name, each in slices.items()},
                file.metadata() or {},
            )
    except (SafetensorError, OSError, ValueError) as problem:
        raise error(
            "not a safetensors file, or a damaged one: the download may have been cut short",
            where=path,
            got=problem,
        ) from problem
