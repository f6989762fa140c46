from __future__ import annotations

import torch

from benchmarks.step_time import arithmetic, measure, measure_what_fits


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


def test_what_does_not_fit_together_is_measured_apart_and_alone_told() -> None:
    alive: list[str] = []

    def maker(name: str):
        def make():
            if alive or name == "large":
                alive.clear()
                raise torch.OutOfMemoryError("CUDA out of memory")
            alive.append(name)
            return alive.clear

        return make

    makers = {(name, 1): maker(name) for name in ("a", "b", "large")}
    found = list(measure_what_fits(makers, repeats=2, device="cpu", apart=False))
    assert [(name, figures is not None, apart) for (name, _), figures, apart in found] == [
        ("a", True, True),
        ("b", True, True),
        ("large", False, True),
    ]
