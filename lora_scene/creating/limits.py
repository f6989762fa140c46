"""How large the numbers of a request may be; checked before anything is loaded."""

from __future__ import annotations

from lora_scene.errors import CreationError

MAX_STEPS = 1000  # timesteps that Stable Diffusion is trained on
MAX_SEED = 2**63 - 1
MAX_GUIDANCE = 100.0
MAX_AMOUNT = 1000.0  # of weights, strengths and emphases: beyond is noise, or black
SIDES = (8, 8192)  # pixels; what divides is told by the base


def check_range(name: str, value: int, low: int, high: int) -> None:
    """Refuse a whole number outside a range.

    Raises:
        CreationError: It is outside.
    """
    if not low <= value <= high:
        expected = f"at least {low}" if value < low else f"at most {high}"
        raise CreationError("a number out of range", where=name, expected=expected, got=value)


def check_number(name: str, value: float, most: float = MAX_AMOUNT) -> None:
    """Refuse what is not a number, and what is so large that it draws nothing.

    Raises:
        CreationError: It is.
    """
    if not abs(value) <= most:
        expected = f"a number from {-most:g} to {most:g}"
        raise CreationError("no such amount", where=name, expected=expected, got=value)
