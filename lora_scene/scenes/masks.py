"""What a scene's masks cover, and what is doubtful about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from lora_scene.scenes.canvas import Canvas
from lora_scene.scenes.framing import Resize, frame, grid_masks, plan_frame
from lora_scene.scenes.handles import UNNAMED_NOUN
from lora_scene.scenes.scene import INSIDE, Photo, Scene, shared_areas
from lora_scene.size import Size

LEAST_CELLS = 0.5  # of the latents' grid: less is a smear of a few pixels, and is refused
SMALL = 0.02  # of the frame: about five of the 256 cells of an attention map
MUCH_SHARED = 0.1  # of the smaller mask
SPECK = 0.01  # of a mask's area: a part that is smaller may be a slip of the brush
STRETCHED = 1.25  # times a thing's longer side: by less a speck does no harm
WHOLE = 0.95  # of the photo's rim: a thing seldom covers so much of it, an inverted mask does
MANY_CONCEPTS = 4  # the paper saw more than four underfit (arXiv:2305.16311, section 5)


@dataclass(frozen=True)
class Coverage:
    """How much of a photo a concept covers.

    Attributes:
        handle: The concept's handle.
        noun: Its class noun.
        photo: The photo's file.
        of_photo: Fraction of the photo, 0..1; 0 where it is absent.
        of_frame: Fraction of the part that training sees, 0..1.
        kept: Fraction of the mask that this part holds, 0..1.
        box: (left, top, right, bottom) in pixels of the photo, right and bottom outside; or None.
    """

    handle: str
    noun: str
    photo: str
    of_photo: float
    of_frame: float
    kept: float
    box: tuple[int, int, int, int] | None


@dataclass(frozen=True)
class Overlap:
    """What two masks of a photo share.

    Attributes:
        handles: The two handles.
        photo: The photo's file.
        of_smaller: Shared part of the smaller mask, 0..1.
        iou: Shared part of their union, 0..1.
    """

    handles: tuple[str, str]
    photo: str
    of_smaller: float
    iou: float


@dataclass(frozen=True)
class Framing:
    """How a photo is brought to the size at which it is learnt.

    Attributes:
        photo: The photo's file.
        size: The photo's size, pixels.
        trained: The size at which it is learnt, pixels.
        cut: What is cut off at the left, top, right and bottom, pixels of the photo.
    """

    photo: str
    size: Size
    trained: Size
    cut: tuple[int, int, int, int]


@dataclass(frozen=True)
class ScenesReport:
    """What `lora-scene check` tells of a scene.

    Attributes:
        framings: One per photo.
        coverages: One per concept and photo, photo by photo.
        overlaps: The pairs that share anything.
        warnings: Sentences on what will cost quality.
        unlearnable: Handles of which no photo's frame shows enough on the grids.
    """

    framings: tuple[Framing, ...]
    coverages: tuple[Coverage, ...]
    overlaps: tuple[Overlap, ...]
    warnings: tuple[str, ...]
    unlearnable: tuple[str, ...] = ()

    @property
    def refusal(self) -> str:
        """Say why training would refuse the scene; empty where it would not."""
        names = ", ".join(self.unlearnable)
        return f"too little of {names} is left at this size: training refuses it" if names else ""


def report_on(scene: Scene, canvas: Canvas, *, resize: Resize = "area") -> ScenesReport:
    """Measure a scene's masks, as they are and at the training size.

    Args:
        scene: The scene.
        canvas: What training sees.
        resize: How masks come to the grids of latents and attention maps.
    """
    framings: list[Framing] = []
    coverages: list[Coverage] = []
    overlaps: list[Overlap] = []
    warnings: list[str] = []
    things = {k: scene.handles[k] for k in scene.things}
    seen: set[str] = set()
    for photo in scene.photos:
        size = canvas.size_for(photo.size)
        plan = plan_frame(photo, size, focus=scene.things)
        framed = frame(photo, size, focus=scene.things)
        framings.append(Framing(photo.source, photo.size, size, plan.cut))
        coverages += _coverages(photo, framed, plan.kept, scene)
        overlaps += _overlaps(photo, scene.handles)
        said = list(plan.warnings(canvas, things))
        present = {k: scene.handles[k] for k in photo.present}
        seen |= {name for k, name in present.items() if _is_seen(framed, k, canvas, resize)}
        said += [*_losses(framed, present, canvas, resize), *_inverted(photo, scene)]
        said += _specks(photo, things)
        said += [] if present else ["it shows none of the concepts: nothing is learnt from it"]
        warnings += [f"{photo.source}: {one}" for one in said]
    warnings += _doubts(scene, coverages, overlaps)
    unlearnable = tuple(handle for handle in scene.handles if handle not in seen)
    return ScenesReport(
        tuple(framings), tuple(coverages), tuple(overlaps), tuple(warnings), unlearnable
    )


def covered(photo: Photo, k: int) -> float:
    """Return the fraction of the photo that concept k covers, 0..1."""
    return float((photo.masks[k] >= INSIDE).mean())


def bounding_box(photo: Photo, k: int) -> tuple[int, int, int, int] | None:
    """Return concept k's (left, top, right, bottom) in pixels, or None where it is absent."""
    ys, xs = np.nonzero(photo.masks[k] >= INSIDE)
    if not len(ys):
        return None
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def _coverages(photo: Photo, framed: Photo, kept: Sequence[float], scene: Scene) -> list[Coverage]:
    return [
        Coverage(
            handle=concept.handle,
            noun=concept.noun,
            photo=photo.source,
            of_photo=covered(photo, k),
            of_frame=covered(framed, k),
            kept=kept[k],
            box=bounding_box(photo, k),
        )
        for k, concept in enumerate(scene.concepts)
    ]


