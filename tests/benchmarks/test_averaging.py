import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from benchmarks.mini_world.averaging import Average


def test_every_rank_leaves_with_the_mean_of_every_step() -> None:
    average = Average(3, threading)

    def rank_means(rank: int) -> list[float]:
        steps = range(50)
        return [average.mean(rank, s, torch.tensor([rank + 10.0 * s])).item() for s in steps]

    with ThreadPoolExecutor(3) as pool:
        for means in pool.map(rank_means, range(3)):
            assert means == [1 + 10.0 * step for step in range(50)]
