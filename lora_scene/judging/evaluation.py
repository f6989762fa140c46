"""Judge an adapter: draw what a plan says, measure it, and give every number its name.

adapter, scene, judge, plan -> pictures -> found things -> scores a picture -> means
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lora_scene.adapters.whole_model import FULL_MODEL
from lora_scene.backbones.sources import find_base
from lora_scene.creating.names import Names
from lora_scene.creating.picture_files import picture_bytes, save_picture, save_set
from lora_scene.creating.requests import Request
from lora_scene.creating.studio import Studio, open_studio
from lora_scene.errors import JudgingError
from lora_scene.files import json_bytes
from lora_scene.judging.distribution import SetReport
from lora_scene.judging.encoders import Vectors
from lora_scene.judging.judge import Judge
from lora_scene.judging.metrics import diversity, drift, mean
from lora_scene.judging.plans import Cell, Plan, cells_of, drift_prompts
from lora_scene.judging.scores import Scores, by_concept, find_things, measure, summarise
from lora_scene.judging.watched_drawing import Drawn, draw_watched, training_maps
from lora_scene.learning.held import SHARES, map_iou
from lora_scene.scenes.canvas import Canvas
from lora_scene.scenes.framing import frame_scene, grid_masks
from lora_scene.scenes.pictures import Pixels
from lora_scene.scenes.scene import Scene
from lora_scene.scenes.union import prompt_for
from lora_scene.size import Size

EVALUATION = "evaluation.json"

Progress = Callable[[int, int], None]  # pictures done, of how many


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All that was measured.

    Attributes:
        summary: Metric to its mean; None where it cannot be had.
        concepts: Handle to its identity, layout copy, missing and mixing rates, attention IoU.
        scores: One per picture.
        pictures: (H, W, 3) uint8 each, in the same order.
        judge: The judge's name.
    """

    summary: Mapping[str, float | None]
    concepts: Mapping[str, Mapping[str, float | None]]
    scores: tuple[Scores, ...]
    pictures: tuple[Pixels, ...]
    judge: str

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the pictures, as JSON can hold it."""
        return {
            "judge": self.judge,
            "summary": dict(self.summary),
            "concepts": {handle: dict(own) for handle, own in self.concepts.items()},
            "pictures": [one.as_dict() for one in self.scores],
        }


def evaluate(
    studio: Studio,
    scene: Scene,
    *,
    judge: Judge,
    plan: Plan | None = None,
    base: Studio | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Draw pictures with an adapter and measure them.

    Args:
        studio: The base with the scene's adapter in it.
        scene: What the adapter was learnt from.
        judge: What pictures are weighed with.
        plan: What is drawn.
        base: The untouched base, for the drift; None takes the studio at weight 0, which is the
            same unless the base itself was fine-tuned (see `untouched_base`).
        progress: Called after every picture.

    Raises:
        JudgingError: The scene's handles are not those of the adapter.
    """
    plan = plan or Plan()
    check_learnt(studio, scene)
    weighed = draw_and_weigh(studio, scene, judge=judge, plan=plan, progress=progress)
    with studio.weighted(plan.weight):
        fits = attention_fit(studio, frame_scene(scene, trained_canvas(studio)))
    summary = {
        **weighed.summary,
        "drift": measure_drift(studio, scene, base=base, judge=judge, plan=plan),
        "attention_iou": mean(fits.values()),
    }
    concepts = by_concept(weighed.scores, scene, fits)
    return replace(weighed, summary=summary, concepts=concepts)


def draw_and_weigh(
    studio: Studio, scene: Scene, *, judge: Judge, plan: Plan, progress: Progress | None = None
) -> Evaluation:
    """Draw a plan's pictures and measure them; see `weigh`."""
    cells = cells_of(plan, scene)
    asked = [cell.asked for cell in cells]
    drawn = draw_planned(studio, asked, plan)
    framed = frame_scene(scene, studio.backbone.canvas())
    return weigh(cells, drawn, scene=framed, judge=judge, progress=progress)


def draw_planned(studio: Studio, asked: Sequence[Request], plan: Plan) -> Iterator[Drawn]:
    """Draw requests as a plan says, or take those up that it has kept; see `draw_watched`."""
    return draw_watched(
        studio, asked, sampling=plan.sampling, batch_size=plan.batch_size, kept=plan.kept
    )


