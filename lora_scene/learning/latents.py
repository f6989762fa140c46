"""What the UNet is shown: the photos' variants, encoded once, their masks on both grids.

    photos -> framed, flipped, cropped, rearranged -> VAE moments, masks -> drawn each step

The VAE is needed for this alone; afterwards it may leave the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lora_scene.backbones.backbone import Backbone, Moments
from lora_scene.errors import LoraSceneError, SceneError
from lora_scene.recipe import Augment
from lora_scene.scenes.augment import (
    Variant,
    emptied,
    flip,
    paste,
    random_crop,
    rearrange,
    recompose,
)
from lora_scene.scenes.canvas import Canvas
from lora_scene.scenes.framing import Resize, cut, grid_masks, plan_frame, resized
from lora_scene.scenes.masks import LEAST_CELLS
from lora_scene.scenes.pictures import Mask, Pixels
from lora_scene.scenes.scene import Concept, Photo, Scene
from lora_scene.scenes.union import draw_subset
from lora_scene.size import Size


@dataclass(frozen=True, kw_only=True)
class ShownVariant:
    """One variant of a photo, as it is shown to a base.

    Attributes:
        masks: (K, h, w), 0..1, on the latent grid.
        map_masks: (K, r_h, r_w), 0..1, on the attention maps' grid.
        present: Indices of the concepts that it shows.
        names_all: Whether the prompt has to name all that are present: nothing else is in the
            picture.
        caption_suffix: What the prompt says beside the handles, such as a plain background.
        probability: Its share of the draws.
        size_ids: What SDXL is told of sizes, see `size_ids`; empty for a whole picture.
        source: The photo's file.
    """

    masks: Tensor
    map_masks: Tensor
    present: tuple[int, ...]
    names_all: bool
    caption_suffix: str
    probability: float
    size_ids: tuple[int, ...] = ()
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class EncodedVariant(ShownVariant):
    """One variant of a photo, ready for the loss.

    Attributes:
        moments: Its latent's mean and deviation, (c, h, w) each, float32, on the CPU.
    """

    moments: Moments

    @property
    def latents(self) -> Size:
        """Return the latents' cells: only variants of one size go into one batch."""
        return Size.of(self.moments.mean.shape)


def encode_variants(
    backbone: Backbone,
    scene: Scene,
    settings: Augment,
    *,
    canvas: Canvas,
    generator: np.random.Generator,
    resize: Resize = "area",
) -> tuple[EncodedVariant, ...]:
    """Make and encode all variants of a scene's photos that show a concept; see `show_variants`."""
    shown = show_variants(scene, settings, canvas=canvas, generator=generator, resize=resize)
    return tuple(
        EncodedVariant(moments=backbone.encode_picture(pixels).on_cpu(), **vars(one))
        for pixels, one in shown
    )


def show_variants(
    scene: Scene,
    settings: Augment,
    *,
    canvas: Canvas,
    generator: np.random.Generator,
    resize: Resize = "area",
) -> Iterator[tuple[Pixels, ShownVariant]]:
    """Make all variants of a scene's photos that show a concept, with their pixels.

    Args:
        scene: The scene.
        settings: Which variants, how likely each.
        canvas: The sizes at which the photos are shown.
        generator: Source of crops and recompositions.
        resize: How masks come to the grids; see `grid_masks`.
    """
    for photo in scene.photos:
        size = canvas.size_for(photo.size)
        for made in _make(photo, scene, size, settings, generator):
            shown = made.variant.photo
            if not made.variant.present:  # no prompt could name anything in it
                continue
            variant = ShownVariant(
                masks=resize_masks(shown.masks, canvas.latents(size), resize),
                map_masks=resize_masks(shown.masks, canvas.maps(size), resize),
                present=made.variant.present,
                names_all=made.names_all,
                caption_suffix=made.variant.caption_suffix,
                probability=made.share / len(scene.photos),
                size_ids=size_ids(shown) if canvas.shape == "photo" else (),
                source=photo.source,
            )
            yield shown.pixels, variant


def size_ids(photo: Photo) -> tuple[int, ...]:
    """Return what SDXL was told of a picture while it was trained (arXiv:2307.01952, section 2.2).

    The original height and width of the photo; the crop's top and left, in pixels of the photo as
    it was resized before the crop; the picture's own height and width. A mirrored picture is a crop
    of the mirrored photo.
    """
    view = photo.view
    top = round(view.top * photo.height / view.height)
    left = round(view.left * photo.width / view.width)
    return (*view.of.rows_columns, top, left, *photo.size.rows_columns)


