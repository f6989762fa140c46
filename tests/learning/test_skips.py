from __future__ import annotations

from types import SimpleNamespace

import pytest

from lora_scene.errors import NonFiniteLossError
from lora_scene.learning.skips import MOST_SKIPPED, Skips

HALVED = SimpleNamespace(get_scale=lambda: 2.0**15)


def test_a_sound_step_ends_a_row_and_says_nothing():
    skips = Skips()
    told = skips.add("a gradient", where="phase 2, step 7", scaler=HALVED)
    assert told == (
        "phase 2, step 7 was skipped whole: a gradient is not finite; "
        "gradients are scaled by 32768 from here on"
    )
    assert skips == Skips(1, 1)
    assert skips.add("", where="phase 2, step 8", scaler=HALVED) == ""
    assert skips == Skips(1, 0)


def test_too_many_in_a_row_are_a_fault():
    skips = Skips(n=3)
    for step in range(1, MOST_SKIPPED):
        skips.add("a gradient", where=f"phase 1, step {step}", scaler=HALVED)
    with pytest.raises(NonFiniteLossError, match="the last of 20 skipped steps in a row"):
        skips.add("a gradient", where="phase 1, step 20", scaler=HALVED)
    assert skips == Skips(23, 20)


def test_what_no_overflow_explains_is_a_fault_at_once():
    with pytest.raises(NonFiniteLossError) as caught:
        Skips().add("the prior loss", where="phase 1, step 1", scaler=None)
    assert "the prior loss is not finite" in str(caught.value)
    assert "in a row" not in str(caught.value)
