"""The segmenters by name; a network is imported and loaded when it is opened, not before."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lora_scene.errors import SegmenterError, did_you_mean
from lora_scene.scenes.segmenters.segmenter import Lister, Segmenter


@dataclass(frozen=True)
class Entry:
    """A segmenter that can be opened.

    Attributes:
        follows: The prompts that it follows, in words.
        about: What it is good for.
        lists: Whether it can list regions.
    """

    follows: str
    about: str
    lists: bool = False


CATALOG: Mapping[str, Entry] = {
    "grabcut": Entry("boxes, points, strokes", "built in, nothing to download"),
    "sam": Entry("boxes, points, strokes, numbers", "sharp masks of anything", lists=True),
    "sam2": Entry("boxes, points, strokes, numbers", "smaller and better than SAM", lists=True),
    "clipseg": Entry("words", "light and coarse"),
    "grounding-dino": Entry("words", "finds boxes by words, SAM cuts them out"),
    "sam3": Entry("words", "best with words; weights on request"),
    "maskformer": Entry("numbers", "lists everything in the photo", lists=True),
    "mask2former": Entry("numbers", "lists everything in the photo, newer", lists=True),
}


def open_segmenter(
    name: str = "grabcut",
    *,
    model: str | None = None,
    follower: str | None = None,
    device: str = "cpu",
) -> Segmenter:
    """Open a segmenter.

    Args:
        name: One of `CATALOG`.
        model: Hub id or local folder of its weights; default: the usual ones.
        follower: Hub id or folder of the SAM that follows grounding-dino's boxes.
        device: Where a network runs.

    Raises:
        SegmenterError: There is no such segmenter, or its weights cannot be had.
    """
    if name not in CATALOG:
        raise SegmenterError(
            f"no segmenter {name!r}",
            expected=", ".join(CATALOG),
            hint=did_you_mean(name, CATALOG),
        )
    if name == "grabcut":
        from lora_scene.scenes.segmenters.grabcut import GrabCut

        return GrabCut()
    options = {} if model is None else {"model": model}
    if name == "grounding-dino":
        from lora_scene.scenes.segmenters.grounding_dino import GroundingDino

        sam = open_segmenter("sam", model=follower, device=device)
        return GroundingDino(**options, follower=sam, device=device)
    return _network(name)(**options, device=device)


def open_lister(name: str, *, model: str | None = None, device: str = "cpu") -> Lister:
    """Open a segmenter that can list regions.

    Raises:
        SegmenterError: It cannot, or `open_segmenter` refuses it.
    """
    if name in CATALOG and not CATALOG[name].lists:
        raise SegmenterError(
            f"{name} cannot list regions",
            expected=", ".join(key for key, entry in CATALOG.items() if entry.lists),
        )
    opened = open_segmenter(name, model=model, device=device)
    assert isinstance(opened, Lister), f"the catalog says that {name} lists regions"
    return opened


def _network(name: str) -> Callable[..., Segmenter]:
    module, kind = {
        "sam": ("sam", "Sam"),
        "sam2": ("sam", "Sam2"),
        "clipseg": ("clipseg", "ClipSeg"),
        "sam3": ("sam3", "Sam3"),
        "maskformer": ("panoptic", "MaskFormer"),
        "mask2former": ("panoptic", "Mask2Former"),
    }[name]
    opener: Callable[..., Segmenter] = getattr(
        importlib.import_module(f"lora_scene.scenes.segmenters.{module}"), kind
    )
    return opener
