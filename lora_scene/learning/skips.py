"""Steps that moved nothing, because something in them was not finite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lora_scene.errors import NonFiniteLossError
from lora_scene.learning.step import HINT

MOST_SKIPPED = 20  # in a row: from 2^16 down, float16's scale has then fallen below 1


@dataclass
class Skips:
    """How many there were.

    Attributes:
        n: In all.
        in_a_row: Up to here, without a sound step between them.
    """

    n: int = 0
    in_a_row: int = 0

    def add(self, fault: str, *, where: str, scaler: Any) -> str:
        """Count a step if it was skipped; return what to tell of it.

        Args:
            fault: What was not finite; empty for a sound step.
            where: Phase and step.
            scaler: Of the gradients in float16, or None.

        Raises:
            NonFiniteLossError: It is one of many, or no float16 overflow explains it.
        """
        if not fault:
            self.in_a_row = 0
            return ""
        self.n += 1
        self.in_a_row += 1
        if scaler is None or self.in_a_row >= MOST_SKIPPED:
            often = f"; it is the last of {self.in_a_row} skipped steps in a row"
            what = f"{fault} is not finite{often if self.in_a_row > 1 else ''}"
            raise NonFiniteLossError(what, where=where, hint=HINT)
        text = f"{where} was skipped whole: {fault} is not finite; gradients are scaled by"
        return f"{text} {scaler.get_scale():g} from here on"
