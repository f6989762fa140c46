"""A judge: what tells things apart, what weighs captions, what finds things in pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lora_scene.errors import JudgingError, did_you_mean
from lora_scene.judging.encoders import (
    CLIP,
    DINO,
    CaptionEncoder,
    ClipEncoder,
    DinoEncoder,
    PictureEncoder,
)
from lora_scene.judging.finding import Finder, SegmenterFinder
from lora_scene.judging.mini import MiniJudge

MINI_JUDGE, PAPER_JUDGE = JUDGES = ("mini", "clip+dino")
PARTS = ("clip", "dino", "finder")  # of the paper's judge
ATTENTION = "attention"

DINO_FLOOR = 0.4
"""DINO ViT-B/16 cosine from which two cut-outs count as the same thing: between the usual values
for different things of one kind (0.2 to 0.4) and for one thing in two photos (0.6 and more)."""

MINI_FLOOR = 0.7
"""The same for the embedded judge: 95 in 100 cut-outs of one drawing are above it, one in four of
another style's drawing of the same noun (`benchmarks.mini_world.likeness`)."""


@dataclass(frozen=True)
class Judge:
    """What pictures are weighed with.

    Attributes:
        name: For reports.
        identity: Tells things apart.
        captions: Weighs pictures against texts.
        finder: Finds things; None takes the regions of the handles' attention.
        same_floor: Identity cosine from which two cut-outs count as the same thing.
    """

    name: str
    identity: PictureEncoder
    captions: CaptionEncoder
    finder: Finder | None
    same_floor: float


def load_judge(
    name: str,
    *,
    device: str = "cpu",
    clip: str | Path | None = None,
    dino: str | Path | None = None,
    finder: Finder | None = None,
    folder: Path | str | None = None,
) -> Judge:
    """Load a judge by name.

    Args:
        name: `mini`, the embedded judge of the mini world; or `clip+dino`, the paper's.
        device: Where it computes.
        clip: Hub id or folder of the CLIP of `clip+dino`; None takes ViT-L/14.
        dino: Hub id or folder of the DINO of `clip+dino`; None takes ViT-B/16.
        finder: What finds things for `clip+dino`; None takes the handles' attention.
        folder: Of the judge `mini`; None takes the embedded one.

    Raises:
        JudgingError: There is no such judge, its weights cannot be had, or a part is given that it
            does not have.
    """
    _refuse_idle(name, dict(zip(PARTS, (clip, dino, finder), strict=True)), folder)
    if name == MINI_JUDGE:
        mini = MiniJudge(folder, device=device)
        return Judge(name, mini, mini, mini, MINI_FLOOR)
    if name == PAPER_JUDGE:
        return Judge(
            name,
            DinoEncoder(dino or DINO, device=device),
            ClipEncoder(clip or CLIP, device=device),
            finder,
            DINO_FLOOR,
        )
    raise JudgingError(
        "no such judge", where=name, expected=" or ".join(JUDGES), hint=did_you_mean(name, JUDGES)
    )


def open_finder(name: str, *, device: str = "cpu") -> Finder | None:
    """Load what finds things: a segmenter that follows words, or None for `attention`.

    Raises:
        JudgingError: A segmenter that follows no words.
        SegmenterError: There is no such segmenter, or its weights cannot be had.
    """
    if name == ATTENTION:
        return None
    from lora_scene.scenes.segmenters.catalog import open_segmenter

    segmenter = open_segmenter(name, device=device)
    if "words" not in segmenter.accepts:
        raise JudgingError(
            "this segmenter does not follow words, so it cannot find nouns",
            where=name,
            expected=f"{ATTENTION}, clipseg, grounding-dino or sam3",
        )
    return SegmenterFinder(segmenter)


def _refuse_idle(name: str, parts: Mapping[str, object], folder: object) -> None:
    """Refuse a part of the other judge, which would be left out in silence."""
    given = [part for part, value in parts.items() if value is not None]
    idle = {MINI_JUDGE: given, PAPER_JUDGE: ["folder"] * (folder is not None)}.get(name)
    if idle:
        raise JudgingError(
            "a part that this judge does not have",
            where=name,
            expected="a folder" if name == MINI_JUDGE else ", ".join(PARTS),
            got=", ".join(idle),
            hint="leave it out, or take the other judge",
        )
