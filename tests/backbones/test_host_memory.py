from __future__ import annotations

import platform

import psutil
import pytest
import torch

from lora_scene.backbones.host_memory import give_back

N_MB = 400


def resident_mb() -> float:
    return psutil.Process().memory_info().rss / 2**20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators keep less")
def test_freed_weights_go_back_to_the_system() -> None:
    torch.ones(31 * 2**18)  # glibc keeps blocks up to the largest that was freed, or 32 MB
    weights = [torch.ones(2**18) for _ in range(N_MB)]
    above = torch.ones(2**18)  # so that what lies below cannot be cut off
    give_back()
    held = resident_mb()
    del weights
    kept = resident_mb()
    assert held - kept < N_MB / 2, "glibc gives it back by itself"
    give_back()
    assert kept - resident_mb() > 0.8 * N_MB
    assert above.sum() == 2**18


def test_memory_is_given_back_where_there_is_no_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    give_back()
