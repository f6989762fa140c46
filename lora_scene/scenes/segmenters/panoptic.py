"""MaskFormer and Mask2Former: a list of everything in the photo, to pick from.

Cheng et al., arXiv:2107.06278 and arXiv:2112.01527. Both answer with N masks and N class scores;
a pixel is the query's whose score times mask is largest (arXiv:2107.06278, section 3.4).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lora_scene.errors import SegmenterError
from lora_scene.extras import optional
from lora_scene.scenes.mask_prompts import Prompt
from lora_scene.scenes.pictures import Mask, Pixels
from lora_scene.scenes.scene import INSIDE, MIN_COVERAGE
from lora_scene.scenes.segmenters.networks import (
    BUILT_IN_WAY,
    Network,
    detector_shape,
    to_photo_size,
    to_values,
)
from lora_scene.scenes.segmenters.regions import Segment, pick_regions

MIN_SCORE = 0.5


class MaskFormer(Network):
    """MaskFormer from a hub id or a folder."""

    name = "maskformer"
    accepts = frozenset({"pick"})
    kind = "MaskFormerForInstanceSegmentation"
    usual = "facebook/maskformer-swin-tiny-coco"

    def __init__(self, model: str | None = None, *, device: str = "cpu") -> None:
        asked = f"--segmenter {self.name}"  # transformers needs scipy when it builds the network
        optional("scipy", error=SegmenterError, where=asked, instead=BUILT_IN_WAY)
        super().__init__(model, device=device)

    def segment(self, pixels: Pixels, prompts: Sequence[Prompt]) -> Mask:
        """Return the masks of the picked regions."""
        return pick_regions(self.propose(pixels), prompts, shape=pixels.shape[:2])

    @torch.no_grad()
    def propose(self, pixels: Pixels) -> tuple[Segment, ...]:
        """List the things and the stuff of a photo, the surest first."""
        shape = pixels.shape[:2]
        values = to_values(pixels, detector_shape(shape))
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
                regions.append(Segment(name, float(scores[query]), mask))
        return tuple(regions)


class Mask2Former(MaskFormer):
    """Mask2Former from a hub id or a folder."""

    name = "mask2former"
    kind = "Mask2FormerForUniversalSegmentation"
    usual = "facebook/mask2former-swin-tiny-coco-panoptic"
