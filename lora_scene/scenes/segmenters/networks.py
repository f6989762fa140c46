"""What the network segmenters share: loading, preparing pixels, bringing logits to photo size."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from lora_scene.errors import LoraSceneWarning, SegmenterError
from lora_scene.scenes.mask_prompts import Kind
from lora_scene.scenes.pictures import Mask, Pixels

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)

SHORTER, LONGER = 800, 1333  # pixels: a detector's shorter side, and the most of the longer one
TIMEOUT = 10  # seconds to wait for the hub's first answer

Channels = npt.NDArray[np.float32]

BUILT_IN_WAY = (
    "the built-in segmenter needs no weights: give each concept a box, "
    "--box bear=left,top,right,bottom, or for better edges a box and two points"
)


def reach_options(source: object, *, is_network: bool = False) -> dict[str, Any]:
    """Return what `from_pretrained` shall be told: of a hub that does not answer, the cache alone.

    The hub is asked once, with a time limit: libraries ask six times and wait between.

    Args:
        source: A hub id or a local folder.
        is_network: Whether a network is loaded: transformers looks for a LoRA beside it, and asks
            for that by options of its own.
    """
    from huggingface_hub import HfApi

    if Path(str(source)).is_dir():
        return {}
    try:
        HfApi().model_info(str(source), timeout=TIMEOUT)
    except Exception as error:  # of whichever HTTP library the hub's client is built on
        if getattr(error, "response", None) is None and not isinstance(error, ValueError):
            alone = {"local_files_only": True}
            return {**alone, "adapter_kwargs": alone} if is_network else alone
    return {}


def load(kind: Any, model: str, **options: Any) -> Any:
    """Call `kind.from_pretrained(model)`; the class comes from transformers.

    Args:
        kind: A model, tokenizer or processor class.
        model: A hub id or a local folder.
        options: What else from_pretrained takes.

    Raises:
        SegmenterError: The weights are not there and cannot be had, or are of another kind.
    """
    try:
        with _quiet():
            reach = reach_options(model, is_network="use_safetensors" in options)
            return kind.from_pretrained(model, **reach, **options)
    except ImportError as error:  # some networks ask for more than transformers itself
        raise SegmenterError(
            "a library that the segmenter needs is not installed",
            where=model,
            got=" ".join(str(error).split()),
            hint=f"pip install what it names; {BUILT_IN_WAY}",
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise SegmenterError(
            "the segmenter's weights cannot be had",
            where=model,
            expected=f"a hub id or a folder with safetensors that {kind.__name__} can read",
            got=first_line,
            hint=BUILT_IN_WAY,
        ) from error


def load_network(kind: Any, model: str, *, device: str) -> Any:
    """Load a network for inference, as `load` does, and bring it to a device.

    From safetensors alone: a pickle, as in a `.bin`, could run anything. A `LoraSceneWarning` tells
    of weights that are not in the files, which transformers draws at random.

    Raises:
        SegmenterError: As in `load`, or the device is not there.
    """
    network, told = load(kind, model, use_safetensors=True, output_loading_info=True)
    missing = sorted(told["missing_keys"])
    if missing:
        found = f"{len(missing)} of its tensors are not in the files, such as {missing[0]}"
        text = f"{model}: {found}; they are drawn at random, and its masks may mean nothing"
        warnings.warn(text, LoraSceneWarning, stacklevel=3)
    try:
        return network.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        raise SegmenterError(
            "the segmenter cannot run there",
            where=f"device {device}",
            expected="cpu, cuda or mps, where this machine has it",
            got=str(error).splitlines()[0],
        ) from error


class Network:
    """A segmenter that is a network of transformers, from a hub id or a folder.

    Attributes:
        name: As `--segmenter` knows it.
        accepts: The prompts that it follows.
        kind: Its class in transformers.
        usual: Hub id of its usual weights.
    """

    name: str
    accepts: frozenset[Kind]
    kind: ClassVar[str]
    usual: ClassVar[str]

    def __init__(self, model: str | None = None, *, device: str = "cpu") -> None:
        import transformers

        model = model or self.usual
        if "words" in self.accepts:
            self._tokenizer: Any = load(transformers.AutoTokenizer, model)
            if set(self._tokenizer.get_vocab().values()) <= set(self._tokenizer.all_special_ids):
                raise SegmenterError("its tokenizer is missing: it knows no words", where=model)
        self._network: Any = load_network(getattr(transformers, self.kind), model, device=device)
        self._device = device


def to_values(
    pixels: Pixels,
    shape: tuple[int, int],
    *,
    mean: Channels = IMAGENET_MEAN,
    std: Channels = IMAGENET_STD,
) -> torch.Tensor:
    """Resize pixels to a shape, whatever their own, and normalise them.

    Args:
        pixels: (H, W, 3) uint8.
        shape: (height, width) of the network's input.
        mean: (3,) a channel's mean, in 0..1.
        std: (3,) a channel's standard deviation, in 0..1.

    Returns:
        (1, 3, height, width) float32.
    """
    image = Image.fromarray(pixels).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    values = (np.asarray(image, dtype=np.float32) / 255 - mean) / std
    return torch.from_numpy(values.transpose(2, 0, 1).copy())[None]


def detector_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """Return the input size of a detector: the usual sides, in multiples of 32.

    Rounding the sides, in place of padding them, keeps the whole input the photo.

    Args:
        shape: (height, width) of the photo.
    """
    factor = min(SHORTER / min(shape), LONGER / max(shape))
    height, width = (max(round(side * factor / 32), 1) * 32 for side in shape)
    return height, width


def to_photo_size(logits: torch.Tensor, shape: tuple[int, int]) -> Mask:
    """Bring (K, h, w) logits to (K, H, W) probabilities, float32 in 0..1."""
    large = torch.nn.functional.interpolate(
        logits[None].float(), size=shape, mode="bilinear", align_corners=False
    )[0]
    return np.asarray(large.sigmoid().cpu().numpy(), dtype=np.float32)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' advice and progress bars out of the user's sight."""
    from transformers.utils import logging

    level, shows_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shows_bars:
            logging.enable_progress_bar()
