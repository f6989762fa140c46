"""What a plan says: every part with its share of the time, memory, and the whole."""

from __future__ import annotations

import pytest

from lora_scene.learning.run_plan import RunPlan, Share


def plan(*parts, device_bytes=0):
    return RunPlan(
        ("<bear> bear: 1 photos", "base tiny"),
        "a new run",
        parts,
        kept_bytes=1_400_000,
        peak_bytes=690_000_000,
        device_bytes=device_bytes,
    )


def test_a_plan_tells_its_parts_and_what_they_take_together():
    made = plan(Share("phase 1 steps", 200, 0.25, "256 numbers"), Share("looks", 13, 0.1))
    assert made.seconds == pytest.approx(50 + 1.3)
    head, base, state, steps, looks, memory, kept, time = made.lines()
    assert (head, base, state) == ("<bear> bear: 1 photos", "base tiny", "a new run")
    assert steps == "  phase 1 steps     200 x   0.250 s = 0 min 50 s   256 numbers"
    assert looks == "  looks              13 x   0.100 s = 0 min 1 s"
    assert memory == "memory: 0.69 GB, of the process, measured"
    assert kept == "kept: 1.4 MB of adapters"
    assert time == "time: about 0 min 51 s; nothing was written"


@pytest.mark.parametrize(
    ("seconds", "said"), [(59.6, "1 min 0 s"), (3599.0, "59 min 59 s"), (7325.0, "2 h 2 min")]
)
def test_long_times_are_told_in_hours(seconds, said):
    *_, time = plan(Share("steps", 1, seconds)).lines()
    assert time == f"time: about {said}; nothing was written"


def test_a_device_is_told_with_all_its_memory():
    assert "memory: 0.69 GB of 24.0, measured" in plan(device_bytes=24_000_000_000).lines()
