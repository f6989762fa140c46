"""Signals that ask a run to stop, or for a look: heard between two steps, a second one at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from lora_scene.errors import InterruptedRunError

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # Windows has the last, but no SIGHUP
WISH = "SIGUSR1"  # nor this one


class Interruption:
    """Whether a signal asked to stop, or for sample pictures and a snapshot.

    Attributes:
        number: Of the signal that asked to stop, 0 for none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._can_wait = False
        self._is_wished = False
        self._stopped: InterruptedRunError | None = None

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Listen to the signals, in the main thread; outside of it they are the caller's."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [getattr(signal, name) for name in (*NAMES, WISH) if hasattr(signal, name)]
        kept: dict[int, Any] = {n: signal.getsignal(n) for n in numbers}
        for number in numbers:
            if kept[number] is not signal.SIG_IGN:  # as `nohup` leaves SIGHUP
                is_wish = number == getattr(signal, WISH, None)
                signal.signal(number, self._wish if is_wish else self._hear)
        try:
            yield
        except Exception as error:
            if self._stopped is None or isinstance(error, InterruptedRunError):
                raise
            raise self._stopped from None  # which a library turned into an error of its own
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Let a first signal wait, for as long as someone looks at `number` between steps.

        Raises:
            InterruptedRunError: See `obey`.
        """
        self.obey()
        self._can_wait = True
        try:
            yield
        finally:
            self._can_wait = False

    def obey(self) -> None:
        """Stop where a signal asked for it at once, and a library swallowed that and went on.

        Raises:
            InterruptedRunError: One did: what it left half done is not to be kept.
        """
        if self._stopped is not None:
            raise self._stopped

    def takes_wish(self) -> bool:
        """Tell whether a look was asked for, and forget it."""
        was_wished, self._is_wished = self._is_wished, False
        return was_wished

    def _wish(self, number: int, frame: FrameType | None) -> None:
        self._is_wished = True

    def _hear(self, number: int, frame: FrameType | None) -> None:
        is_second = self.number != 0
        self.number = number
        if is_second or not self._can_wait:
            self._stopped = InterruptedRunError(
                number, "the run was stopped at once", "the same command again goes on"
            )
            raise self._stopped
