"""What `lora-scene check` tells of a scene's masks, as they are and at the training size."""

from __future__ import annotations

from dataclasses import dataclass

from lora_scene.scenes.canvas import Canvas
from lora_scene.scenes.coverage import Coverage, Overlap, coverages_of, overlaps_of
from lora_scene.scenes.doubts import doubts_about_photo, doubts_about_scene
from lora_scene.scenes.framing import Resize, frame, grid_masks, plan_frame
from lora_scene.scenes.pictures import grey_doubt
from lora_scene.scenes.scene import Photo, Scene
from lora_scene.size import Size

LEAST_CELLS = 0.5  # of the latents' grid: less is a smear of a few pixels, and is refused


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
        coverages += coverages_of(photo, framed, plan.kept, scene)
        overlaps += overlaps_of(photo, scene.handles)
        seen |= {scene.handles[k] for k in photo.present if _is_seen(framed, k, canvas, resize)}
        said = [*plan.warnings(canvas, things), *grey_doubt(photo.pixels)]
        said += doubts_about_photo(photo, framed, scene, canvas=canvas, resize=resize)
        warnings += [f"{photo.source}: {one}" for one in said]
    warnings += doubts_about_scene(scene, coverages, overlaps)
    unlearnable = tuple(handle for handle in scene.handles if handle not in seen)
    return ScenesReport(
        tuple(framings), tuple(coverages), tuple(overlaps), tuple(warnings), unlearnable
    )


def _is_seen(framed: Photo, k: int, canvas: Canvas, resize: Resize) -> bool:
    """Tell whether enough of concept k is left in the frame to be learnt from it alone."""
    if k not in framed.present:
        return False
    mask, size = framed.masks[k : k + 1], framed.size
    cells = float(grid_masks(mask, canvas.latents(size), resize=resize).sum())
    return cells >= LEAST_CELLS and bool(grid_masks(mask, canvas.maps(size), resize=resize).any())
