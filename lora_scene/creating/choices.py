"""Which adapters to draw with, and how strongly each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_scene.adapters.adapter import Adapter
from lora_scene.creating.limits import check_number
from lora_scene.errors import CreationError


@dataclass(frozen=True)
class AdapterChoice:
    """An adapter to draw with.

    Attributes:
        source: Its folder or hub id, or the adapter itself.
        weight: Factor of its LoRA update.
    """

    source: Adapter | Path | str
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_number("weight", self.weight)

    @classmethod
    def parse(cls, text: str) -> AdapterChoice:
        """Read `DIR` or `DIR:weight`; a folder whose name ends so wins over the weight.

        Raises:
            CreationError: What follows a folder's colon is no number, or too large a one.
        """
        head, _, tail = text.rpartition(":")
        if not head or Path(text).exists():
            return cls(text)
        try:
            weight = float(tail)
        except ValueError:
            if Path(head).exists():
                raise CreationError(
                    "no weight", where=text, expected="a number after the colon", got=tail
                ) from None
            return cls(text)
        return cls(head, weight)


Adapters = Sequence[AdapterChoice | Path | str]
