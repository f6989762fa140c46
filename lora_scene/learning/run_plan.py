"""What a run would do, and take, in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """Something that a run does so many times.

    Attributes:
        name: What.
        n: How often.
        seconds: Each, measured.
        told: What else there is to say.
    """

    name: str
    n: int
    seconds: float
    told: str = ""


@dataclass(frozen=True)
class RunPlan:
    """What a run would do.

    Attributes:
        head: Scene, base and machine, in lines.
        state: Whether it is new, goes on, or is finished.
        parts: What takes its time.
        kept_bytes: Of adapter and snapshots together.
        peak_bytes: Memory while measured: of the device on CUDA, else of the process.
        device_bytes: The device's memory, or 0.
    """

    head: tuple[str, ...]
    state: str
    parts: tuple[Share, ...]
    kept_bytes: int
    peak_bytes: int
    device_bytes: int

    @property
    def seconds(self) -> float:
        """Return how long it would take, loading left out."""
        return sum(part.n * part.seconds for part in self.parts)

    def lines(self) -> Iterator[str]:
        """Yield the plan in words."""
        yield from self.head
        yield self.state
        for part in self.parts:
            cost = f"{part.n:6} x {part.seconds:7.3f} s = {_clock(part.n * part.seconds):>9}"
            yield f"  {part.name:14} {cost}   {part.told}".rstrip()
        of = f" of {self.device_bytes / 1e9:.1f}" if self.device_bytes else ", of the process"
        yield f"memory: {self.peak_bytes / 1e9:.2f} GB{of}, measured"
        yield f"kept: {self.kept_bytes / 1e6:.1f} MB of adapters"
        yield f"time: about {_clock(self.seconds)}; nothing was written"


def _clock(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s"
