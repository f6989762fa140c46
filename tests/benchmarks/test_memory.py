from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from benchmarks.memory import imitate
from lora_scene.learning.simulation import CONTEXT


@pytest.mark.parametrize(("device", "index"), [("cuda", 2), ("cuda:0", 0)])
def test_a_smaller_card_is_imitated_on_a_device_with_and_without_an_index(
    monkeypatch, device, index
) -> None:
    limits = []
    card = SimpleNamespace(total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda n: card)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *a: limits.append(a))
    imitate(8, device)
    assert limits == [((8 * 2**30 - CONTEXT) / (80 * 2**30), index)]
    with pytest.raises(ValueError, match="cannot be imitated"):
        imitate(96, device)
