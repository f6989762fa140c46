"""Prompts with a place: `{}` stands for what they name, and no other brace for anything."""

from __future__ import annotations

PLACE = "{}"


def fill(template: str, named: str) -> str:
    """Put what is named at each place."""
    return template.replace(PLACE, named)


def is_template(text: str) -> bool:
    """Tell whether a text has one place, and no other brace."""
    return text.count(PLACE) == 1 and not has_other_braces(text)


def has_other_braces(text: str) -> bool:
    """Tell whether a text has a brace that is of no place."""
    return not {"{", "}"}.isdisjoint(fill(text, ""))
