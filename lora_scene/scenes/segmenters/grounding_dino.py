"""Grounding DINO and SAM: words find a box, the box finds the mask.

Liu et al., *Grounding DINO* (arXiv:2303.05499).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from lora_scene.scenes.mask_prompts import Box, Prompt
from lora_scene.scenes.pictures import Mask, Pixels
from lora_scene.scenes.segmenters.networks import Network, detector_shape, to_values
from lora_scene.scenes.segmenters.segmenter import Segmenter

MIN_SCORE = 0.25  # the authors' own threshold


class GroundingDino(Network):
    """Grounding DINO from a hub id or a folder, and a segmenter that follows its boxes."""

    name = "grounding-dino"
    accepts = frozenset({"words"})
    kind = "GroundingDinoForObjectDetection"
    usual = "IDEA-Research/grounding-dino-tiny"

    def __init__(
        self, model: str | None = None, *, follower: Segmenter, device: str = "cpu"
    ) -> None:
        super().__init__(model, device=device)
        self._follower = follower

    def segment(self, pixels: Pixels, prompts: Sequence[Prompt]) -> Mask:
        """Find the best box for each phrase, and let the follower cut it out."""
        masks = np.zeros((len(prompts), *pixels.shape[:2]), dtype=np.float32)
        boxes = {k: self._find(pixels, prompt.words or "") for k, prompt in enumerate(prompts)}
        boxed = {k: replace(prompts[k], box=box, words=None) for k, box in boxes.items() if box}
        if boxed:
            masks[list(boxed)] = self._follower.segment(pixels, list(boxed.values()))
        return masks

    @torch.no_grad()
    def _find(self, pixels: Pixels, words: str) -> Box | None:
        """Return the surest box for a phrase, in pixels of the photo, or None."""
        caption = words.lower().strip().rstrip(".") + "."
        tokens = self._tokenizer(caption, return_tensors="pt")
        values = to_values(pixels, detector_shape(pixels.shape[:2]))
        answer = self._network(
            pixel_values=values.to(self._device),
            input_ids=tokens["input_ids"].to(self._device),
            attention_mask=tokens["attention_mask"].to(self._device),
        )
        scores = answer.logits[0].sigmoid().amax(dim=1)
        best = int(scores.argmax())
        if float(scores[best]) < MIN_SCORE:
            return None
        x, y, across, down = answer.pred_boxes[0, best].tolist()
        height, width = pixels.shape[:2]
        return Box(
            max((x - across / 2) * width, 0.0),
            max((y - down / 2) * height, 0.0),
            min((x + across / 2) * width, float(width)),
            min((y + down / 2) * height, float(height)),
        )
