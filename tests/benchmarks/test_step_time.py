from __future__ import annotations

import torch

from benchmarks.step_time import arithmetic, measure


def test_arithmetic_counts_forward_and_backward() -> None:
    layer = torch.nn.Linear(8, 4, bias=False)
    given = torch.ones(3, 8)
    product = 2 * 3 * 8 * 4
    assert arithmetic(lambda: layer(given)) == product
    assert arithmetic(lambda: layer(given).sum().backward()) == 2 * product


def test_every_variant_is_timed_as_often_as_asked_for() -> None:
    calls: list[str] = []
    makers = {(name, 1): lambda name=name: lambda: calls.append(name) for name in ("a", "b")}
    measured = measure(makers, repeats=3, device="cpu")
    assert [len(times) for _, times in measured.values()] == [3, 3]
    assert calls[:4] == ["a", "b", "a", "b"]  # interleaved, whatever the machine does meanwhile
