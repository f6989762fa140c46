"""CLIPSeg: words; light, and coarse, so that its edges are made to follow the photo's.

Lüddecke and Ecker, *Image segmentation using text and image prompts* (arXiv:2112.10003).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lora_scene.scenes.mask_prompts import Prompt
from lora_scene.scenes.pictures import Mask, Pixels
from lora_scene.scenes.refine import finish
from lora_scene.scenes.segmenters.networks import Network, to_values

SIDE = 352  # the size that it was trained at, pixels
THRESHOLD = 0.4  # of its probability; it is seldom sure
REACH = 8.0  # how far an edge may move, pixels of its heat map


class ClipSeg(Network):
    """CLIPSeg from a hub id or a folder."""

    name = "clipseg"
    accepts = frozenset({"words"})
    kind = "CLIPSegForImageSegmentation"
    usual = "CIDAS/clipseg-rd64-refined"

    @torch.no_grad()
    def segment(self, pixels: Pixels, prompts: Sequence[Prompt]) -> Mask:
        """Ask for a heat map a phrase; a pixel is the surest concept's, where any is sure."""
        words = [prompt.words for prompt in prompts]
        tokens = self._tokenizer(words, padding=True, truncation=True, return_tensors="pt")
        values = to_values(pixels, (SIDE, SIDE))
        logits = self._network(
            input_ids=tokens["input_ids"].to(self._device),
            attention_mask=tokens["attention_mask"].to(self._device),
            pixel_values=values.repeat(len(prompts), 1, 1, 1).to(self._device),
            interpolate_pos_encoding=True,
        ).logits
        heat = logits.reshape(len(prompts), *logits.shape[-2:]).sigmoid().cpu().numpy()
        surest = heat.argmax(axis=0)
        return np.stack(
            [
                finish((heat[k] >= THRESHOLD) & (surest == k), pixels, reach=REACH, growth=0.0)
                for k in range(len(prompts))
            ]
        )
