"""MaskFormer and Mask2Former: a list of everything in the photo, to pick from.

Cheng et al., arXiv:2107.06278 and arXiv:2112.01527. Both answer with N masks and N class scores;
a pixel is the query's whose score times mask is largest (arXiv:2107.06278, section 3.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from lora_scene.errors import SegmenterError
from lora_scene.extras import optional
from lora_scene.scenes.mask_prompts import Kind, Prompt
from lora_scene.scenes.pictures import Mask, Pixels
from lora_scene.scenes.scene import INSIDE, MIN_COVERAGE
from lora_scene.scenes.segmenters.networks import (
    BUILT_IN_WAY,
    IMAGENET_MEAN,
    IMAGENET_STD,
    detector_shape,
    load_network,
    to_photo_size,
    to_values,
)
from lora_scene.scenes.segmenters.regions import Region, pick_regions

MIN_SCORE = 0.5


class MaskFormer:
    """MaskFormer from a hub id or a folder."""

    name = "maskformer"
    accepts: frozenset[Kind] = frozenset({"pick"})

    def __init__(
        self, model: str = "facebook/maskformer-swin-tiny-coco", *, device: str = "cpu"
    ) -> None:
        _need_scipy(self.name)
        from transformers import MaskFormerForInstanceSegmentation

        self._network: Any = load_network(MaskFormerForInstanceSegmentation, model, device=device)
        self._device = device

    def segment(self, pixels: Pixels, prompts: Sequence[Prompt]) -> Mask:
        """Return the masks of the picked regions."""
        return pick_regions(self.propose(pixels), prompts, shape=pixels.shape[:2])

    @torch.no_grad()
    def propose(self, pixels: Pixels) -> tuple[Region, ...]:
        """List the things and the stuff of a photo, the surest first."""
        shape = pixels.shape[:2]
        values = to_values(pixels, detector_shape(shape), mean=IMAGENET_MEAN, std=IMAGENET_STD)
        answer = self._network(pixel_values=values.to(self._device))
        scores, classes = answer.class_queries_logits[0].softmax(dim=-1).max(dim=-1)
        is_thing = classes != answer.class_queries_logits.shape[-1] - 1
        kept = (is_thing & (scores >= MIN_SCORE)).nonzero()[:, 0]
        kept = kept[scores[kept].argsort(descending=True, stable=True)]
        if not len(kept):
            return ()
        masks = to_photo_size(answer.masks_queries_logits[0, kept], shape)
        owner = (masks * scores[kept].cpu().numpy()[:, None, None]).argmax(axis=0)
        names = self._network.config.id2label
        regions = []
        for n, query in enumerate(kept.tolist()):
            mask = np.where(owner == n, masks[n], 0.0).astype(np.float32)
            if (mask >= INSIDE).mean() >= MIN_COVERAGE:
                name = str(names.get(int(classes[query]), "region"))
                regions.append(Region(name, float(scores[query]), mask))
        return tuple(regions)


class Mask2Former(MaskFormer):
    """Mask2Former from a hub id or a folder."""

    name = "mask2former"

    def __init__(
        self, model: str = "facebook/mask2former-swin-tiny-coco-panoptic", *, device: str = "cpu"
    ) -> None:
        _need_scipy(self.name)
        from transformers import Mask2FormerForUniversalSegmentation

        self._network = load_network(Mask2FormerForUniversalSegmentation, model, device=device)
        self._device = device


def _need_scipy(name: str) -> None:
    """See that a library is there that transformers asks for when it builds these networks."""
    optional("scipy", error=SegmenterError, where=f"--segmenter {name}", instead=BUILT_IN_WAY)
