"""A thing on one photo: what was shown of it, what was found by that, what a brush changed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lora_scene.scenes.mask_prompts import Prompt
from lora_scene.scenes.pictures import Mask

Touches = npt.NDArray[np.int8]  # (H, W): 1 painted in, -1 painted out, 0 as the segmenter says


@dataclass(frozen=True, eq=False)
class Proposal:
    """A thing on one photo.

    Attributes:
        prompt: What was shown of it; nothing where the mask came with its scene.
        mask: (H, W), what the segmenter made of that, or was given.
        touches: What a brush changed of the mask; None for nothing.
    """

    prompt: Prompt
    mask: Mask
    touches: Touches | None = None

    @property
    def shown(self) -> Mask:
        """Return the mask (H, W) with the brush's changes."""
        if self.touches is None:
            return self.mask
        return np.where(self.touches > 0, 1.0, np.where(self.touches < 0, 0.0, self.mask)).astype(
            np.float32
        )

    @property
    def is_given(self) -> bool:
        """Tell whether the mask was given: no mark could bring it back."""
        return not self.prompt.kinds and bool(self.mask.any())

    def with_part(self, part: Mask) -> Proposal:
        """Lay a part (H, W) over the mask."""
        return replace(self, mask=np.maximum(self.mask, part))

    def without_part(self, part: Mask) -> Proposal:
        """Take a part (H, W) from the mask."""
        return replace(self, mask=np.minimum(self.mask, 1.0 - part))
