"""Scores: what each picture was measured at, and their means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from lora_scene.judging.comparison import Comparison, compare, rates, reference_looks
from lora_scene.judging.encoders import Vectors
from lora_scene.judging.finding import Sighting, regions_of_maps, without
from lora_scene.judging.judge import Judge
from lora_scene.judging.metrics import layout_copy, mean, paired_cosines
from lora_scene.judging.plans import Cell
from lora_scene.judging.watched_drawing import Drawn
from lora_scene.scenes.scene import INSIDE, Scene


@dataclass(frozen=True, eq=False)
class Scores:
    """What one picture was measured at.

    Attributes:
        prompt: With handles.
        plain: With class nouns.
        seed: Of its noise.
        subset: The concepts that the prompt names.
        handles: Of all concepts.
        prompt_similarity: Caption cosine of the picture and the plain prompt.
        layout_copy: Handle to the greatest IoU of its regions with its training masks.
        background: Cosine of what lies around the things, here and in the photos.
        comparison: The things in it against the concepts.
    """

    prompt: str
    plain: str
    seed: int
    subset: tuple[int, ...]
    handles: tuple[str, ...]
    prompt_similarity: float
    layout_copy: Mapping[str, float]
    background: float
    comparison: Comparison

    @property
    def identity(self) -> Mapping[str, float]:
        """Return each named handle's identity cosine."""
        return {self.handles[k]: self.comparison.identity(k) for k in self.comparison.named}

    @property
    def missing(self) -> tuple[str, ...]:
        """Return the named handles that nothing resembles."""
        return tuple(self.handles[k] for k in self.comparison.missing)

    @property
    def mixed(self) -> tuple[str, ...]:
        """Return the named handles in whose place another concept stands."""
        return tuple(self.handles[k] for k in self.comparison.mixed)

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it."""
        own = {field.name: getattr(self, field.name) for field in fields(self)[:-1]}
        compared = self.comparison
        return {
            **own,
            "identity": self.identity,
            "is_exact": compared.is_exact,
            "missing": self.missing,
            "mixed": self.mixed,
            "repeats": compared.repeats,
            "off_diagonal": compared.off_diagonal,
            "owners": compared.owners,
            "likeness": compared.likeness.round(4).tolist(),
        }


def find_things(drawn: Drawn, scene: Scene, judge: Judge) -> list[Sighting]:
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
    found: Iterable[Sequence[Sighting]],
    *,
    scene: Scene,
    judge: Judge,
) -> tuple[Scores, ...]:
    """Measure every picture.

    Args:
        cells: What was asked for.
        drawn: What came out, in the same order.
        found: The things in each picture; those of one are held at a time.
        scene: Framed to the pictures' size.
        judge: What pictures are weighed with.
    """
    references = reference_looks(scene, judge.identity)
    around = _surroundings(scene, judge)
    said = paired_cosines(
        judge.captions.embed_pictures([one.pixels for one in drawn]),
        judge.captions.embed_texts([cell.plain for cell in cells]),
    )
    eyes, floor = judge.identity, judge.same_floor
    return tuple(
        Scores(
            prompt=cell.asked.prompt,
            plain=cell.plain,
            seed=cell.asked.seed,
            subset=cell.subset,
            handles=scene.handles,
            prompt_similarity=float(similarity),
            layout_copy=_copied_places(cell, things, scene),
            background=_likeness_around(one, things, around, judge),
            comparison=compare(
                one.pixels, things, references, encoder=eyes, named=cell.subset, floor=floor
            ),
        )
        for cell, one, things, similarity in zip(cells, drawn, found, said, strict=True)
    )


def summarise(scores: Sequence[Scores]) -> dict[str, float | None]:
    """Return the means over pictures; identity is the mean over pictures and named concepts."""
    return {
        "identity": mean(value for one in scores for value in one.identity.values()),
        "prompt_similarity": mean(one.prompt_similarity for one in scores),
        **rates([one.comparison for one in scores]),
        "layout_copy": mean(value for one in scores for value in one.layout_copy.values()),
        "background": mean(one.background for one in scores),
    }


def by_concept(
    scores: Sequence[Scores], scene: Scene, fits: Mapping[str, float]
) -> dict[str, dict[str, float | None]]:
    """Return each thing's means over the pictures whose prompts name it."""
    table: dict[str, dict[str, float | None]] = {}
    for handle in (scene.handles[k] for k in scene.things):
        named = [one for one in scores if handle in one.identity]
        table[handle] = {
            "identity": mean(one.identity[handle] for one in named),
            "layout_copy": mean(one.layout_copy.get(handle) for one in named),
            "missing_rate": mean(float(handle in one.missing) for one in named),
            "mixing_rate": mean(float(handle in one.mixed) for one in named),
            "attention_iou": fits.get(handle),
        }
    return table


def _copied_places(cell: Cell, things: Sequence[Sighting], scene: Scene) -> dict[str, float]:
    copied: dict[str, float] = {}
    for one in things:
        if one.owner is not None and one.owner in cell.subset:
            handle = scene.handles[one.owner]
            trained = [photo.masks[one.owner] >= INSIDE for photo in scene.photos]
            copied[handle] = max(layout_copy(one.region, trained), copied.get(handle, 0.0))
    return copied


def _likeness_around(
    drawn: Drawn, things: Sequence[Sighting], around: Vectors, judge: Judge
) -> float:
    rest = without(drawn.pixels, [thing.region for thing in things])
    return float((judge.identity.embed_pictures([rest]) @ around.T).max())


def _surroundings(scene: Scene, judge: Judge) -> Vectors:
    things = list(scene.things)
    return judge.identity.embed_pictures(
        [without(p.pixels, [mask >= INSIDE for mask in p.masks[things]]) for p in scene.photos]
    )
