import os

import pytest

from benchmarks.mini_world.prefetch import Prefetched


def drawn(step: int, kind: str) -> tuple[int, str, int]:
    return step, kind, os.getpid()


FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="its workers are forked")


@pytest.mark.filterwarnings("ignore:.*is multi-threaded, use of fork:DeprecationWarning")  # 3.12
@pytest.mark.parametrize("n_workers", [0, pytest.param(2, marks=FORKS)])
def test_batches_come_in_order_whatever_is_drawn_ahead(n_workers: int) -> None:
    batches = Prefetched(drawn, n_workers)
    asked = [(step, "tile" if step < 4 else "scene") for step in range(9)]
    answers = [batches(*question) for question in asked]
    assert [answer[:2] for answer in answers] == asked
    assert all((answer[2] == os.getpid()) == (n_workers == 0) for answer in answers)
