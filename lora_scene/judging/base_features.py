"""A judge that is always at hand: what the frozen base itself sees in pictures.

Pictures are encoded, a little noise is added, and the UNet's deepest features, averaged over the
picture, are taken for its likeness (after DIFT, arXiv:2306.03881, which reads features of the up
blocks place by place). A text is what the untouched base draws from it. Coarser than CLIP and DINO:
good for comparing pictures of one adapter with each other, no measure beside others' figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from lora_scene.creating.rendering import render
from lora_scene.creating.requests import Request, Sampling
from lora_scene.creating.studio import Studio
from lora_scene.judging.encoders import Vectors
from lora_scene.judging.judge import Judge
from lora_scene.scenes.pictures import Pixels

NAME = "the base's own features"
SHARE = 0.25  # of the timesteps: enough noise that shapes count, not pixels
SEEDS = (0, 1)  # of the pictures that stand for a text
FLOOR = 0.0  # nothing is called missing: these cosines have no scale that was measured


class BaseFeatures:
    """Turns pictures and texts into the base's own features; adapters weigh nothing meanwhile.

    Args:
        studio: The base, with or without adapters.
        sampling: How pictures of texts are drawn.
    """

    def __init__(self, studio: Studio, sampling: Sampling) -> None:
        self._studio = studio
        self._sampling = sampling
        self._mean: Vectors | None = None

    @property
    def name(self) -> str:
        """Return what it is."""
        return NAME

    @torch.no_grad()
    def embed_pictures(self, pictures: Sequence[Pixels]) -> Vectors:
        """Return (n, d) float32 rows of unit length for n pictures (H, W, 3) uint8."""
        if not pictures:
            return np.zeros((0, 0), np.float32)
        with self._studio.weighted(0.0):
            rows = np.stack([self._features(pixels) for pixels in pictures])
        if self._mean is None:  # what all pictures share says nothing: the first batch's mean goes
            self._mean = rows.mean(axis=0) if len(rows) > 1 else np.zeros_like(rows[0])
        rows = rows - self._mean
        unit: Vectors = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        return unit

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Return (n, d) unit rows: of what the untouched base draws from n texts."""
        drawn = {text: self._picture_of(text) for text in dict.fromkeys(texts)}
        return np.stack([drawn[text] for text in texts])

    def _picture_of(self, text: str) -> Vectors:
        asked = [Request(text, seed, weight=0.0, sampling=self._sampling) for seed in SEEDS]
        rows = self.embed_pictures(render(self._studio, asked).pixels).sum(axis=0)
        unit: Vectors = rows / max(float(np.linalg.norm(rows)), 1e-9)
        return unit

    def _features(self, pixels: Pixels) -> Vectors:
        """Return the mid block's output for one picture, averaged over places, (d,)."""
        backbone, kept = self._studio.backbone, []
        side = backbone.resolution
        square = ImageOps.pad(Image.fromarray(pixels), (side, side), color=(127, 127, 127))
        z = backbone.encode_picture(np.array(square)).mean[None].to(backbone.device)
        t = torch.tensor([round(SHARE * (backbone.n_timesteps - 1))], device=z.device)
        eps = torch.randn(z.shape, generator=torch.Generator().manual_seed(0)).to(z)

        def keep(module: torch.nn.Module, args: Any, output: torch.Tensor) -> None:
            kept.append(output.float().mean(dim=(2, 3))[0].cpu().numpy())

        hook = backbone.unet.mid_block.register_forward_hook(keep)
        try:
            text = backbone.encode_tokens(backbone.tokenize([""]))
            backbone.denoise(backbone.add_noise(z, eps, t), t, text)
        finally:
            hook.remove()
        features: Vectors = kept[0]
        return features


def base_judge(studio: Studio, sampling: Sampling) -> Judge:
    """Return the judge that needs no other network."""
    features = BaseFeatures(studio, sampling)
    return Judge(NAME, features, features, None, FLOOR)
