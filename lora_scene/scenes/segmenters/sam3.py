"""SAM 3: words find the mask of the surest instance (arXiv:2511.16719)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from lora_scene.scenes.mask_prompts import Prompt
from lora_scene.scenes.pictures import Mask, Pixels
from lora_scene.scenes.segmenters.networks import Network, to_photo_size, to_values

CENTRE = np.full(3, 0.5, np.float32)  # mean and deviation of its channels
MIN_SCORE = 0.3  # transformers' own default
MAX_TOKENS = 32  # the length that its text encoder was trained at


class Sam3(Network):
    """SAM 3 from a hub id or a folder; its weights are given out on request only."""

    name = "sam3"
    accepts = frozenset({"words"})
    kind = "Sam3Model"
    usual = "facebook/sam3"

    @torch.no_grad()
    def segment(self, pixels: Pixels, prompts: Sequence[Prompt]) -> Mask:
        """Ask for the instances of each phrase, and take the surest one."""
        side = int(self._network.config.vision_config.backbone_config.image_size)
        values = to_values(pixels, (side, side), mean=CENTRE, std=CENTRE)
        seen = self._network.get_vision_features(pixel_values=values.to(self._device))
        return np.stack([self._find(seen, prompt, pixels.shape[:2]) for prompt in prompts])

    def _find(self, seen: Any, prompt: Prompt, shape: tuple[int, int]) -> Mask:
        tokens = self._tokenizer(
            prompt.words,
            padding="max_length",
            max_length=MAX_TOKENS,
            truncation=True,
            return_tensors="pt",
        )
        answer = self._network(
            vision_embeds=seen,
            input_ids=tokens["input_ids"].to(self._device),
            attention_mask=tokens["attention_mask"].to(self._device),
        )
        scores = answer.pred_logits[0].sigmoid()
        if answer.presence_logits is not None:
            scores = scores * answer.presence_logits[0].sigmoid()
        best = int(scores.argmax())
        if float(scores[best]) < MIN_SCORE:
            return np.zeros(shape, dtype=np.float32)
        mask: Mask = to_photo_size(answer.pred_masks[0, best : best + 1], shape)[0]
        return mask
