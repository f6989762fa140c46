"""Marks: what each picture was measured at, and their means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lora_scene.judging.comparison import Comparison, compare, rates, reference_looks
from lora_scene.judging.encoders import Vectors
from lora_scene.judging.finding import Found, regions_of_maps, resize_region, without
from lora_scene.judging.judge import Judge
from lora_scene.judging.metrics import layout_copy, mean, paired_cosines
from lora_scene.judging.plans import Cell
from lora_scene.judging.watched_drawing import Drawn
from lora_scene.scenes.scene import INSIDE, Scene


@dataclass(frozen=True)
class Marks:
    """What one picture was measured at.

    Attributes:
        prompt: With handles.
        plain: With class nouns.
        seed: Of its noise.
        subset: The concepts that the prompt names.
        prompt_similarity: Caption cosine of the picture and the plain prompt.
        identity: Handle to identity cosine.
        layout_copy: Handle to the greatest IoU of its regions with its training masks.
        background: Cosine of what lies around the things, here and in the photos.
        missing: Named handles that nothing resembles.
        mixed: Named handles in whose place another concept stands.
        repeats: Things beyond the first of a concept.
        off_diagonal: Mean likeness to concepts that they are not.
    """

    prompt: str
    plain: str
    seed: int
    subset: tuple[int, ...]
    prompt_similarity: float
    identity: Mapping[str, float]
    layout_copy: Mapping[str, float]
    background: float
    missing: tuple[str, ...]
    mixed: tuple[str, ...]
    repeats: int
    off_diagonal: float | None


def find_things(drawn: Drawn, scene: Scene, judge: Judge) -> list[Found]:
    """Find things by the judge's finder, or by the handles' attention where it has none.

    The judge sees class nouns only, so a concept that the prompt does not name may be found too.
    """
    if judge.finder is not None:
        return judge.finder.find(drawn.pixels, scene.concepts)
    owners = [scene.handles.index(handle) for handle in drawn.handles]
    things = [i for i, k in enumerate(owners) if k in scene.things]
    shape = drawn.pixels.shape[:2]
    return regions_of_maps(
        drawn.maps[things], [owners[i] for i in things], shape=(shape[0], shape[1])
    )


def measure(
    cells: Sequence[Cell],
    drawn: Sequence[Drawn],
    found: Sequence[Sequence[Found]],
    *,
    scene: Scene,
    judge: Judge,
) -> tuple[tuple[Marks, ...], list[Comparison]]:
    """Measure every picture.

    Args:
        cells: What was asked for.
        drawn: What came out, in the same order.
        found: The things in each picture.
        scene: Framed to the pictures' size.
        judge: What pictures are weighed with.
    """
    references = reference_looks(scene, judge.identity)
    around = _surroundings(scene, judge)
    said = paired_cosines(
        judge.captions.embed_pictures([one.pixels for one in drawn]),
        judge.captions.embed_texts([cell.plain for cell in cells]),
    )
    marks, comparisons = [], []
    for cell, one, things, similarity in zip(cells, drawn, found, said, strict=True):
        compared = compare(
            one.pixels,
            things,
            references,
            encoder=judge.identity,
            named=cell.subset,
            floor=judge.same_floor,
        )
        comparisons.append(compared)
        rest = without(one.pixels, [thing.region for thing in things])
        background = judge.identity.embed_pictures([rest]) @ around.T
        marks.append(_marks(cell, things, compared, scene, float(similarity), background))
    return tuple(marks), comparisons


def summarise(marks: Sequence[Marks], comparisons: Sequence[Comparison]) -> dict[str, float | None]:
    """Return the means over pictures; identity is the mean over pictures and named concepts."""
    return {
        "identity": mean(value for one in marks for value in one.identity.values()),
        "prompt_similarity": mean(one.prompt_similarity for one in marks),
        **rates(comparisons),
        "layout_copy": mean(value for one in marks for value in one.layout_copy.values()),
        "background": mean(one.background for one in marks),
    }


def by_concept(
    marks: Sequence[Marks], scene: Scene, fits: Mapping[str, float]
) -> dict[str, dict[str, float | None]]:
    """Return each thing's means over the pictures whose prompts name it."""
    table: dict[str, dict[str, float | None]] = {}
    for handle in (scene.handles[k] for k in scene.things):
        named = [one for one in marks if handle in one.identity]
        table[handle] = {
            "identity": mean(one.identity[handle] for one in named),
            "layout_copy": mean(one.layout_copy.get(handle) for one in named),
            "missing_rate": mean(float(handle in one.missing) for one in named),
            "mixing_rate": mean(float(handle in one.mixed) for one in named),
            "attention_iou": fits.get(handle),
        }
    return table


def _marks(
    cell: Cell,
    things: Sequence[Found],
    compared: Comparison,
    scene: Scene,
    similarity: float,
    background: Vectors,
) -> Marks:
    handles = scene.handles
    copied: dict[str, float] = {}
    for one in things:
        if one.owner is not None and one.owner in cell.subset:
            handle = handles[one.owner]
            copied[handle] = max(_copied(one, scene), copied.get(handle, 0.0))
    return Marks(
        prompt=cell.asked.prompt,
        plain=cell.plain,
        seed=cell.asked.seed,
        subset=cell.subset,
        prompt_similarity=similarity,
        identity={handles[k]: compared.identity(k) for k in compared.named},
        layout_copy=copied,
        background=float(background.max()),
        missing=tuple(handles[k] for k in compared.missing),
        mixed=tuple(handles[k] for k in compared.mixed),
        repeats=compared.repeats,
        off_diagonal=compared.off_diagonal,
    )


def _copied(one: Found, scene: Scene) -> float:
    shape = (one.region.shape[0], one.region.shape[1])
    trained = [resize_region(photo.masks[one.owner] >= INSIDE, shape) for photo in scene.photos]
    return layout_copy(one.region, trained)


def _surroundings(scene: Scene, judge: Judge) -> Vectors:
    things = list(scene.things)
    return judge.identity.embed_pictures(
        [without(p.pixels, [mask >= INSIDE for mask in p.masks[things]]) for p in scene.photos]
    )
