"""Draw batches ahead in worker processes, so that an accelerator never waits for them."""

from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

Draw = Callable[[int, Any], Any]
"""(step, kind) -> batch: the same for the same arguments, in any process."""

_AHEAD_PER_WORKER = 2

_draw: Draw | None = None


@dataclass(frozen=True)
class Share:
    """One rank's share of a run: samples a step, its number, processes that draw for it."""

    batch: int
    rank: int = 0
    n_workers: int = 0


class Prefetched:
    """Calls `draw`, in this process or ahead of time in workers.

    Workers are forked, so that they share the drawings; start none after the accelerator was
    used by code that `draw` calls.
    """

    def __init__(self, draw: Draw, n_workers: int = 0) -> None:
        """Start the workers.

        Args:
            draw: draws one batch.
            n_workers: 0 draws here, when asked.
        """
        self._here = draw
        self._ahead = _AHEAD_PER_WORKER * n_workers
        self._pending: dict[tuple[int, Any], Future[Any]] = {}
        self._pool = (
            ProcessPoolExecutor(
                n_workers, get_context("fork"), initializer=_adopt, initargs=(draw,)
            )
            if n_workers
            else None
        )

    def __call__(self, step: int, kind: Any) -> Any:
        """Return the batch of a step; begin those of the next steps of the same kind."""
        if self._pool is None:
            return self._here(step, kind)
        for later in range(step, step + self._ahead):
            if (later, kind) not in self._pending:
                self._pending[later, kind] = self._pool.submit(_draw_there, later, kind)
        batch = self._pending[step, kind].result()
        self._pending = {key: value for key, value in self._pending.items() if key[0] > step}
        return batch


def _adopt(draw: Draw) -> None:
    global _draw
    _draw = draw


def _draw_there(step: int, kind: Any) -> Any:
    assert _draw is not None
    return _draw(step, kind)
