"""What a picture is asked for: the prompt, how it is drawn, what is wished of single concepts.

Numbers are checked here, before anything is loaded; what needs the adapters' handles or the base
is checked by `rendering.checked`. Importing this does not import torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lora_scene.creating import limits
from lora_scene.creating.schedulers import OWN, check_scheduler
from lora_scene.errors import CreationError
from lora_scene.size import Size

if TYPE_CHECKING:
    from lora_scene.creating.names import Names

N_STEPS = 30

Box = tuple[float, float, float, float]
Amounts = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn.

    Attributes:
        n_steps: Denoising steps.
        guidance: Classifier-free guidance (arXiv:2207.12598); 1 or less turns it off, None takes
            what suits the base.
        scheduler: A key of `schedulers.SAMPLERS`, or `base`.
        strength: Share of the noising that is run, 0..1; 1 starts at pure noise.
    """

    n_steps: int = N_STEPS
    guidance: float | None = None
    scheduler: str = OWN
    strength: float = 1.0

    def __post_init__(self) -> None:
        limits.check_range("steps", self.n_steps, 1, limits.MAX_STEPS)
        if self.guidance is not None:
            limits.check_number("guidance", self.guidance, limits.MAX_GUIDANCE)
        check_scheduler(self.scheduler)
        if not 0 < self.strength <= 1:
            raise CreationError(
                "a strength out of range", where="strength", expected="0..1", got=self.strength
            )
        if self.strength < 1 and self.n_steps == 1:
            raise CreationError(
                "one step redraws everything", where="steps", expected="2 or more", got=self.n_steps
            )

    @property
    def is_guided(self) -> bool:
        """Tell whether the negative prompt is looked at."""
        return self.guidance is None or self.guidance > 1


@dataclass(frozen=True)
class Place:
    """Where a concept should stand.

    Attributes:
        handle: The concept's handle.
        box: (left, top, right, bottom), shares of the picture's sides, 0..1.
    """

    handle: str
    box: Box

    def __post_init__(self) -> None:
        left, top, right, bottom = self.box
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise _no_place(f"{self.handle.strip('<>')}={','.join(map(str, self.box))}")

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read `bear=0.1,0.5,0.5,1.0`; the handle's brackets may be left out.

        Raises:
            CreationError: It has another form, or is no box within the picture.
        """
        number = r"(\d{1,9}\.?\d*|\.\d+)"
        match = re.fullmatch(rf"<?([^=<>]+)>?={','.join([number] * 4)}", text.strip(), re.ASCII)
        if match is None:
            raise _no_place(text)
        left, top, right, bottom = (float(part) for part in match.groups()[1:])
        return cls(f"<{match.group(1)}>", (left, top, right, bottom))


@dataclass(frozen=True)
class Control:
    """What a picture asks of single concepts.

    Attributes:
        places: Boxes that concepts should stand in.
        strengths: (handle, strength) pairs; see `rendering.strengthened`.
        emphases: (handle, factor) pairs: of the odds of attending to the handle's tokens.
    """

    places: tuple[Place, ...] = ()
    strengths: Amounts = ()
    emphases: Amounts = ()

    def __post_init__(self) -> None:
        for handle, amount in (*self.strengths, *self.emphases):
            limits.check_number(handle, amount)
        for handle, factor in self.emphases:
            if factor < 0:
                raise CreationError(
                    "a negative emphasis", where=handle, expected="0 or more", got=factor
                )

    @property
    def attended(self) -> tuple[str, ...]:
        """Return the handles whose attention is steered: of places, then of emphases."""
        return (*(place.handle for place in self.places), *(handle for handle, _ in self.emphases))

    @property
    def handles(self) -> tuple[str, ...]:
        """Return every handle that is asked anything of, each once."""
        return tuple(dict.fromkeys((*self.attended, *(handle for handle, _ in self.strengths))))

    def resolved(self, names: Names) -> Control:
        """Return the same with every handle as its adapter spells it.

        Raises:
            CreationError: No adapter knows a handle, or one is asked the same thing twice.
        """
        find = names.find_handle
        found = Control(
            tuple(Place(find(place.handle), place.box) for place in self.places),
            tuple((find(handle), strength) for handle, strength in self.strengths),
            tuple((find(handle), factor) for handle, factor in self.emphases),
        )
        for what, asked in (
            ("strengths", [handle for handle, _ in found.strengths]),
            ("emphases", [handle for handle, _ in found.emphases]),
            ("places", [place.handle for place in found.places]),
        ):
            for handle in asked:
                if asked.count(handle) > 1:
                    raise CreationError(f"two {what} of {handle}", expected="one of each handle")
        return found

    def shared_out(self, names: Names, prompts: Sequence[str]) -> list[Control]:
        """Return what each of several prompts is asked: of the handles alone that it names.

        Raises:
            CreationError: No adapter knows a handle, or no prompt names it.
        """
        resolved = self.resolved(names)
        named = [names.handles_in(prompt) for prompt in prompts]
        missing = [h for h in resolved.handles if not any(h in own for own in named)]
        if missing:
            raise CreationError(
                f"no prompt names {missing[0]}", where="; ".join(prompts), got=", ".join(missing)
            )
        return [resolved.only(own) for own in named]

    def only(self, handles: Sequence[str]) -> Control:
        """Return what is asked of some handles."""
        return Control(
            tuple(place for place in self.places if place.handle in handles),
            tuple(pair for pair in self.strengths if pair[0] in handles),
            tuple(pair for pair in self.emphases if pair[0] in handles),
        )

    def record(self) -> dict[str, Any]:
        """Return what a picture's record says of it; empty where nothing is asked."""
        told = {
            "places": {place.handle: list(place.box) for place in self.places},
            "strengths": dict(self.strengths),
            "emphases": dict(self.emphases),
        }
        return {key: value for key, value in told.items() if value}


