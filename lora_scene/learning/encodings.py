"""Encoded prompts, kept for as long as nothing that they come from is trained."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch

from lora_scene.backbones.backbone import Backbone, TextEncoding

LIMIT = 128  # of kept prompts; on SDXL each takes 0.3 MB in 16 bits


class EncodingCache:
    """Encodes prompts without gradients and remembers the latest ones.

    Args:
        backbone: The base; its text encoders and rows must not change meanwhile.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._kept: OrderedDict[str, TextEncoding] = OrderedDict()

    def encode(self, prompts: Sequence[str]) -> TextEncoding:
        """Return the prompts' encodings, one after the other."""
        found = [self._one(prompt) for prompt in prompts]
        together = found[0]
        for encoding in found[1:]:
            together = together.append(encoding)
        return together

    @torch.no_grad()
    def _one(self, prompt: str) -> TextEncoding:
        if prompt not in self._kept:
            self._kept[prompt] = self._backbone.encode_tokens(self._backbone.tokenize([prompt]))
        self._kept.move_to_end(prompt)
        if len(self._kept) > LIMIT:
            self._kept.popitem(last=False)
        return self._kept[prompt]
