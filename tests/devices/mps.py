"""What a Mac's GPU (MPS) cannot run of what was asked for, by torch's own table of kernels.

The table comes with torch, whatever it was built for, so a machine without that GPU can read it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from importlib import resources
from typing import Any

DERIVED = ("CompositeImplicit", "CompositeExplicit")  # made of other operations, on any device


def lacking(operations: Iterable[Any]) -> list[str]:
    """Return the operations (overloads) that torch has no kernel of for MPS, by name."""
    return sorted(str(op) for op in operations if op.name().removeprefix("aten::") not in kernels())


@functools.cache
def kernels() -> frozenset[str]:
    """Return the names (`add.Tensor`) of all operations of torch's that MPS runs."""
    table = resources.files("torchgen") / "packaged/ATen/native/native_functions.yaml"
    delegates, found = {}, set()
    for entry in re.split(r"^- func: ", table.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        name = entry[: entry.index("(")]
        keys = re.findall(r"^    ([\w, ]+):", entry, re.MULTILINE)  # of its `dispatch:`
        whole = re.search(r"^  structured_delegate: (\S+)", entry, re.MULTILINE)
        if whole:
            delegates[name] = whole[1]
        elif not keys or any("MPS" in k.split(", ") or k.startswith(DERIVED) for k in keys):
            derived = re.search(r"^  autogen: (.+)", entry, re.MULTILINE)
            found |= {name, *(derived[1].split(", ") if derived else ())}
    return frozenset(found | {name for name, whole in delegates.items() if whole in found})
