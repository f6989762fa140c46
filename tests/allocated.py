"""The peak of memory as torch's own allocator tells it."""

from __future__ import annotations

import json
from pathlib import Path

from torch.profiler import ProfilerActivity, profile


def allocated_peak(work, path: Path) -> int:
    """Return the peak that torch's CPU allocator reports to its profiler: not our own count."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    recorded.export_chrome_trace(str(path))
    events = json.loads(path.read_text("utf-8"))["traceEvents"]
    totals = [
        (event["ts"], event["args"]["Total Allocated"], event["args"]["Bytes"])
        for event in events
        if event.get("name") == "[memory]" and event["args"].get("Device Type") == 0
    ]
    assert totals
    live = peak = 0
    for _, _, size in sorted(totals):
        live += size
        peak = max(peak, live)
    return peak
