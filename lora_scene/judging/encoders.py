"""Pictures and texts as unit vectors: what every similarity here is computed from.

identity   what tells this bear from another bear: DINO, or the embedded judge
captions   how well a picture does what a text says: CLIP, or the embedded judge
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from lora_scene.errors import JudgingError
from lora_scene.scenes.pictures import Pixels
from lora_scene.scenes.segmenters.networks import reach_options

Vectors = npt.NDArray[np.float32]

CLIP = "openai/clip-vit-large-patch14"  # Break-A-Scene, section 4
DINO = "facebook/dino-vitb16"  # Break-A-Scene, section 4
BATCH = 16  # pictures a forward pass


class PictureEncoder(Protocol):
    """Turns pictures into vectors whose cosine says how alike their subjects are."""

    @property
    def name(self) -> str:
        """Which network it is."""

    def embed_pictures(self, pictures: Sequence[Pixels]) -> Vectors:
        """Return (n, d) float32 rows of unit length for n pictures (H, W, 3) uint8."""


class CaptionEncoder(PictureEncoder, Protocol):
    """Turns pictures and texts into vectors whose cosine says how well they go together."""

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Return (n, d) float32 rows of unit length for n texts."""


class _Network:
    """A network of transformers that embeds pictures; `_features` says by what of it."""

    def __init__(
        self, source: str | Path, device: str, *, kind: str, processor: str, what: str
    ) -> None:
        import transformers

        self.name, self.device = str(source), device
        with weights_of(source, what):
            found = getattr(transformers, kind)
            reach = reach_options(source, is_network=True)
            model = found.from_pretrained(source, use_safetensors=True, **reach)
            self.model: Any = model.eval().to(device)
            self.processor: Any = load_processor(processor, source)

    @torch.no_grad()
    def embed_pictures(self, pictures: Sequence[Pixels]) -> Vectors:
        """Return (n, d) unit rows for n pictures (H, W, 3) uint8."""
        return in_batches(pictures, lambda batch: self._features(self.pixel_values(batch)))

    def pixel_values(self, pictures: Sequence[Pixels]) -> Tensor:
        """Return (n, 3, S, S), scaled as the network wants them."""
        values: Tensor = self.processor(list(pictures), return_tensors="pt").pixel_values
        return values.to(self.device)

    def _features(self, values: Tensor) -> Tensor:
        raise NotImplementedError


class ClipEncoder(_Network):
    """CLIP (arXiv:2103.00020): the projected embeddings of both towers.

    Args:
        source: Hub id or folder.
        device: Where it computes.

    Raises:
        JudgingError: The weights cannot be had.
    """

    def __init__(self, source: str | Path = CLIP, *, device: str = "cpu") -> None:
        from transformers import CLIPTokenizerFast

        super().__init__(
            source, device, kind="CLIPModel", processor="CLIPImageProcessor", what="CLIP"
        )
        with weights_of(source, "CLIP"):
            self.tokenizer: Any = CLIPTokenizerFast.from_pretrained(source, **reach_options(source))

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Return (n, d) unit rows for n texts."""

        def embed(batch: Sequence[str]) -> Tensor:
            length = self.model.config.text_config.max_position_embeddings
            tokens = self.tokenizer(
                list(batch),
                padding="max_length",
                max_length=length,
                truncation=True,
                return_tensors="pt",
            )
            return pooled(self.model.get_text_features(input_ids=tokens.input_ids.to(self.device)))

        return in_batches(texts, embed)

    def embed_tensor(self, pictures: Tensor) -> Tensor:
        """Return unit rows (n, d) for pictures (n, 3, H, W) in 0..1; gradients flow."""
        side = self.model.config.vision_config.image_size
        height, width = (resizing(n, side).to(pictures.device) for n in pictures.shape[-2:])
        resized = height @ pictures.float() @ width.T
        mean, spread = (
            torch.tensor(values).view(3, 1, 1).to(resized)
            for values in (self.processor.image_mean, self.processor.image_std)
        )
        return F.normalize(self._features((resized - mean) / spread), dim=-1)

    def _features(self, values: Tensor) -> Tensor:
        return pooled(self.model.get_image_features(pixel_values=values))


class DinoEncoder(_Network):
    """DINO (arXiv:2104.14294): the class token after the last layer.

    Args:
        source: Hub id or folder of a `ViTModel` or another model with a class token.
        device: Where it computes.

    Raises:
        JudgingError: The weights cannot be had.
    """

    def __init__(self, source: str | Path = DINO, *, device: str = "cpu") -> None:
        super().__init__(
            source, device, kind="AutoModel", processor="ViTImageProcessor", what="DINO"
        )

    def _features(self, values: Tensor) -> Tensor:
        states: Tensor = self.model(pixel_values=values).last_hidden_state
        return states[:, 0]


def in_batches(items: Sequence[Any], embed: Callable[[Sequence[Any]], Tensor]) -> Vectors:
    """Embed items `BATCH` at a time; return their rows, scaled to unit length."""
    rows = [
        F.normalize(embed(items[start : start + BATCH]).float(), dim=-1).cpu().numpy()
        for start in range(0, len(items), BATCH)
    ]
    return np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)


@functools.lru_cache
def resizing(n: int, side: int) -> Tensor:
    """Return what makes n pixels in a row `side`, (side, n): bilinear, antialiased.

    As a product, for torch's own kernel has no gradient on MPS.
    """
    one = torch.eye(n)[None, None]
    return F.interpolate(one, (side, n), mode="bilinear", antialias=True)[0, 0]


def pooled(features: Any) -> Tensor:
    """Return the embedding, whether transformers gives it bare (4.x) or in an output (5.x)."""
    tensor: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return tensor


def load_processor(kind: str, source: str | Path) -> Any:
    """Load an image processor that works by Pillow: torchvision is not asked for."""
    import transformers

    found = getattr(transformers, f"{kind}Pil", None) or getattr(transformers, kind)
    return found.from_pretrained(source, **reach_options(source))


@contextlib.contextmanager
def weights_of(source: str | Path, what: str) -> Iterator[None]:
    """Turn the library's loading errors into one sentence."""
    from lora_scene.backbones.loading import quiet_libraries

    try:
        with quiet_libraries():
            yield
    except (OSError, ValueError, KeyError) as error:
        lines = str(error).strip().splitlines()
        is_folder = os.path.isdir(source)
        raise JudgingError(
            f"the weights of {what} cannot be had",
            where=source,
            expected="a folder or hub id that transformers loads, with safetensors: no pickles",
            got=f"{type(error).__name__}: {lines[0] if lines else ''}",
            hint="the folder is incomplete"
            if is_folder
            else "check the connection, give a folder, or take --judge mini, "
            "which is part of this package",
        ) from error
