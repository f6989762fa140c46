"""GrabCut: masks from boxes, points and strokes, without any network or download.

Rother, Kolmogorov and Blake, *GrabCut* (SIGGRAPH 2004), alternates colour models of inside and
outside with a minimal cut. One run depends on where it starts; here several runs, from different
starts and in two colour spaces, vote. Points and strokes are held fast, those of *other* concepts
as outside; what lies nearer to these, along the photo's colours, starts outside too. A mark changes
what the box alone finds only where it contradicts it: right marks then seldom do harm. Without a
box, `growing` finds the mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lora_scene.errors import warn_of
from lora_scene.scenes.mask_prompts import Box, Kind, Mark, Prompt
from lora_scene.scenes.pictures import Mask, Pixels
from lora_scene.scenes.refine import GROWTH, Flags, finish, keep_main_parts
from lora_scene.scenes.segmenters.geodesic import geodesic_distance
from lora_scene.scenes.segmenters.growing import grow_mask
from lora_scene.scenes.segmenters.marks import (
    Window,
    contradicted,
    paint,
    touched,
    warn_of_loss,
)

MARGIN = 0.2  # of the box, seen around it
CUT_SIDE = 320  # of the crop that is cut, pixels: the colour models need no more
EDGE_REACH = 2.0  # how far the cut's edge may be corrected, pixels at the cut's size
N_ROUNDS = 4
DISK = 0.04  # of the box: radius of what a point holds fast
MAX_DISK = 9  # pixels at the cut's size
WIDE_START, NARROW_START = 0.85, 0.70  # half axes of the starting ellipses, of the half box
LOOSEST = 0.75  # of the tightest cut's share of the box: looser cuts lost a part of the concept


@dataclass(frozen=True, eq=False)
class _Crop:
    """A part of the photo at the cut's size, and what is known about its pixels.

    Attributes:
        rgb: (h, w, 3) uint8, smoothed.
        lab: (h, w, 3) uint8, the same in CIE Lab.
        rho: (h, w) distance from the box's middle; 1 on the ellipse that the box circumscribes.
        in_box: (h, w) whether a pixel may belong to the concept.
        inside: (h, w) whether the user said that it does.
        outside: (h, w) whether the user said that it does not.
        disk: Radius of what a point holds fast, pixels.
        seeds: (x, y) of the points inside.
    """

    rgb: Pixels
    lab: Pixels
    rho: npt.NDArray[np.float64]
    in_box: Flags
    inside: Flags
    outside: Flags
    disk: float
    seeds: tuple[tuple[int, int], ...]


class GrabCut:
    """The built-in segmenter."""

    name = "grabcut"
    accepts: frozenset[Kind] = frozenset({"box", "point", "stroke"})

    def segment(self, pixels: Pixels, prompts: Sequence[Prompt]) -> Mask:
        """Cut each concept out; the marks of the others lie outside it."""
        masks = []
        for k, prompt in enumerate(prompts):
            others = [
                mark
                for j, other in enumerate(prompts)
                for mark in other.marks
                if j != k and mark.is_inside
            ]
            boxed = prompt.box is not None
            masks.append((_cut_out if boxed else grow_mask)(pixels, prompt, others))
        return np.stack(masks)


def _cut_out(pixels: Pixels, prompt: Prompt, others: Sequence[Mark]) -> Mask:
    import cv2

    box = prompt.box
    assert box is not None
    height, width = pixels.shape[:2]
    margins = MARGIN * (box.right - box.left), MARGIN * (box.bottom - box.top)
    sides = box.left, box.top, box.right, box.bottom
    window = Window.around(sides, margins, (height, width), most=CUT_SIDE)
    crop = _crop(pixels, box, window, prompt, others)
    first = [m for m in prompt.marks if m.is_inside][:1] if others else []
    inside, beside = paint(first, window, crop.disk), paint(others, window, crop.disk)
    rough = _correct(crop, replace(crop, inside=inside, outside=beside & ~inside), prompt)
    mask = np.zeros((height, width), dtype=np.float32)
    part = pixels[window.inner]
    soft = finish(rough, part, reach=EDGE_REACH, growth=GROWTH, seeds=crop.seeds)
    denied = cv2.resize(crop.outside.astype(np.float32), (soft.shape[1], soft.shape[0]))
    mask[window.inner] = soft * (1.0 - denied)
    allowed = np.zeros_like(mask)
    rows = slice(int(box.top), int(np.ceil(box.bottom)))
    allowed[rows, int(box.left) : int(np.ceil(box.right))] = 1.0
    return mask * allowed


def _crop(
    pixels: Pixels, box: Box, window: Window, prompt: Prompt, others: Sequence[Mark]
) -> _Crop:
    import cv2

    width, height = window.size
    small = cv2.resize(pixels[window.inner], window.size, interpolation=cv2.INTER_AREA)
    rgb = cv2.bilateralFilter(small, 5, 25, 3)
    left, top = window.to_crop(box.left, box.top)
    right, bottom = window.to_crop(box.right, box.bottom)
    ys, xs = np.mgrid[:height, :width] + 0.5
    u = np.abs(2 * xs - left - right) / (right - left)
    v = np.abs(2 * ys - top - bottom) / (bottom - top)
    disk = min(max(DISK * max(right - left, bottom - top), 2.0), MAX_DISK)
    inside = paint([m for m in prompt.marks if m.is_inside], window, disk)
    beside = [*(m for m in prompt.marks if not m.is_inside), *others]
    outside = paint(beside, window, disk) & ~inside
    seeds = tuple(
        (int(x), int(y))
        for x, y in (window.to_crop(p.x, p.y) for p in prompt.points if p.is_inside)
        if 0 <= x < width and 0 <= y < height
    )
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)
    return _Crop(
        rgb,
        lab,
        np.hypot(u, v),
        (u <= 1) & (v <= 1),
        inside,
        outside,
        disk,
        seeds,
    )


def _correct(crop: _Crop, plain: _Crop, prompt: Prompt) -> Flags:
    """Cut by the fewest marks, and take from the cut by all marks what they contradict there.

    Marks inside only add to the plain cut, marks outside only take away.
    """
    rough = _vote(plain)
    missed = contradicted(crop.inside, rough, is_inside=True)
    taken = contradicted(crop.outside, rough, is_inside=False)
    if missed.any() or taken.any():
        full = _vote(crop)
        removed = touched(rough & ~full, taken)
        warn_of_loss(rough, removed, prompt.handle)
        added = touched(full & ~rough, missed)
        if added.sum() > rough.sum():  # the cut leaked: the marks hold no more than themselves
            text = "a mark inside it brings no clear part of it; draw over more of that part"
            warn_of(prompt.handle, text)
            added = missed
        rough = (rough | added) & ~removed
    corrected: Flags = (rough | crop.inside) & ~crop.outside
    return corrected


def _vote(crop: _Crop) -> Flags:
    """Cut from three starts, and return what most of the cuts hold.

    The starts are ellipses in the box, less what lies nearer to a mark outside than to one inside.
    Cuts that leave much of a drawn box empty lost a part of the concept, and don't count.
    """
    wide, narrow = crop.rho < WIDE_START, crop.rho < NARROW_START
    if crop.inside.any():
        near = _near_to_marks(crop)
        wide, narrow = wide & near, narrow & near
    starts = [(crop.rgb, wide), (crop.lab, wide), (crop.lab, narrow)]
    cuts = [_grab(crop, image, start) for image, start in starts]
    tightness = [_tightness(cut & crop.in_box, crop.in_box) for cut in cuts]
    limit = LOOSEST * max(tightness)
    cuts = [cut for cut, share in zip(cuts, tightness, strict=True) if share >= limit]
    votes = np.sum(cuts, axis=0)
    agreed: Flags = (2 * votes > len(cuts)) & crop.in_box | crop.inside
    return agreed


def _near_to_marks(crop: _Crop) -> Flags:
    """Tell what lies nearer to a mark inside than to one outside."""
    if not crop.outside.any():
        return crop.in_box
    smooth = crop.lab.astype(np.float64)
    nearer: Flags = geodesic_distance(crop.inside, smooth) < geodesic_distance(crop.outside, smooth)
    return nearer


def _tightness(cut: Flags, in_box: Flags) -> float:
    """Return the share of the box that a cut's own bounding box fills: people draw close boxes."""
    main = keep_main_parts(cut)
    sides = [np.flatnonzero(main.any(axis=axis)) for axis in (0, 1)]
    if not len(sides[0]):
        return 0.0
    spans = [int(side[-1] - side[0] + 1) for side in sides]
    return spans[0] * spans[1] / max(int(in_box.sum()), 1)


def _grab(crop: _Crop, image: Pixels, start: Flags) -> Flags:
    import cv2

    labels = np.full(start.shape, cv2.GC_BGD, dtype=np.uint8)
    labels[crop.in_box] = cv2.GC_PR_BGD
    labels[crop.in_box & start] = cv2.GC_PR_FGD
    labels[crop.inside] = cv2.GC_FGD
    labels[crop.outside] = cv2.GC_BGD
    is_inside: Flags = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    if is_inside.all() or not is_inside.any():
        return is_inside
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(image, labels, None, *models, N_ROUNDS, cv2.GC_INIT_WITH_MASK)
    cut: Flags = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    return cut
