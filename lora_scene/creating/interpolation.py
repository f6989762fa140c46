"""From one picture to another in small steps: prompts, concepts, adapters, weights, seeds.

The noise is shared, so that only what differs between the ends moves:

    text(s)   = (1 - s) text_0 + s text_1
    weight(s) = (1 - s) weight_0 + s weight_1, of each adapter
    eps(s)    = slerp(eps_0, eps_1, s), which keeps it standard normal; one seed keeps it still
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lora_scene.backbones.backbone import TextEncoding
from lora_scene.creating.encoding import Text, encode_prompts
from lora_scene.creating.picture_files import save_gif, save_image, save_picture
from lora_scene.creating.requests import provenance
from lora_scene.creating.sampling import (
    Pixels,
    Sampling,
    Start,
    Tick,
    check_size,
    decode,
    denoise,
    start_noise,
)
from lora_scene.creating.sheets import strip
from lora_scene.creating.strength import strengthened
from lora_scene.creating.studio import Studio
from lora_scene.errors import CreationError

STRIP, GIF = "strip.png", "interpolation.gif"
STRIP_FRAMES = 8  # more would be too small to look at
FRAME_MILLISECONDS = 120
PARALLEL = 0.9995  # cosine from which slerp divides by almost zero, and a line serves as well


@dataclass(frozen=True)
class End:
    """One end of an interpolation.

    Attributes:
        prompt: With handles.
        seed: Of its noise.
        negative: The negative prompt.
        weights: Factor of each adapter's own weight, by the adapter's name; 1 where none is given.
        strengths: Handle to strength, see `strength`.
    """

    prompt: str
    seed: int = 0
    negative: str = ""
    weights: Mapping[str, float] = field(default_factory=dict)
    strengths: Mapping[str, float] = field(default_factory=dict)


def interpolate(
    studio: Studio,
    first: End,
    last: End,
    *,
    n_frames: int,
    sampling: Sampling | None = None,
    size: tuple[int, int] | None = None,
    tick: Tick | None = None,
) -> Iterator[Pixels]:
    """Draw frames from one end to the other, both included.

    Args:
        studio: The base and its adapters.
        first: What frame 0 is: the very picture that `generate` draws of it.
        last: What the last frame is.
        n_frames: At least 2.
        sampling: Solver, steps, guidance.
        size: (width, height), pixels.
        tick: Called after every step; the solver runs once a frame.

    Raises:
        CreationError: Too few frames, an unknown handle or adapter, a size that does not divide.
    """
    if n_frames < 2:
        raise CreationError("too few frames", where="frames", expected="at least 2", got=n_frames)
    _check_names(studio, first, last)
    sampling = sampling or Sampling()
    size = check_size(studio, size)
    texts = [_encode(studio, end) for end in (first, last)]
    for index in range(n_frames):
        share = index / (n_frames - 1)
        noises = [start_noise(studio, [end.seed], size) for end in (first, last)]
        nearer = noises[0] if share < 0.5 else noises[1]
        start = Start(slerp(noises[0].eps, noises[1].eps, share), nearer.generators)
        with studio.weighted(between_weights(studio, first, last, share)):
            text = between_texts(texts[0], texts[1], share)
            z = denoise(studio, text, start, sampling=sampling, tick=tick)
        yield decode(studio, z)[0]


def save_frames(
    studio: Studio,
    frames: Sequence[Pixels],
    ends: tuple[End, End],
    *,
    out: Path | str,
    sampling: Sampling,
    milliseconds: int = FRAME_MILLISECONDS,
) -> list[Path]:
    """Write frames as pictures, a strip of some of them, and a GIF that swings to and fro.

    Args:
        studio: What drew them.
        frames: (H, W, 3) uint8, in order.
        ends: What they lie between.
        out: The folder.
        sampling: Solver, steps, guidance.
        milliseconds: Of each frame in the GIF.
    """
    out = Path(out)
    record = {
        **provenance(studio),
        "verb": "interpolate",
        "ends": [_end_record(end) for end in ends],
        "n_frames": len(frames),
        "steps": sampling.n_steps,
        "guidance": sampling.guidance,
        "scheduler": sampling.scheduler,
    }
    shares = [index / (len(frames) - 1) for index in range(len(frames))]
    paths = [
        save_picture(out / f"{index:03}.png", frame, {**record, "share": shares[index]})
        for index, frame in enumerate(frames)
    ]
    swing = [*frames, *frames[-2:0:-1]]
    paths.append(save_image(out / STRIP, _strip(frames)))
    paths.append(save_gif(out / GIF, swing, milliseconds=milliseconds))
    return paths


def _strip(frames: Sequence[Pixels]) -> Any:
    """Lay out some of the frames, evenly chosen, both ends included."""
    n_shown, last = min(len(frames), STRIP_FRAMES), len(frames) - 1
    shown = [round(i * last / (n_shown - 1)) for i in range(n_shown)]
    return strip([frames[i] for i in shown], labels=[f"{i / last:.2f}" for i in shown])


def _end_record(end: End) -> dict[str, Any]:
    return {
        "prompt": end.prompt,
        "seed": end.seed,
        "negative": end.negative,
        "weights": dict(end.weights),
        "strengths": dict(end.strengths),
    }


def make_ends(
    studio: Studio,
    template: str,
    names: tuple[str, str],
    *,
    weights: tuple[Sequence[float], Sequence[float]] = ((), ()),
    seeds: tuple[int, int | None] = (0, None),
    negative: str = "",
) -> tuple[End, End]:
    """Make two ends from one template and what differs between them.

    Args:
        studio: Its adapters' order is that of the weights.
        template: A prompt with {} for the names.
        names: What {} becomes at each end.
        weights: Factors of the adapters' weights at each end; none leaves all at 1.
        seeds: Of each end; None takes the first's.
        negative: The negative prompt of both.

    Raises:
        CreationError: The template has no {}, or the weights are not one an adapter.
    """
    if "{}" not in template:
        raise CreationError("no place for the ends", where=template, expected="{} in the prompt")
    loaded = [one.name for one in studio.adapters]
    for some in weights:
        if some and len(some) != len(loaded):
            raise CreationError(
                "not one weight an adapter", expected=f"{len(loaded)}", got=f"{len(some)}"
            )
    first, last = (
        End(
            template.replace("{}", name),
            seed=seeds[0] if seed is None else seed,
            negative=negative,
            weights=dict(zip(loaded, some, strict=False)),
        )
        for name, some, seed in zip(names, weights, seeds, strict=True)
    )
    return first, last


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Interpolate on the sphere: sin((1-s) w)/sin(w) a + sin(s w)/sin(w) b, w their angle.

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


def between_weights(studio: Studio, first: End, last: End, share: float) -> dict[str, float]:
    """Return each adapter's factor in between."""
    return {
        one.name: (1 - share) * first.weights.get(one.name, 1.0)
        + share * last.weights.get(one.name, 1.0)
        for one in studio.adapters
    }


def _between(a: TextEncoding, b: TextEncoding, share: float) -> TextEncoding:
    pooled = None
    if a.pooled is not None and b.pooled is not None:
        pooled = lerp(a.pooled, b.pooled, share)
    return TextEncoding(lerp(a.states, b.states, share), pooled)


def _encode(studio: Studio, end: End) -> Text:
    with studio.weighted(end.weights), strengthened(studio, end.strengths):
        return encode_prompts(studio, [end.prompt], [end.negative])


def _check_names(studio: Studio, first: End, last: End) -> None:
    known = [one.name for one in studio.adapters]
    unknown = sorted({*first.weights, *last.weights} - set(known))
    if unknown:
        raise CreationError(
            "no such adapter is loaded",
            where=", ".join(unknown),
            expected=", ".join(known) or "none is loaded",
        )
