"""Trainings and pictures on the device that is not there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.clip_folder import clip_folder as clip_folder
from tests.devices import absent, mps

HERE = Path(__file__).parent

if not torch.cuda.is_available():  # autograd knows one kind of device: a real one comes first
    absent.register()  # before any test: it looks for devices once, when it is first used


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the absent device where a real one is."""
    if torch.cuda.is_available():
        for item in items:
            if item.path.parent == HERE and item.get_closest_marker("gpu") is None:
                item.add_marker(pytest.mark.skip(reason="a CUDA device is in its place"))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[absent.Counts]:
    """Give the device's counts; every module of the package takes its name for one that exists.

    Whatever ran on it, a Mac's GPU runs too.
    """
    import lora_scene.learning.training  # noqa: F401
    from lora_scene.learning import phases

    monkeypatch.setattr(phases, "mixed_precision", absent.scaled(phases.mixed_precision))
    for name, module in list(sys.modules.items()):
        if name.startswith("lora_scene.") and hasattr(module, "resolve_device"):
            known = module.resolve_device
            monkeypatch.setattr(
                module,
                "resolve_device",
                lambda asked, known=known: asked if asked == absent.NAME else known(asked),
            )
    with absent.absent_device() as counts:
        yield counts
    assert not mps.lacking(counts.operations)