@dataclass(frozen=True)
class Request:
    """One picture to be drawn, or one part of a photo.

    Attributes:
        prompt: With handles.
        seed: Of its noise.
        negative: The negative prompt; empty for the base's default.
        size: In pixels; None takes the base's own.
        sampling: Solver, steps, guidance.
        weight: Factor of every adapter's own weight, or (name, factor) pairs, others staying at 1;
            the handles' rows are not scaled.
        is_base: Whether the bare base draws it, each handle replaced by its class noun.
        control: Places, strengths and emphases of single concepts.
    """

    prompt: str
    seed: int = 0
    negative: str = ""
    size: Size | None = None
    sampling: Sampling = field(default_factory=Sampling)
    weight: float | Amounts = 1.0
    is_base: bool = False
    control: Control = field(default_factory=Control)

    def __post_init__(self) -> None:
        limits.check_range("seed", self.seed, 0, limits.MAX_SEED)
        for side in self.size or ():
            limits.check_range("size", side, *limits.SIDES)
            if side % limits.SIDES[0]:
                raise CreationError(
                    "no base draws at that size",
                    where="size",
                    expected=f"multiples of {limits.SIDES[0]} pixels",
                    got=self.size,
                )
        weights = self.weight if isinstance(self.weight, tuple) else (("weight", self.weight),)
        for name, weight in weights:
            limits.check_number(name, weight)

    def resolved(self, names: Names) -> Request:
        """Return the same with handles as their adapters spell them, once they are looked at.

        Raises:
            CreationError: A prompt names an unknown handle, or not one whose attention is steered.
        """
        control = self.control.resolved(names)
        names.handles_in(self.negative)
        named = names.handles_in(self.prompt)
        for handle in () if self.is_base else control.attended:
            if handle not in named:
                raise CreationError(f"the prompt does not name {handle}", where=self.prompt)
        return replace(self, control=control)

    def with_settings(self, settings: Mapping[str, Any]) -> Request:
        """Return the same with settings by the names that prompt files and records give them.

        Args:
            settings: Of prompt, negative, seed, weight, width, height, steps, guidance and
                scheduler; None leaves one as it is.
        """
        given = {key: value for key, value in settings.items() if value is not None}
        sides = dict(zip(("width", "height"), self.size or (), strict=False)) | given
        width, height = sides.get("width", 0), sides.get("height", 0)
        own = {"steps": "n_steps", "guidance": "guidance", "scheduler": "scheduler"}
        drawn = {own[key]: value for key, value in given.items() if key in own}
        plain = ("prompt", "negative", "seed", "weight")
        return replace(
            self,
            size=Size(width or height, height or width) if width or height else None,
            sampling=replace(self.sampling, **drawn),
            **{key: value for key, value in given.items() if key in plain},
        )

    def record(self) -> dict[str, Any]:
        """Return what the records of all verbs say of a request."""
        return {
            "prompt": self.prompt,
            "seed": self.seed,
            "negative": self.negative,
            "steps": self.sampling.n_steps,
            "guidance": self.sampling.guidance,
            "scheduler": self.sampling.scheduler,
            **dict(zip(("width", "height"), self.size or (), strict=False)),
            "weight": 1.0 if isinstance(self.weight, tuple) else self.weight,
            **({"weights": dict(self.weight)} if isinstance(self.weight, tuple) else {}),
            **({"is_base": True} if self.is_base else {}),
            **self.control.record(),
        }


def parse_amount(text: str) -> tuple[str, float]:
    """Read `bear=0.5` as a handle and a number; the handle's brackets may be left out.

    Raises:
        CreationError: It has another form.
    """
    match = re.fullmatch(r"<?([^=<>]+)>?=(-?\d*\.?\d+)", text.strip(), re.ASCII)
    if match is None or not math.isfinite(float(match.group(2))):
        raise CreationError("not a handle's amount", where=text, expected="such as bear=0.5")
    return f"<{match.group(1)}>", float(match.group(2))


def _no_place(text: str) -> CreationError:
    return CreationError(
        "not a place",
        where=text,
        expected="handle=left,top,right,bottom, shares of the picture from 0 to 1, such as "
        "bear=0.1,0.5,0.5,1.0",
    )
