"""Handles renamed, so that adapters which share one can be used together."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lora_scene.adapters.adapter import Adapter
from lora_scene.errors import AdapterError, did_you_mean

RENAME_HELP = "OLD=NEW, such as ground=lawn, or 2:ground=lawn for the second adapter"

_FORM = re.compile(r"(?:(\d{1,4}):)?<?([\w-]+)>?=<?([\w-]+)>?", re.ASCII)


def parse_renames(texts: Sequence[str], adapters: Sequence[Adapter]) -> tuple[dict[str, str], ...]:
    """Read renamings of handles, for `Adapter.renamed` and `load_adapter`.

    Args:
        texts: Each `OLD=NEW`, of the last adapter that has OLD, or `N:OLD=NEW`, of the N-th;
            brackets may be left out.
        adapters: In the order in which they are used.

    Returns:
        Old handle to new handle, one table an adapter.

    Raises:
        AdapterError: A text of another form, a handle that no such adapter has, or one that gets
            two names.
    """
    renames: tuple[dict[str, str], ...] = tuple({} for _ in adapters)
    for text in texts:
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise AdapterError("not a renaming", where=text, expected=RENAME_HELP)
        number, old, new = match[1], f"<{match[2]}>", f"<{match[3]}>"
        if number is not None and not 1 <= int(number) <= len(adapters):
            raise AdapterError("no such adapter", where=text, expected=f"1 to {len(adapters)}")
        places = range(len(adapters)) if number is None else [int(number) - 1]
        owners = [place for place in places if old in adapters[place].handles]
        if not owners:
            known = [handle for place in places for handle in adapters[place].handles]
            raise AdapterError(
                f"no adapter has the handle {old}",
                where=text,
                expected=", ".join(known),
                hint=did_you_mean(old, known),
            )
        given = renames[owners[-1]].setdefault(old, new)
        if given != new:
            hint = "N:OLD=NEW renames it in the N-th adapter" if len(adapters) > 1 else None
            raise AdapterError(f"{old} gets two names", where=text, got=f"{given} too", hint=hint)
    return renames
