"""What is doubtful about a scene's masks, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from lora_scene.scenes.canvas import Canvas
from lora_scene.scenes.coverage import Coverage, Overlap, covered
from lora_scene.scenes.framing import Resize, grid_masks
from lora_scene.scenes.handles import noun_doubts
from lora_scene.scenes.scene import INSIDE, Photo, Scene

SMALL = 0.02  # of the frame: about five of the 256 cells of an attention map
MUCH_SHARED = 0.1  # of the smaller mask
SPECK = 0.01  # of a mask's area: a part that is smaller may be a slip of the brush
STRETCHED = 1.25  # times a thing's longer side: by less a speck does no harm
WHOLE = 0.95  # of the photo's rim: a thing seldom covers so much of it, an inverted mask does
MANY_CONCEPTS = 4  # the paper saw more than four underfit (arXiv:2305.16311, section 5)


def doubts_about_photo(
    photo: Photo, framed: Photo, scene: Scene, *, canvas: Canvas, resize: Resize
) -> list[str]:
    """Say what is doubtful about one photo's masks.

    Args:
        photo: The photo.
        framed: What training sees of it.
        scene: The concepts.
        canvas: What training sees.
        resize: How masks come to the grids of latents and attention maps.
    """
    present = {k: scene.handles[k] for k in photo.present}
    said = [*_losses(framed, present, canvas, resize), *_inverted(photo, scene)]
    said += _specks(photo, {k: scene.handles[k] for k in scene.things})
    return said if present else [*said, "it shows none of the concepts: nothing is learnt from it"]


def doubts_about_scene(
    scene: Scene, coverages: Sequence[Coverage], overlaps: Sequence[Overlap]
) -> list[str]:
    """Say what is doubtful about all photos together: what is small or shared, nouns, numbers."""
    small: dict[str, list[str]] = {}
    for c in coverages:
        if 0.0 < c.of_frame < SMALL:
            small.setdefault(c.photo, []).append(f"{c.handle} ({100 * c.of_frame:.1f} %)")
    said = [
        f"{photo}: little of the frame is covered by {', '.join(handles)}: small things are "
        "learnt poorly; crop the photo closer"
        for photo, handles in small.items()
    ]
    said += [
        f"{o.photo}: {o.handles[0]} and {o.handles[1]} share {100 * o.of_smaller:.0f} % of the "
        "smaller mask: what is shared is learnt for both"
        for o in overlaps
        if o.of_smaller > MUCH_SHARED
    ]
    if len(scene.things) > MANY_CONCEPTS:
        said.append(
            f"{len(scene.things)} concepts: more than {MANY_CONCEPTS} at once tend to be learnt "
            "less well; train longer, or in two scenes"
        )
    return said + noun_doubts(scene.concepts)


def _losses(framed: Photo, present: Mapping[int, str], canvas: Canvas, resize: Resize) -> list[str]:
    """Say of which handles too little is left in the frame, or on a grid."""
    size = framed.size
    said = [
        f"{handle} is lost in the frame of {size} px: it cannot be learnt from this photo; "
        "crop the photo closer, or train at a larger size"
        for k, handle in present.items()
        if k not in framed.present
    ]
    grids = (("latent grid", canvas.latents(size)), ("attention maps", canvas.maps(size)))
    for name, grid in grids:
        fullest = grid_masks(framed.masks, grid, resize=resize).max(axis=(1, 2))
        little = [
            f"{handle} ({100 * fullest[k]:.0f} %)"
            for k, handle in present.items()
            if k in framed.present and fullest[k] < INSIDE
        ]
        if little:
            said.append(
                f"less than half of a cell of the {name} ({grid}) is filled by "
                f"{', '.join(little)}: learnt poorly or not at all; crop the photo closer, or "
                "train it larger"
            )
    return said


def _inverted(photo: Photo, scene: Scene) -> list[str]:
    """Name the things that cover the photo's rim: it is the background that does, mostly."""
    rim = np.ones(photo.pixels.shape[:2], dtype=bool)
    rim[1:-1, 1:-1] = False
    said = []
    for k in scene.things:
        share, around = covered(photo, k), float((photo.masks[k][rim] >= INSIDE).mean())
        if around >= WHOLE:
            most = f"{100 * share:.0f} % of the photo, and its whole rim"
            part = most if share < 1.0 else "all of the photo"
            said.append(
                f"{scene.handles[k]} covers {part}: "
                "is its mask inverted, or all white? white is where the concept is"
            )
    return said


def _specks(photo: Photo, things: Mapping[int, str]) -> list[str]:
    """Name the things whose masks have specks apart from the rest, which stretch its box."""
    import cv2

    said = []
    for k, handle in things.items():
        inside = (photo.masks[k] >= INSIDE).astype(np.uint8)
        parts = cv2.connectedComponentsWithStats(inside)[2][1:]  # left, top, width, height, area
        small = parts[:, 4] < SPECK * inside.sum()
        if not small.any() or small.all():
            continue
        stretch = _longer_side(parts) / _longer_side(parts[~small])
        if stretch > STRETCHED:
            said.append(
                f"{handle}: specks of its mask ({parts[small, 4].sum()} px in {small.sum()}) lie "
                f"apart from it, so that its box is {stretch:.1f} times as long: pictures that "
                "are composed anew show it small or off its place; erase them"
            )
    return said


def _longer_side(parts: npt.NDArray[np.int32]) -> int:
    """Return the longer side of the box around parts of (left, top, width, height, ...), pixels."""
    ends = parts[:, :2] + parts[:, 2:4]
    return int((ends.max(axis=0) - parts[:, :2].min(axis=0)).max())
