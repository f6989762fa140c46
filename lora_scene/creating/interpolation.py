"""From one picture to another in small steps: prompts, concepts, adapters, weights, seeds.

The noise is shared, so that only what differs between the ends moves:

    text(s)   = (1 - s) text_0 + s text_1
    weight(s) = (1 - s) weight_0 + s weight_1, of each adapter
    eps(s)    = slerp(eps_0, eps_1, s), which keeps it standard normal; one seed keeps it still
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL.Image import Image, fromarray
from torch import Tensor

from lora_scene.backbones.backbone import TextEncoding
from lora_scene.creating.encoding import Text
from lora_scene.creating.picture_files import picture_bytes, save_growing
from lora_scene.creating.records import provenance
from lora_scene.creating.rendering import checked, encode, render
from lora_scene.creating.requests import Amounts, Control, Request
from lora_scene.creating.sampling import Start, Tick, check_size, start_noise
from lora_scene.creating.schedulers import draws_noise, make_scheduler
from lora_scene.creating.studio import Cast, Studio
from lora_scene.errors import CreationError, warn_of
from lora_scene.picture_writing import encode_gif, encode_picture
from lora_scene.recipe.templates import fill
from lora_scene.scenes.pictures import Pixels
from lora_scene.sheets import contact_sheet, stacked

STRIP, GIF = "strip.png", "interpolation.gif"
STRIP_COLUMNS = 8  # more would be too small to look at
SHARED = ("steps", "guidance", "scheduler", "width", "height")  # of all frames: the first end's
FRAME_MILLISECONDS = 120
PARALLEL = 0.9995  # cosine from which slerp divides by almost zero, and a line serves as well


def interpolate(
    studio: Studio,
    first: Request,
    last: Request,
    *,
    n_frames: int,
    tick: Tick | None = None,
) -> Iterator[Pixels]:
    """Draw frames from one end to the other, both included.

    Args:
        studio: The base and its adapters.
        first: What frame 0 is: the very picture that `generate` draws of it. Its size, solver,
            steps and guidance are those of all frames.
        last: What the last frame is.
        n_frames: At least 2.
        tick: Called after every step; the solver runs once a frame.

    Raises:
        CreationError: Too few frames, an unknown handle or adapter, a size that does not divide,
            or an end that steers the attention, which two prompts cannot share.
    """
    if n_frames < 2:
        raise CreationError("too few frames", where="frames", expected="at least 2", got=n_frames)
    _refuse_attended(first, last)
    first, last = checked(studio, first), checked(studio, last)
    size = check_size(studio, first.size)
    scheduler = make_scheduler(studio.pipeline.scheduler, first.sampling.scheduler)
    if first.seed != last.seed and draws_noise(scheduler):
        warn_of(
            f"seeds {first.seed} and {last.seed}",
            "this scheduler draws noise at its steps, so the frames jump in the middle; "
            "dpm++, euler and ddim draw none",
        )
    texts = [encode(studio, [end]) for end in (first, last)]
    for index in range(n_frames):
        share = index / (n_frames - 1)
        noises = [start_noise(studio, [end.seed], size) for end in (first, last)]
        nearer = noises[0] if share < 0.5 else noises[1]
        start = Start(slerp(noises[0].eps, noises[1].eps, share), nearer.generators)
        weight = between_weights(studio, first, last, share)
        frame = replace(first, weight=weight, control=Control())
        text = between_texts(texts[0], texts[1], share)
        yield render(studio, [frame], text=text, start=start, tick=tick).pixels[0]


def save_frames(
    studio: Studio,
    frames: Iterable[Pixels],
    ends: tuple[Request, Request],
    *,
    n_frames: int,
    out: Path | str,
    milliseconds: int = FRAME_MILLISECONDS,
) -> list[Path]:
    """Write frames as pictures, each when it is drawn, then a strip and a GIF to and fro.

    Args:
        studio: What draws them.
        frames: (H, W, 3) uint8, in order.
        ends: What they lie between.
        n_frames: How many there are.
        out: The folder.
        milliseconds: Of each frame in the GIF.

    Raises:
        CreationError: See `interpolate`, which draws as frames are taken.
        FileError: The folder cannot be written to.
    """
    out = Path(out)
    asked = [checked(studio, end).record() for end in ends]
    record = {
        **provenance(studio),
        "verb": "interpolate",
        "ends": [{key: end[key] for key in end if key not in SHARED} for end in asked],
        "n_frames": n_frames,
        **{key: asked[0][key] for key in SHARED},
    }

    def files() -> Iterator[tuple[Path, bytes]]:
        drawn = []
        for index, frame in enumerate(frames):
            path = out / f"{index:03}.png"
            told = {**record, "share": index / (n_frames - 1)}
            yield path, picture_bytes(path, frame, told)
            drawn.append(frame)
        yield out / STRIP, encode_picture(strip(drawn), out / STRIP)
        swing = [fromarray(frame) for frame in (*drawn, *drawn[-2:0:-1])]
        yield out / GIF, encode_gif(swing, milliseconds=milliseconds)

    return save_growing(files())


def strip(frames: Sequence[Pixels]) -> Image:
    """Lay all frames out, each under its share of the way, in even rows."""
    n_rows = math.ceil(len(frames) / STRIP_COLUMNS)
    wide = math.ceil(len(frames) / n_rows)
    labels = [f"{index / (len(frames) - 1):.2f}" for index in range(len(frames))]
    return stacked(
        [
            contact_sheet([list(frames[n : n + wide])], columns=labels[n : n + wide])
            for n in range(0, len(frames), wide)
        ]
    )


def make_ends(
    cast: Cast | Studio,
    template: Request,
    names: tuple[str, str],
    *,
    weights: tuple[Sequence[float], Sequence[float]] = ((), ()),
    seed: int | None = None,
) -> tuple[Request, Request]:
    """Make two ends from one template and what differs between them.

    Args:
        cast: Its adapters' order is that of the weights.
        template: Both ends, its prompt with {} for the names.
        names: What {} becomes at each end.
        weights: Factors of the adapters' weights at each end; none leaves all at 1.
        seed: Of the last end; None takes the first's.

    Raises:
        CreationError: The template has no {}, or the weights are not one an adapter.
    """
    if "{}" not in template.prompt:
        raise CreationError(
            "no place for the ends", where=template.prompt, expected="{} in the prompt"
        )
    loaded = [member.name for member in cast.members]
    for some in weights:
        if some and len(some) != len(loaded):
            raise CreationError(
                "not one weight an adapter", expected=f"{len(loaded)}", got=f"{len(some)}"
            )
    first, last = (
        replace(
            template,
            prompt=fill(template.prompt, name),
            weight=tuple(zip(loaded, some, strict=True)) if some else 1.0,
        )
        for name, some in zip(names, weights, strict=True)
    )
    return first, last if seed is None else replace(last, seed=seed)


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Interpolate on the sphere: sin((1-s) w)/sin(w) a + sin(s w)/sin(w) b, w their angle.

    Nearly parallel ones, for which sin(w) is next to nothing, are interpolated on the line.

    Args:
        a: Any shape.
        b: The same shape.
        share: s, 0..1; both ends are returned as they are.
    """
    if share in (0.0, 1.0) or torch.equal(a, b):
        return b if share == 1.0 else a
    cosine = torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)
    if cosine.abs() > PARALLEL:
        return lerp(a, b, share)
    angle = cosine.arccos()
    mixed: Tensor = (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / angle.sin()
    return mixed


def lerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Return (1 - s) a + s b, both ends as they are."""
    return b if share == 1.0 else a if share == 0.0 else (1 - share) * a + share * b


def between_texts(a: Text, b: Text, share: float) -> Text:
    """Return encoded prompts in between, pooled embeddings included."""
    return Text(
        _between(a.positive, b.positive, share),
        _between(a.negative, b.negative, share),
    )


def between_weights(studio: Studio, first: Request, last: Request, share: float) -> Amounts:
    """Return each adapter's factor in between."""

    def factor(end: Request, name: str) -> float:
        return dict(end.weight).get(name, 1.0) if isinstance(end.weight, tuple) else end.weight

    return tuple(
        (one.name, (1 - share) * factor(first, one.name) + share * factor(last, one.name))
        for one in studio.adapters
    )


def _between(a: TextEncoding, b: TextEncoding, share: float) -> TextEncoding:
    pooled = None
    if a.pooled is not None and b.pooled is not None:
        pooled = lerp(a.pooled, b.pooled, share)
    return TextEncoding(lerp(a.states, b.states, share), pooled)


def _refuse_attended(*ends: Request) -> None:
    for end in ends:
        if end.control.attended:
            raise CreationError("places and emphases are of one prompt", where=end.prompt)