def weigh(
    cells: Sequence[Cell],
    drawn: Iterable[Drawn],
    *,
    scene: Scene,
    judge: Judge,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure pictures, whoever drew them; drift and attention are left out.

    Args:
        cells: What was asked for.
        drawn: What comes out, in the same order.
        scene: Framed to the pictures' size.
        judge: What pictures are weighed with.
        progress: Called after every picture.

    Raises:
        JudgingError: Two things have one noun, and the judge finds things by nouns.
    """
    refuse_equal_nouns(scene, judge)
    pictures = []
    for one in drawn:
        pictures.append(one)
        if progress is not None:
            progress(len(pictures), len(cells))
    found = (find_things(one, scene, judge) for one in pictures)  # regions are as large as pictures
    scores = measure(cells, pictures, found, scene=scene, judge=judge)
    pixels = tuple(one.pixels for one in pictures)
    summary = {
        **summarise(scores),
        "diversity": _diversity(cells, pixels, judge),
        "drift": None,
        "attention_iou": None,
    }
    return Evaluation(summary, by_concept(scores, scene, {}), scores, pixels, judge.name)


def refuse_equal_nouns(scene: Scene, judge: Judge) -> None:
    """Refuse things that a judge cannot tell apart where it looks for them."""
    nouns = [scene.nouns[k].casefold() for k in scene.things]
    doubled = sorted({noun for noun in nouns if nouns.count(noun) > 1})
    if judge.finder is not None and not judge.finder.finds_every and doubled:
        raise JudgingError(
            "two things of one noun cannot be told apart by a judge that finds them by nouns",
            where=scene.source,
            got=", ".join(doubled),
            hint="give each its own noun in scene.toml, or --judge clip+dino --finder attention",
        )


def check_learnt(names: Names, scene: Scene) -> None:
    """Refuse a scene whose handles the adapter does not know."""
    unknown = [handle for handle in scene.handles if handle not in names.nouns]
    if unknown:
        raise JudgingError(
            "the adapter was learnt from another scene",
            where=scene.source,
            expected=f"the handles {', '.join(names.nouns) or 'none'}",
            got=", ".join(scene.handles),
            hint="give the scene that it was trained on",
        )


def strange_photos(names: Names, scene: Scene) -> list[str]:
    """Return the photos of a scene from which no adapter was learnt, as far as adapters tell."""
    learnt = {digest for info in names.infos for digest in info.image_hashes}
    return [photo.source for photo in scene.photos if learnt and photo.digest not in learnt]


def measure_drift(
    studio: Studio, scene: Scene, *, base: Studio | None, judge: Judge, plan: Plan
) -> float | None:
    """Return how much prompts without handles changed (see `metrics.drift`)."""
    wanted = drift_prompts(plan, scene)
    bare = [replace(one, weight=0.0) for one in wanted]

    def embedded(by: Studio, asked: Sequence[Request]) -> Vectors:
        return judge.captions.embed_pictures([one.pixels for one in draw_planned(by, asked, plan)])

    return drift(embedded(base or studio, bare), embedded(studio, wanted))


def trained_canvas(studio: Studio) -> Canvas:
    """Return the sizes at which a studio's adapters were learnt, as far as they are the base's."""
    return studio.backbone.canvas("square" if studio.photo_size is None else "photo")


def attention_fit(studio: Studio, scene: Scene) -> dict[str, float]:
    """Return each thing's IoU of attention and mask, over the photos, noised.

    Args:
        studio: The base and its adapter.
        scene: Framed to the sizes at which it was learnt, see `trained_canvas`.
    """
    scores: dict[str, list[float]] = {scene.handles[k]: [] for k in scene.things}
    for photo in scene.photos:
        shown = [k for k in scene.things if k in photo.present]
        if not shown:
            continue
        prompt = prompt_for([scene.handles[k] for k in shown])
        maps = training_maps(studio, photo.pixels, prompt, shares=SHARES)
        masks = grid_masks(photo.masks[shown], Size.of(maps.shape))
        for k, own, mask in zip(shown, maps, masks, strict=True):
            scores[scene.handles[k]].append(map_iou(own, mask))
    return {handle: float(np.mean(values)) for handle, values in scores.items() if values}


def untouched_base(studio: Studio, *, device: str = "auto") -> Studio | None:
    """Load the base that a fine-tuned one came from; None where the base is untouched."""
    name = studio.backbone.name.replace("\\", "/").rstrip("/")
    if name.rpartition("/")[2] != FULL_MODEL or not studio.adapters:
        return None
    info = studio.adapters[0].adapter.info
    base = find_base(info.base_model, base_hash=info.base_hash, near=Path(name).parent)
    return open_studio([], base=base, device=device)


def save_evaluation(result: Evaluation, folder: Path, sets: SetReport | None = None) -> Path:
    """Write every picture, and all numbers as `EVALUATION`, whose place is returned.

    What else lies there under these names stays, see `save_set`.

    Args:
        result: What was measured.
        folder: Where to.
        sets: How the pictures relate to reference pictures, to be kept with it.
    """
    files = {}
    for index, (one, pixels) in enumerate(zip(result.scores, result.pictures, strict=True)):
        path = folder / f"{index:03}.png"
        files[path] = picture_bytes(path, pixels, {"scores": one.as_dict()})
    numbers = result.as_dict() | ({"sets": asdict(sets)} if sets else {})
    return save_set({**files, folder / EVALUATION: json_bytes(numbers)})[-1]


def save_pictures(result: Evaluation, folder: Path) -> list[Path]:
    """Write every picture with its scores, and return the files."""
    pairs = zip(result.scores, result.pictures, strict=True)
    return [
        save_picture(folder / f"{index:03}.png", pixels, {"scores": one.as_dict()})
        for index, (one, pixels) in enumerate(pairs)
    ]


def _diversity(cells: Sequence[Cell], pictures: Sequence[Pixels], judge: Judge) -> float | None:
    """Return the mean over prompts of the diversity over seeds."""
    groups: dict[str, list[Pixels]] = {}
    for cell, pixels in zip(cells, pictures, strict=True):
        groups.setdefault(cell.asked.prompt, []).append(pixels)
    return mean(diversity(judge.identity.embed_pictures(group)) for group in groups.values())
