"""Silence for the warnings of libraries, which takes none of this package's own along."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from lora_scene.errors import LoraSceneWarning

_turn = threading.Lock()
_within: list[contextlib.AbstractContextManager[object]] = []  # one, while anybody is in there
_n_within = 0


@contextlib.contextmanager
def quiet_warnings() -> Iterator[None]:
    """Ignore all warnings but `LoraSceneWarning`, in every thread, until the last one leaves.

    `warnings.catch_warnings` alone is not made for threads: one that enters while another is silent
    puts that silence back when it leaves, for good.
    """
    global _n_within
    with _turn:
        if not _n_within:
            kept = warnings.catch_warnings()
            kept.__enter__()
            _within.append(kept)
            own = _action_on_own()
            warnings.simplefilter("ignore")
            warnings.filterwarnings(own, category=LoraSceneWarning)
        _n_within += 1
    try:
        yield
    finally:
        with _turn:
            _n_within -= 1
            if not _n_within:
                _within.pop().__exit__(None, None, None)


def _action_on_own() -> Any:
    """Return what is done with this package's warnings now, as `warnings` calls it."""
    for action, message, category, module, line in warnings.filters:
        if message is module is None and not line and issubclass(LoraSceneWarning, category):
            return action
    return "default"
