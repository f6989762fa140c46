"""Pictures and texts as unit vectors: what every similarity here is computed from.

identity   what tells this bear from another bear: DINO, or the embedded judge
captions   how well a picture does what a text says: CLIP, or the embedded judge
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from lora_scene.backbones.completeness import knows_its_words
from lora_scene.errors import JudgingError
from lora_scene.faults import is_out_of_memory
from lora_scene.scenes.pictures import Pixels
from lora_scene.scenes.segmenters.networks import reach_options

Vectors = npt.NDArray[np.float32]

CLIP = "openai/clip-vit-large-patch14"  # Break-A-Scene, section 4
DINO = "facebook/dino-vitb16"  # Break-A-Scene, section 4
BATCH = 16  # pictures a forward pass
UNREAD = ("pooler", "mask_token")  # parts that files may lack: no embedding reads them
CLASS_TOKENS = ("cls_token", "class_token", "class_embedding")  # what networks call its weight


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
            model, told = found.from_pretrained(
                source, use_safetensors=True, output_loading_info=True, **reach
            )
            _refuse_gaps(told["missing_keys"], source, what)
            self.model: Any = model.eval().to(device)
            self.processor: Any = load_processor(processor, source)
            self._try(what)

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

    def _try(self, what: str) -> None:
        """Embed an empty picture: a network that cannot is told before pictures are drawn."""
        try:
            vectors = self.embed_pictures([np.zeros((8, 8, 3), np.uint8)])
        except (TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            raise JudgingError(
                f"{what} cannot embed pictures: a network of another kind",
                where=self.name,
                got=f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}",
            ) from error
        if vectors.ndim != 2 or not np.isfinite(vectors).all():
            raise JudgingError(f"{what} makes no vectors of pictures", where=self.name)


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
        n_rows = int(self.model.config.text_config.vocab_size)
        if not knows_its_words(self.tokenizer, n_rows):
            raise JudgingError(
                "the tokenizer of CLIP is not its own, or its files are missing",
                where=source,
                expected=f"{n_rows:,} tokens",
                got=f"{len(self.tokenizer):,}",
            )

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
        names = [name for name, _ in self.model.named_parameters()]
        if not any(name.endswith(CLASS_TOKENS) for name in names):
            raise JudgingError(
                "a network without a class token: its first place would be taken for the picture",
                where=source,
                expected="DINO, DINOv2 or another vision transformer with one",
                got=type(self.model).__name__,
            )

    def _features(self, values: Tensor) -> Tensor:
        states: Tensor = self.model(pixel_values=values).last_hidden_state
        return states[:, 0]


def _refuse_gaps(missing: Collection[str], source: str | Path, what: str) -> None:
    """Refuse a network whose file lacks weights: the library draws them at random."""
    lacking = sorted(name for name in missing if not any(part in name for part in UNREAD))
    if lacking:
        raise JudgingError(
            f"{what} lacks {len(lacking)} of its weights, or is a network of another kind",
            where=source,
            got=f"no {lacking[0]}",
        )


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
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
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
