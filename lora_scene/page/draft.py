"""What a person has shown of the things in the photos: immutable, so that undo is a step back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from lora_scene.errors import SceneError
from lora_scene.page.proposal import Proposal
from lora_scene.scenes.handles import UNNAMED_NOUN, check_handles, default_noun
from lora_scene.scenes.mask_prompts import Box, Point, Prompt
from lora_scene.scenes.masking import make_masks
from lora_scene.scenes.pictures import Mask, Pixels
from lora_scene.scenes.refine import settle_overlaps
from lora_scene.scenes.scene import INSIDE, Concept, Photo, Scene
from lora_scene.scenes.segmenters.segmenter import Segmenter

Mode = Literal["new", "add", "take"]
_PROPOSED = re.compile(r"<thing\d+>")  # a handle that nobody chose
BACKGROUND = Concept("<background>", "background", is_background=True)


@dataclass(frozen=True, eq=False)
class Thing:
    """A thing to be learnt, and where it was found: photo's number to mask."""

    handle: str
    noun: str
    found: Mapping[int, Proposal]


@dataclass(frozen=True, eq=False)
class Draft:
    """Photos and things.

    Attributes:
        photos: (H, W, 3) uint8 each, upright.
        names: Their files' names, for messages.
        things: In the order in which they were shown.
        photo: Number of the photo on the canvas.
        thing: Number of the chosen thing, or None.
        has_background: Whether what the things leave is learnt too.
    """

    photos: tuple[Pixels, ...] = ()
    names: tuple[str, ...] = ()
    things: tuple[Thing, ...] = ()
    photo: int = 0
    thing: int | None = None
    has_background: bool = False

    def __post_init__(self) -> None:
        """Refuse to point at what is not there: it would be kept, and nothing could be shown."""
        is_photo = type(self.photo) is int and 0 <= self.photo < max(len(self.photos), 1)
        is_thing = type(self.thing) is int and 0 <= self.thing < len(self.things)
        if not (is_photo and (is_thing or self.thing is None)):
            raise SceneError("no such photo or thing", got=f"{self.photo!r}, {self.thing!r}")

    @property
    def chosen(self) -> Thing | None:
        """Return the chosen thing."""
        return None if self.thing is None else self.things[self.thing]

    def thing_at(self, x: float, y: float) -> int | None:
        """Return the number of the thing whose mask holds a place of the photo on the canvas."""
        for k, thing in enumerate(self.things):
            found = thing.found.get(self.photo)
            if found is not None and found.shown[int(y), int(x)] >= INSIDE:
                return k
        return None

    def pointed(self, x: float, y: float, mode: Mode, segmenter: Segmenter) -> Draft:
        """Take a click: a new thing, or a mark on the chosen one; on a known thing, choose it."""
        if mode == "new" or self.thing is None:
            k = self.thing_at(x, y)
            if k is not None:
                return replace(self, thing=k)
            return self._with_new().marked(Point(x, y), segmenter)
        return self.marked(Point(x, y, is_inside=mode == "add"), segmenter)

    def boxed(self, box: Box, mode: Mode, segmenter: Segmenter) -> Draft:
        """Take a box around a new thing, or around the chosen one, or a part of a given mask."""
        draft = self._with_new() if mode == "new" or self.thing is None else self
        found = draft._found()
        if found.is_given:
            return draft._laid(replace(found.prompt, box=box), mode, segmenter)
        points = tuple(p for p in found.prompt.points if not p.is_inside or _holds(box, p))
        return draft._segmented(replace(found.prompt, box=box, points=points), segmenter)

    def worded(self, words: str, segmenter: Segmenter) -> Draft:
        """Find a thing by words on the photo on the canvas; they name it too."""
        handle = self._free_handle(proposed_handle(words))
        draft = self._with_new(handle, words.strip())
        return draft._segmented(replace(draft._found().prompt, words=words.strip()), segmenter)

    def marked(self, point: Point, segmenter: Segmenter) -> Draft:
        """Add a mark to the chosen thing, and find it anew; its box grows to hold a mark inside.

        What is found at a mark is laid over a given mask, or taken from it.

        Raises:
            SegmenterError: Nothing was found.
        """
        prompt = self._found().prompt
        if self._found().is_given:
            part = replace(prompt, points=(replace(point, is_inside=True),))
            return self._laid(part, "add" if point.is_inside else "take", segmenter)
        box = prompt.box
        if box is not None and point.is_inside and not _holds(box, point):
            box = Box(
                min(box.left, point.x),
                min(box.top, point.y),
                max(box.right, point.x),
                max(box.bottom, point.y),
            )
        prompt = replace(prompt, points=(*prompt.points, point), box=box)
        return self._segmented(prompt, segmenter)

    def touched(self, mask: npt.NDArray[np.bool_]) -> Draft:
        """Take the chosen thing's mask (H, W) as a brush left it, pixel for pixel.

        Raises:
            SceneError: No thing is chosen, or the mask has another size than the photo.
        """
        if self.thing is None:
            raise SceneError("no thing is chosen", hint="click on one, or in the list")
        shape = self.photos[self.photo].shape[:2]
        if mask.shape != shape:
            raise SceneError(
                "the brushed mask is not of the photo's size",
                expected=f"{shape[1]} x {shape[0]}",
                got=f"{mask.shape[1]} x {mask.shape[0]}",
            )
        found = self._found()
        touches = np.where(mask, 1, -1).astype(np.int8)
        touches[mask == (found.mask >= INSIDE)] = 0
        return self._put(replace(found, touches=touches if touches.any() else None))

    def renamed(self, k: int, handle: str, noun: str) -> Draft:
        """Give a thing another handle, brackets or not, and noun; an empty one is guessed.

        A handle that nobody chose yet follows the noun: `<red-cup>` of `a red cup`.

        Raises:
            SceneError: The handle is illegal, or another thing has it.
        """
        things, old = [*self.things], self.things[k]
        handle = f"<{handle.strip().strip('<>')}>"
        is_proposed = handle == old.handle and _PROPOSED.fullmatch(handle) is not None
        if is_proposed and noun.strip() not in ("", old.noun):
            handle = self._free_handle(proposed_handle(noun))
        noun = noun.strip() or default_noun(handle)
        things[k] = replace(things[k], handle=handle, noun=noun)
        handles, nouns = [one.handle for one in things], [one.noun for one in things]
        wrong: list[SceneError] = check_handles(handles, "the name", nouns=nouns)
        if wrong:
            raise SceneError.collect(wrong, "the name cannot be used")
        return replace(self, things=tuple(things))

    def without(self, k: int) -> Draft:
        """Forget a thing."""
        things = self.things[:k] + self.things[k + 1 :]
        return replace(self, things=things, thing=len(things) - 1 if things else None)

    def scene(self, source: str) -> Scene:
        """Return what would be learnt; what two masks claim is the smaller one's, or the brush's.

        Raises:
            SceneError: Nothing is shown yet.
        """
        if not self.things:
            raise SceneError("no thing is shown yet", hint="click on one in the photo")
        concepts = [Concept(thing.handle, thing.noun) for thing in self.things]
        photos = []
        for n, pixels in enumerate(self.photos):
            masks = self._masks(n)
            if self.has_background:
                masks = np.concatenate([masks, 1.0 - masks.max(axis=0, keepdims=True)])
            photos.append(Photo(pixels, masks, self.names[n]))
        concepts += [BACKGROUND] if self.has_background else []
        return Scene(tuple(concepts), tuple(photos), source)

    def view(self) -> Photo:
        """Return the photo on the canvas with its masks, whether or not there are any."""
        return Photo(self.photos[self.photo], self._masks(self.photo), self.names[self.photo])

    def _masks(self, n: int) -> Mask:
        shape = self.photos[n].shape[:2]
        nothing = np.zeros(shape, dtype=np.float32)
        found = [thing.found.get(n) for thing in self.things]
        masks = [nothing if one is None else one.shown for one in found]
        if not masks:
            return np.zeros((0, *shape), dtype=np.float32)
        settled = settle_overlaps(np.stack(masks))
        for k, one in enumerate(found):
            if one is not None and one.touches is not None:
                settled[:, one.touches > 0] = 0.0
                settled[k] = np.where(one.touches > 0, 1.0, settled[k])
        return settled

    def _with_new(self, handle: str = "", noun: str = UNNAMED_NOUN) -> Draft:
        handle = handle or self._free_handle("thing1")
        things = (*self.things, Thing(handle, noun, {}))
        return replace(self, things=things, thing=len(things) - 1)

    def _free_handle(self, stem: str) -> str:
        taken = {thing.handle.casefold() for thing in self.things}
        plain = stem.rstrip("0123456789") or "thing"
        names = [stem, *(f"{plain}{n}" for n in range(2, len(taken) + 3))]
        return next(f"<{name}>" for name in names if f"<{name}>".casefold() not in taken)

    def _found(self) -> Proposal:
        thing = self.chosen
        assert thing is not None, "a mark is made on a thing"
        shape = self.photos[self.photo].shape[:2]
        blank = Proposal(Prompt(thing.handle, thing.noun), np.zeros(shape, dtype=np.float32))
        return thing.found.get(self.photo, blank)

    def _segmented(self, prompt: Prompt, segmenter: Segmenter) -> Draft:
        """Find the chosen thing."""
        mask = self._mask_of(prompt, segmenter)
        return self._put(replace(self._found(), prompt=prompt, mask=mask))

    def _laid(self, prompt: Prompt, mode: Mode, segmenter: Segmenter) -> Draft:
        """Find a part of the chosen thing, and lay it over its mask, or take it away."""
        found, part = self._found(), self._mask_of(prompt, segmenter)
        return self._put(found.without_part(part) if mode == "take" else found.with_part(part))

    def _mask_of(self, prompt: Prompt, segmenter: Segmenter) -> Mask:
        """Return what is found (H, W) of the chosen thing; marks in others lie outside it."""
        elsewhere: Sequence[Point] = [
            replace(point, is_inside=False)
            for k, thing in enumerate(self.things)
            if k != self.thing and self.photo in thing.found
            for point in thing.found[self.photo].prompt.points
            if point.is_inside
        ]
        asked = prompt
        if "point" in segmenter.accepts:
            asked = replace(prompt, points=(*prompt.points, *elsewhere))
        source = self.names[self.photo]
        masked = make_masks(self.photos[self.photo], [asked], segmenter=segmenter, source=source)
        (photo,) = masked.scene.photos
        mask: Mask = photo.masks[0]
        return mask

    def _put(self, found: Proposal) -> Draft:
        assert self.thing is not None
        things = [*self.things]
        one = things[self.thing]
        things[self.thing] = replace(one, found={**one.found, self.photo: found})
        return replace(self, things=tuple(things))


def draft_of(scene: Scene) -> Draft:
    """Return a draft of a scene whose masks are made already."""
    things = []
    for k in scene.things:
        concept = scene.concepts[k]
        prompt = Prompt(concept.handle, concept.noun)
        found = {}
        for n in (n for n, photo in enumerate(scene.photos) if k in photo.present):
            mask = (scene.photos[n].masks[k] >= INSIDE).astype(np.float32)
            found[n] = Proposal(prompt, mask)
        things.append(Thing(concept.handle, concept.noun, found))
    return Draft(
        tuple(photo.pixels for photo in scene.photos),
        tuple(Path(photo.source).name for photo in scene.photos),
        tuple(things),
        thing=0 if things else None,
        has_background=len(scene.things) < len(scene.concepts),
    )


def proposed_handle(words: str) -> str:
    """Return a handle's stem made of words: `red-cup` of `a red cup`."""
    plain = "".join(c if c.isascii() and c.isalnum() else " " for c in words.lower()).split()
    kept = [word for word in plain if word not in ("a", "an", "the", "my")] or ["thing1"]
    return "-".join(kept)[:40]


def _holds(box: Box, point: Point) -> bool:
    return box.left <= point.x <= box.right and box.top <= point.y <= box.bottom
