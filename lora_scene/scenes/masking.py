"""A photo and prompts in, masks and a preview out; no files, no printing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lora_scene.errors import SegmenterError
from lora_scene.scenes.handles import check_handles
from lora_scene.scenes.mask_prompts import Prompt, check_prompts
from lora_scene.scenes.overlay import draw_masks, draw_overlay
from lora_scene.scenes.pictures import MAX_PIXELS, Mask, Pixels
from lora_scene.scenes.refine import settle_overlaps
from lora_scene.scenes.scene import INSIDE, MIN_COVERAGE, Concept, Photo, Scene
from lora_scene.scenes.segmenters.catalog import open_segmenter
from lora_scene.scenes.segmenters.regions import Segment
from lora_scene.scenes.segmenters.segmenter import Lister, Segmenter


@dataclass(frozen=True, eq=False)
class MaskedPhoto:
    """What `make_masks` gives.

    Attributes:
        scene: The concepts and the photo with their masks, as `load_scene` would read it.
        preview: The masks drawn on the photo, with names and coverage.
    """

    scene: Scene
    preview: Image.Image


@dataclass(frozen=True, eq=False)
class ListedPhoto:
    """What `list_regions` gives.

    Attributes:
        regions: What could be picked; number 1 is the first.
        preview: The regions drawn on the photo, with numbers and names.
    """

    regions: tuple[Segment, ...]
    preview: Image.Image


def make_masks(
    pixels: Pixels,
    prompts: Sequence[Prompt],
    *,
    segmenter: Segmenter | None = None,
    background: Concept | None = None,
    source: str = "photo",
) -> MaskedPhoto:
    """Find the concepts that are prompted for; what two of them claim is the smaller one's.

    Args:
        pixels: (H, W, 3) uint8, upright, as `pictures.read_photo` gives it.
        prompts: One per concept.
        segmenter: As `catalog.open_segmenter` gives it; default the built-in GrabCut.
        background: A concept for the complement of all others, or None.
        source: What messages call the photo.

    Raises:
        SegmenterError: The prompts cannot be followed, or nothing was found for one of them.
    """
    _check_pixels(pixels, source)
    chosen = segmenter or open_segmenter()
    check_prompts(prompts, pixels.shape[:2], accepted=chosen.accepts, segmenter=chosen.name)
    concepts = tuple(Concept(prompt.handle, prompt.noun) for prompt in prompts)
    if background is not None:
        concepts += (background,)
        handles = [concept.handle for concept in concepts]
        nouns = [background.noun]
        wrong = check_handles(handles, "background", nouns=nouns, error=SegmenterError)
        if wrong:
            raise SegmenterError.collect(wrong, "the background's handle cannot be used")
    found = chosen.segment(pixels, prompts)
    masks = settle_overlaps(found)
    _check_found(found, masks, prompts, chosen.name)
    if background is not None:
        masks = np.concatenate([masks, 1.0 - masks.max(axis=0, keepdims=True)])
        _check_left(masks[-1], background)
    scene = Scene(concepts, (Photo(pixels, masks, source),), source)
    return MaskedPhoto(scene, draw_overlay(scene))


def list_regions(pixels: Pixels, lister: Lister, *, source: str = "photo") -> ListedPhoto:
    """List what a segmenter sees in a photo, so that a number can be picked.

    Args:
        pixels: (H, W, 3) uint8, upright.
        lister: As `catalog.open_lister` gives it.
        source: What messages call the photo.

    Raises:
        SegmenterError: It sees nothing.
    """
    _check_pixels(pixels, source)
    regions = lister.propose(pixels)
    if not regions:
        raise SegmenterError(
            f"{lister.name} sees nothing in the photo",
            where=source,
            hint="give boxes to the built-in segmenter: --box bear=left,top,right,bottom",
        )
    photo = Photo(pixels, np.stack([region.mask for region in regions]), source)
    names = [f"{n}: {region.name}" for n, region in enumerate(regions, start=1)]
    return ListedPhoto(regions, draw_masks(photo, names))


def _check_pixels(pixels: Pixels, source: str) -> None:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise SegmenterError(
            "not a photo",
            where=source,
            expected="(H, W, 3) uint8 pixels",
            got=f"{pixels.shape} {pixels.dtype}",
        )
    if pixels.shape[0] * pixels.shape[1] > MAX_PIXELS:
        raise SegmenterError(
            "the photo is too large",
            where=source,
            expected=f"at most {MAX_PIXELS // 1_000_000} megapixels",
            got=f"{pixels.shape[1]} x {pixels.shape[0]} pixels",
            hint="scale it down first",
        )


def _check_found(found: Mask, masks: Mask, prompts: Sequence[Prompt], segmenter: str) -> None:
    """Refuse concepts of which nothing was found, or left once overlaps were settled."""
    missing = []
    for alone, mask, prompt in zip(found, masks, prompts, strict=True):
        coverage = float((mask >= INSIDE).mean())
        if coverage >= MIN_COVERAGE:
            continue
        what = f"{segmenter} found nothing"
        if (alone >= INSIDE).mean() >= MIN_COVERAGE:
            what = f"all that {segmenter} found lies in masks of other concepts, no larger"
            hint = "give each thing a box or points of its own, or leave one of them out"
        elif "words" in prompt.kinds:
            hint = "try plainer words, or give a box: --box NAME=left,top,right,bottom"
        else:
            hint = "draw the box around all of it, and point at it once or twice"
        missing.append(
            SegmenterError(
                what,
                where=prompt.handle,
                expected=f"at least {100 * MIN_COVERAGE:.1f} % of the photo",
                got=f"{100 * coverage:.3f} %",
                hint=hint,
            )
        )
    if missing:
        raise SegmenterError.collect(missing, "concepts were not found")


def _check_left(mask: Mask, background: Concept) -> None:
    """Refuse a background of which the other concepts leave nothing."""
    coverage = float((mask >= INSIDE).mean())
    if coverage < MIN_COVERAGE:
        raise SegmenterError(
            "the other concepts leave nothing for the background",
            where=background.handle,
            expected=f"at least {100 * MIN_COVERAGE:.1f} % of the photo",
            got=f"{100 * coverage:.3f} %",
            hint="leave --background out, or draw closer boxes",
        )
