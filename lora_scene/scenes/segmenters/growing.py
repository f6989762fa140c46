"""Masks from points and strokes alone: how large the thing is, the photo is asked.

Around the first mark, things of several sizes are cut out, each in a window that fits the size.
What is a thing is found at several sizes in a row: taken is the cut that agrees most with the
others, of equals the larger one. A further mark counts where the mask contradicts it: the whole is
cut once more, from the mask and all marks so far, and of the change only the part that the mark
touches is made; of one that reaches a mark of the other kind, what lies nearer to its own along the
photo's colours. So a mark adds a part or takes one away, and leaves the rest alone. One far from
the mask's edge tells that the thing is larger or smaller: then the best of the first cuts that
obeys all marks takes its place, if it holds the mask, or lies in it; if none does, and colours
tell nothing either, a mark outside takes away all that lies nearer to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lora_scene.errors import warn_of
from lora_scene.scenes.mask_prompts import Mark, Prompt
from lora_scene.scenes.pictures import Mask, Pixels
from lora_scene.scenes.refine import GROWTH, Flags, fill_holes, finish
from lora_scene.scenes.segmenters.geodesic import geodesic_distance
from lora_scene.scenes.segmenters.marks import (
    Window,
    contradicted,
    paint,
    touched,
    warn_of_loss,
)

SIDE = 512  # of the photo that is looked at, pixels
RADII = tuple(0.04 * 2 ** (k / 2) for k in range(8))  # of things, of the photo's longer side
REACH = 2.3  # radii from the mark to the window's rim
WINDOW_SIDE = 112  # of the crop that one size is cut in, pixels
CORE = 0.25  # of the radius: what the mark is sure of
LARGER = 0.4  # worth of a cut's share of the photo (its root) beside its agreement, 0..1
UNSURE = 0.35  # agreement of the cut that is taken, below which its size is a guess
MARGIN = 0.6  # of the mask, seen around it when it is cut again
RECUT_SIDE = 176  # of the crop in which it is, pixels
DISK = 0.015  # of the longer side: radius of what a further point holds fast
N_ROUNDS = 2  # of GrabCut
FAR = 3.0  # disks from the mask's edge: a mark there is not about the edge
HELD = 0.9  # of a mask, by a larger one that takes its place, or of that, by the mask
LEAST = 0.25  # of the larger one: what shares less with it is another thing
TOUCHING = 2.5  # pixels between a part and a mark of the other kind that it reaches
LITTLE = 1.5  # times a mark: a part no larger is the mark alone
LEAK = 0.5  # of the colour contrast kept, below which the cut leaked
EDGE_REACH = 4.0  # how far the edge may be corrected, pixels at `SIDE`
LEVELS = (8, 16, 16)  # of Lab, where colours are counted


def grow_mask(pixels: Pixels, prompt: Prompt, others: Sequence[Mark]) -> Mask:
    """Cut a concept out by marks alone.

    Args:
        pixels: (H, W, 3) uint8.
        prompt: Its marks; one at least lies inside.
        others: Marks inside other concepts, which are outside this one.

    Returns:
        (H, W) float32 in 0..1.
    """
    import cv2

    height, width = pixels.shape[:2]
    view = Window.around((0, 0, width, height), (0, 0), (height, width), most=SIDE)
    photo = cv2.resize(pixels, view.size, interpolation=cv2.INTER_AREA)
    disk = max(DISK * max(view.size), 2.0)
    first = next(mark for mark in prompt.marks if mark.is_inside)
    more = [mark for mark in prompt.marks if mark is not first]
    cuts, worth = _things_at(photo, paint([first], view, 1), prompt.handle)
    mask = cuts[worth.argmax()]
    held = {True: paint([first], view, disk), False: np.zeros_like(mask)}
    for mark, is_inside in [(m, False) for m in others] + [(m, m.is_inside) for m in more]:
        drawn = paint([mark], view, disk)
        held[is_inside] = held[is_inside] | drawn
        wrong = contradicted(drawn, mask, is_inside=is_inside)
        if wrong.any():
            part = _part_at(photo, mask, held, wrong, is_inside=is_inside)
            if _distance(mask == is_inside)[wrong].mean() > FAR * disk:
                fit = np.array([_obeys(cut, mask, held, is_larger=is_inside) for cut in cuts])
                other = cuts[np.where(fit, worth, -1).argmax()] == is_inside
                found_little = part.sum() < LITTLE * wrong.sum() and not is_inside
                part = other if fit.any() else mask if found_little else part
            part = _limited(photo, part, drawn, held[not is_inside])
            if not is_inside:
                warn_of_loss(mask, part, prompt.handle)
            mask = mask | part if is_inside else mask & ~part
    places = [np.argwhere(paint([m], view, 1)) for m in prompt.marks if m.is_inside]
    seeds = [(int(p[len(p) // 2][1]), int(p[len(p) // 2][0])) for p in places if len(p)]
    soft = finish(mask, pixels, reach=EDGE_REACH, growth=GROWTH, seeds=seeds)
    denied = cv2.resize(held[False].astype(np.float32), (width, height))
    allowed: Mask = soft * (1.0 - denied)
    return allowed


def _things_at(
    photo: Pixels, mark: Flags, handle: str
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Return the cuts of all sizes under a mark, (n, h, w), and what each is worth, (n,)."""
    radii = [share * max(photo.shape) for share in RADII]
    cuts = np.stack([_cut_at(photo, mark, radius) for radius in radii])
    flat = cuts.reshape(len(cuts), -1).astype(np.float32)
    shared, areas = flat @ flat.T, flat.sum(axis=1)
    union = np.maximum(areas[:, None] + areas[None] - shared, 1)
    agreement = (shared / union).mean(axis=1)
    worth = agreement + LARGER * np.sqrt(areas / mark.size)
    if agreement[worth.argmax()] < UNSURE:
        warn_of(handle, "the marks leave open how much of it is meant; draw a box around it too")
    return cuts, worth