def resize_masks(masks: Mask | Tensor, grid: Size | int, resize: Resize = "area") -> Tensor:
    """Bring masks (K, H, W) to a grid (K, rows, columns), or one of so many cells a side."""
    size = Size(grid, grid) if isinstance(grid, int) else grid
    return torch.from_numpy(grid_masks(np.asarray(masks), size, resize=resize).copy())


def refuse_unseen(
    variants: Sequence[ShownVariant], concepts: Sequence[Concept], resize: Resize = "area"
) -> None:
    """Refuse a concept of which no variant shows enough to learn from.

    Args:
        variants: The photos'.
        concepts: The things to learn.
        resize: How masks came to the grids.

    Raises:
        SceneError: Naming all such concepts, and what is left of each on both grids.
    """
    problems = _unseen(variants, concepts, resize)
    if problems:
        raise SceneError.collect(problems, "concepts that cannot be learnt")


def refuse_never_shown(
    variants: Iterable[ShownVariant], concepts: Sequence[Concept], resize: Resize = "area"
) -> None:
    """Do as `refuse_unseen`, and make no more variants than it takes to find that all is well."""
    made: list[ShownVariant] = []
    for one in variants:
        made.append(one)
        if not _unseen(made, concepts, resize):
            return
    refuse_unseen(made, concepts, resize)


def _unseen(
    variants: Sequence[ShownVariant], concepts: Sequence[Concept], resize: Resize
) -> list[LoraSceneError]:
    problems: list[LoraSceneError] = []
    other = 'take masked_loss.resize="area", ' if resize != "area" else ""
    for k, concept in enumerate(concepts):
        shown = [variant for variant in variants if k in variant.present]
        if concept.is_background and variants and all(one.names_all for one in variants):
            problems.append(
                SceneError(
                    "no picture is named by its background",
                    where=concept.handle,
                    expected="augment's shares of recomposed, rearranged and pasted pictures below "
                    "1 together, so that photos are shown as they are too",
                    hint="lower them, or leave the background out",
                )
            )
            continue
        cells = max((float(variant.masks[k].sum()) for variant in shown), default=0.0)
        map_cells = max((float(variant.map_masks[k].sum()) for variant in shown), default=0.0)
        if cells < LEAST_CELLS or not map_cells:
            problems.append(
                SceneError(
                    "too little of it is left in the training picture to be learnt",
                    where=concept.handle,
                    expected=f"at least {LEAST_CELLS:g} cells of the latents, some of the maps",
                    got=f"{cells:.2f} and {map_cells:.2f}",
                    hint="crop the photo around it, enlarge its mask or base.resolution, "
                    f"{other}or leave it out",
                )
            )
    return problems


@dataclass(frozen=True)
class _Made:
    variant: Variant
    share: float
    names_all: bool


def _make(
    photo: Photo, scene: Scene, size: Size, settings: Augment, generator: np.random.Generator
) -> Iterator[_Made]:
    """Yield a photo's variants; their shares add up to one."""
    plan = plan_frame(photo, size, focus=scene.things)
    part = cut(photo, plan.left, plan.top, plan.window)
    framed = resized(part, size)
    things = [k for k in framed.present if not scene.concepts[k].is_background]
    whole = Variant(framed, framed.present)
    yield from _mirrored(whole, settings.plain_share, settings.flip_prob)
    n = settings.n_variants
    for _ in range(n if settings.crop_prob else 0):
        window = random_crop(
            part, generator, scale=(settings.crop_min_scale, 1.0), focus=scene.things
        )
        cropped = resized(window, size)
        variant = Variant(cropped, cropped.present)
        yield from _mirrored(variant, settings.crop_prob / n, settings.flip_prob)
    empty = emptied(framed, things) if settings.rearrange_prob else framed.pixels
    for prob, alone in (
        (settings.recompose_prob, recompose),
        (settings.rearrange_prob, partial(rearrange, empty=empty)),
        (settings.paste_prob, paste),
    ):
        for _ in range(n if prob and things else 0):
            subset = [things[k] for k in draw_subset(len(things), generator)]
            yield _Made(alone(framed, subset=subset, generator=generator), prob / n, True)


def _mirrored(variant: Variant, share: float, prob: float) -> Iterator[_Made]:
    """Yield a variant and its mirror image, as far as their shares are above zero."""
    if share * (1 - prob):
        yield _Made(variant, share * (1 - prob), False)
    if share * prob:
        yield _Made(Variant(flip(variant.photo), variant.present), share * prob, False)
