"""Average tensors over the processes of one machine, through shared memory.

One barrier a step and no message: on busy cores this is far cheaper than a network backend,
whose many small hand-overs each wait for a turn of the processor.
"""

from typing import Any

import torch
from torch import Tensor

CAPACITY = 2**24
"""Most values that can be averaged at once; memory is taken only as it is used."""


class Average:
    """A place where ranks meet once a step and leave with the mean of what they brought."""

    def __init__(self, n_ranks: int, context: Any) -> None:
        """Make the place.

        Args:
            n_ranks: how many processes take part.
            context: a multiprocessing context, which makes the barrier.
        """
        self._slots: Tensor = torch.zeros(2, n_ranks, CAPACITY)
        self._slots.share_memory_()  # type: ignore[no-untyped-call]
        self._barrier = context.Barrier(n_ranks)

    def mean(self, rank: int, step: int, values: Tensor) -> Tensor:
        """Return the mean over the ranks of `values`, (n,) on the CPU.

        Two slots take turns, so that a rank may write for the next step while another still
        reads; no rank gets two steps ahead, for it has to pass the barrier between.
        """
        slot = self._slots[step % 2, :, : len(values)]
        slot[rank] = values
        self._barrier.wait()
        mean: Tensor = slot.mean(0)
        return mean