def _obeys(cut: Flags, mask: Flags, held: dict[bool, Flags], *, is_larger: bool) -> bool:
    """Tell whether a cut obeys all marks, and holds a mask or, not `is_larger`, lies in it."""
    wrong = contradicted(held[True], cut, is_inside=True)
    wrong |= contradicted(held[False], cut, is_inside=False)
    smaller, larger = (mask, cut) if is_larger else (cut, mask)
    is_held = (cut & mask).sum() > HELD * smaller.sum() and smaller.sum() > LEAST * larger.sum()
    return bool(is_held and not wrong.any())


def _cut_at(photo: Pixels, mark: Flags, radius: float) -> Flags:
    """Cut out what lies about a mark, from a start of a radius around it, pixels."""
    import cv2

    away = _distance(mark)
    reach = REACH * radius
    window = _around(mark, reach, most=WINDOW_SIDE)
    near = cv2.resize(away[window.inner], window.size, interpolation=cv2.INTER_LINEAR)
    labels = np.full(near.shape, cv2.GC_PR_BGD, dtype=np.uint8)
    labels[near < radius] = cv2.GC_PR_FGD
    labels[_rim(labels) | (near > reach)] = cv2.GC_BGD
    labels[near < max(CORE * radius, 2 / window.scale)] = cv2.GC_FGD
    cut = fill_holes(touched(_grab(_smooth(photo, window), labels), near < 1 / window.scale))
    return _placed(cut, window, mark.shape)