def _overlaps(photo: Photo, handles: Sequence[str]) -> list[Overlap]:
    found = []
    shared = shared_areas(photo.masks >= INSIDE)
    for a, b in combinations(photo.present, 2):
        if shared[a, b]:
            iou = shared[a, b] / (shared[a, a] + shared[b, b] - shared[a, b])
            of_smaller = shared[a, b] / min(shared[a, a], shared[b, b])
            found.append(
                Overlap((handles[a], handles[b]), photo.source, float(of_smaller), float(iou))
            )
    return found


def _is_seen(framed: Photo, k: int, canvas: Canvas, resize: Resize) -> bool:
    """Tell whether enough of concept k is left in the frame to be learnt from it alone."""
    if k not in framed.present:
        return False
    mask, size = framed.masks[k : k + 1], framed.size
    cells = float(grid_masks(mask, canvas.latents(size), resize=resize).sum())
    return cells >= LEAST_CELLS and bool(grid_masks(mask, canvas.maps(size), resize=resize).any())


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


def _doubts(scene: Scene, coverages: Sequence[Coverage], overlaps: Sequence[Overlap]) -> list[str]:
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
    by_noun: dict[str, list[str]] = {}
    for concept in scene.concepts:
        by_noun.setdefault(concept.noun.casefold(), []).append(concept.handle)
    said += [
        f"{' and '.join(handles)} have one noun, {noun!r}: what tells them apart is learnt less "
        "well; give each a noun of its own, such as 'red cup' and 'blue cup'"
        for noun, handles in by_noun.items()
        if len(handles) > 1 and noun != UNNAMED_NOUN
    ]
    if len(scene.things) > MANY_CONCEPTS:
        said.append(
            f"{len(scene.things)} concepts: more than {MANY_CONCEPTS} at once tend to be learnt "
            "less well; train longer, or in two scenes"
        )
    unnamed = [c.handle for c in scene.concepts if c.noun == UNNAMED_NOUN]
    if unnamed:
        said.append(
            f"{', '.join(unnamed)}: no class noun, so {UNNAMED_NOUN!r} is used; "
            "a real noun gives training a better start"
        )
    return said
