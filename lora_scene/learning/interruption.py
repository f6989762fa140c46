"""A signal that asks a run to stop: it is heard between two steps, a second one at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from lora_scene.errors import InterruptedRunError

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


class Interruption:
    """Whether a signal asked to stop.

    Attributes:
        number: The signal's, 0 for none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._can_wait = False

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Listen to the signals, in the main thread; outside of it they are the caller's."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
        kept: dict[int, Any] = {n: signal.getsignal(n) for n in numbers}
        for number in numbers:
            if kept[number] is not signal.SIG_IGN:  # as `nohup` leaves SIGHUP
                signal.signal(number, self._hear)
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Let a first signal wait, for as long as someone looks at `number` between steps."""
        self._can_wait = True
        try:
            yield
        finally:
            self._can_wait = False

    def _hear(self, number: int, frame: FrameType | None) -> None:
        is_second = self.number != 0
        self.number = number
        if is_second or not self._can_wait:
            raise InterruptedRunError(
                number, "the run was stopped at once", "the same command again goes on"
            )