def _part_at(
    photo: Pixels, mask: Flags, held: dict[bool, Flags], mark: Flags, *, is_inside: bool
) -> Flags:
    """Return what a mark adds to a mask, or takes from it; itself where nothing clear is found."""
    import cv2

    ys, xs = np.nonzero(mask | mark)
    window = _around(mask | mark, MARGIN * max(np.ptp(ys), np.ptp(xs)), most=RECUT_SIDE)
    before, fore, back, here = (
        cv2.resize(f[window.inner].astype(np.float32), window.size, interpolation=cv2.INTER_AREA)
        >= 0.5
        for f in (mask, held[True], held[False], mark)
    )
    labels = np.where(before, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[_rim(labels)] = cv2.GC_BGD
    labels[fore], labels[back] = cv2.GC_FGD, cv2.GC_BGD
    colours = _smooth(photo, window)
    after = _grab(colours, labels)
    part = touched(after & ~before if is_inside else before & ~after, here)
    changed = before | part if is_inside else before & ~part
    if _contrast(colours, changed) < LEAK * _contrast(colours, before):
        return mark
    return _placed(part, window, mask.shape) | mark


def _limited(photo: Pixels, part: Flags, mark: Flags, others: Flags) -> Flags:
    """Return a part; of one that reaches marks of the other kind what lies nearer to its own."""
    import cv2

    if not (_distance(part)[others] <= TOUCHING).any():
        return part
    window = _around(np.ones_like(mark), 0, most=RECUT_SIDE)
    colours = cv2.cvtColor(_smooth(photo, window), cv2.COLOR_RGB2LAB).astype(np.float64)
    away, close = (
        geodesic_distance(
            cv2.resize(f.astype(np.float32), window.size, interpolation=cv2.INTER_AREA) > 0, colours
        )
        for f in (others, mark)
    )
    return part & _placed(close <= away, window, mark.shape) | mark


def _around(flags: Flags, margin: float, *, most: int) -> Window:
    ys, xs = np.nonzero(flags)
    sides = float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)
    return Window.around(sides, (margin, margin), (flags.shape[0], flags.shape[1]), most=most)


def _distance(flags: Flags) -> Mask:
    """Return each pixel's distance to the nearest flag, pixels."""
    import cv2

    distance: Mask = cv2.distanceTransform((~flags).astype(np.uint8), cv2.DIST_L2, 5)
    return distance


def _rim(labels: npt.NDArray[np.uint8]) -> Flags:
    rim = np.ones(labels.shape, dtype=bool)
    rim[1:-1, 1:-1] = False
    return rim


def _smooth(photo: Pixels, window: Window) -> Pixels:
    import cv2

    part = cv2.resize(photo[window.inner], window.size, interpolation=cv2.INTER_AREA)
    smooth: Pixels = cv2.bilateralFilter(part, 5, 25, 3)
    return smooth


def _grab(image: Pixels, labels: npt.NDArray[np.uint8]) -> Flags:
    import cv2

    inside = [cv2.GC_FGD, cv2.GC_PR_FGD]
    if len(np.unique(np.isin(labels, inside))) == 2:
        cv2.setRNGSeed(0)
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(image, labels, None, *models, N_ROUNDS, cv2.GC_INIT_WITH_MASK)
    return np.isin(labels, inside)


def _placed(part: Flags, window: Window, shape: tuple[int, ...]) -> Flags:
    """Put a window's flags back into the photo's (h, w)."""
    import cv2

    placed = np.zeros(shape, dtype=bool)
    size = window.right - window.left, window.bottom - window.top
    whole = cv2.resize(part.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    placed[window.inner] = whole >= 0.5
    return placed


def _contrast(image: Pixels, mask: Flags) -> float:
    """Tell how unlike the colours in a mask are to those around it, 0..1: 1 - Bhattacharyya's."""
    import cv2

    ring = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool) & ~mask
    if not ring.any() or not mask.any():
        return 0.0
    levels = cv2.cvtColor(image, cv2.COLOR_RGB2LAB) // (256 // np.array(LEVELS)).astype(np.uint8)
    bins = np.ravel_multi_index(tuple(np.moveaxis(levels, 2, 0)), LEVELS)
    n_bins = int(np.prod(LEVELS))
    inside, around = (np.bincount(bins[f], minlength=n_bins) / f.sum() for f in (mask, ring))
    return float(1 - np.sqrt(inside * around).sum())
