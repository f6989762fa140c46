"""SAM 3: words find the mask of the surest instance (arXiv:2511.16719)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from lora_scene.scenes.mask_prompts import Kind, Prompt
from lora_scene.scenes.pictures import Mask, Pixels
from lora_scene.scenes.segmenters.networks import (
    CENTRED_MEAN,
    CENTRED_STD,
    load,
    load_network,
    to_photo_size,
    to_values,
)

MIN_SCORE = 0.3  # transformers' own default
MAX_TOKENS = 32  # the length that its text encoder was trained at


class Sam3:
    """SAM 3 from a hub id or a folder; its weights are given out on request only."""

    name = "sam3"
    accepts: frozenset[Kind] = frozenset({"words"})

    def __init__(self, model: str = "facebook/sam3", *, device: str = "cpu") -> None:
        from transformers import AutoTokenizer, Sam3Model

        self._tokenizer: Any = load(AutoTokenizer, model)
        self._network: Any = load_network(Sam3Model, model, device=device)
        self._device = device

    @torch.no_grad()
    def segment(self, pixels: Pixels, prompts: Sequence[Prompt]) -> Mask:
        """Ask for the instances of each phrase, and take the surest one."""
        side = int(self._network.config.vision_config.backbone_config.image_size)
        values = to_values(pixels, (side, side), mean=CENTRED_MEAN, std=CENTRED_STD).to(
            self._device
        )
        seen = self._network.get_vision_features(pixel_values=values)
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
