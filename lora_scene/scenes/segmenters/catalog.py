"""The segmenters by name; a network is imported and loaded when it is opened, not before."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lora_scene.errors import SegmenterError, did_you_mean

if TYPE_CHECKING:
    from lora_scene.scenes.segmenters.segmenter import Lister, Segmenter


@dataclass(frozen=True)
class Entry:
    """A segmenter that can be opened.

    Attributes:
        about: What it is good for.
        opener: Its module in this folder, and its class.
        lists: Whether it can list regions.
    """

    about: str
    opener: str
    lists: bool = False

    def open(self, **options: Any) -> Any:
        """Import its module, and load it."""
        module, _, kind = self.opener.partition(".")
        found = importlib.import_module(f"lora_scene.scenes.segmenters.{module}")
        return getattr(found, kind)(**options)


CATALOG: Mapping[str, Entry] = {
    "grabcut": Entry("built in, nothing to download", "grabcut.GrabCut"),
    "sam": Entry("sharp masks of anything", "sam.Sam", lists=True),
    "sam2": Entry("smaller and better than SAM", "sam.Sam2", lists=True),
    "clipseg": Entry("light and coarse", "clipseg.ClipSeg"),
    "grounding-dino": Entry(
        "finds boxes by words, SAM cuts them out", "grounding_dino.GroundingDino"
    ),
    "sam3": Entry("best with words; weights on request", "sam3.Sam3"),
    "maskformer": Entry("lists everything in the photo", "panoptic.MaskFormer", lists=True),
    "mask2former": Entry(
        "lists everything in the photo, newer", "panoptic.Mask2Former", lists=True
    ),
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
        SegmenterError: There is no such segmenter, it takes no such weights, or they cannot be had.
    """
    if name not in CATALOG:
        raise SegmenterError(
            f"no segmenter {name!r}",
            expected=", ".join(CATALOG),
            hint=did_you_mean(name, CATALOG),
        )
    for given, takes in ((model, name != "grabcut"), (follower, name == "grounding-dino")):
        if given is not None and not takes:
            raise SegmenterError(
                f"{name} takes no such weights",
                where=given,
                hint="name the segmenter that they are of, such as sam or grounding-dino",
            )
    options: dict[str, Any] = {} if name == "grabcut" else {"model": model, "device": device}
    if name == "grounding-dino":
        options["follower"] = open_segmenter("sam", model=follower, device=device)
    opened: Segmenter = CATALOG[name].open(**options)
    return opened


def open_lister(name: str, *, model: str | None = None, device: str = "cpu") -> Lister:
    """Open a segmenter that can list regions.

    Raises:
        SegmenterError: It cannot, or `open_segmenter` refuses it.
    """
    from lora_scene.scenes.segmenters.segmenter import Lister

    if name in CATALOG and not CATALOG[name].lists:
        raise SegmenterError(
            f"{name} cannot list regions",
            expected=", ".join(key for key, entry in CATALOG.items() if entry.lists),
        )
    opened = open_segmenter(name, model=model, device=device)
    assert isinstance(opened, Lister), f"the catalog says that {name} lists regions"
    return opened
