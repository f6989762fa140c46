"""What a segmenter is: it follows prompts, and some can list what there is to pick."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from lora_scene.scenes.mask_prompts import Kind, Prompt
from lora_scene.scenes.pictures import Mask, Pixels
from lora_scene.scenes.segmenters.regions import Segment


class Segmenter(Protocol):
    """Turns prompts into masks."""

    @property
    def name(self) -> str:
        """The name that `--segmenter` knows."""

    @property
    def accepts(self) -> frozenset[Kind]:
        """The kinds of prompts that it follows."""

    def segment(self, pixels: Pixels, prompts: Sequence[Prompt]) -> Mask:
        """Return (K, H, W) float32 masks in 0..1 for K prompts; they may overlap, or be empty.

        Args:
            pixels: (H, W, 3) uint8, upright.
            prompts: One per concept, checked by `check_prompts`.
        """


@runtime_checkable
class Lister(Segmenter, Protocol):
    """A segmenter that can list regions without any prompt."""

    def propose(self, pixels: Pixels) -> tuple[Segment, ...]:
        """Return the regions of a photo (H, W, 3), the surest first."""
