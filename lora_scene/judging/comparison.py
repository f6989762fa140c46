"""Detect and compare: which concept does each thing in a picture resemble?

After MuDI's detect-and-compare (arXiv:2404.04243), which compares every detected thing with every
reference. Here the table is kept, and read in three ways: what is missing, what is mixed, and how
much of the other concepts is in each thing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lora_scene.judging.encoders import PictureEncoder, Vectors
from lora_scene.judging.finding import Sighting, cut_out
from lora_scene.judging.metrics import cosines, mean
from lora_scene.scenes.pictures import Pixels
from lora_scene.scenes.scene import INSIDE, Scene


@dataclass(frozen=True, eq=False)
class References:
    """The concepts' looks in the photos: a row per concept that is a thing and a photo of it.

    Attributes:
        vectors: (n, d) unit rows.
        concepts: The concept of each row.
    """

    vectors: Vectors
    concepts: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """The things found in one picture, against the concepts of the scene.

    Attributes:
        likeness: (n_found, n_things) cosines, with each concept's nearest photo.
        things: The concepts of the columns.
        owners: Which concept each found thing stands for, or None.
        named: The concepts that the prompt names and that are things.
        floor: Cosine from which two things count as the same.
    """

    likeness: Vectors
    things: tuple[int, ...]
    owners: tuple[int | None, ...]
    named: tuple[int, ...]
    floor: float

    @property
    def resembles(self) -> tuple[int | None, ...]:
        """Return the concept that each found thing resembles most, None below the floor."""
        return tuple(
            self.things[int(row.argmax())] if row.max() >= self.floor else None
            for row in self.likeness
        )

    @property
    def missing(self) -> tuple[int, ...]:
        """Return the named concepts that nothing in the picture resembles most."""
        return tuple(k for k in self.named if k not in self.resembles)

    @property
    def mixed(self) -> tuple[int, ...]:
        """Return the named concepts in whose place something resembles another concept more."""
        pairs = zip(self.owners, self.resembles, strict=True)
        wrong = {owner for owner, like in pairs if like is not None and like != owner}
        return tuple(k for k in self.named if k in wrong)

    @property
    def repeats(self) -> int:
        """Return how many things there are beyond the first of each concept."""
        known = [k for k in self._of if k is not None]
        return len(known) - len(set(known))

    @property
    def is_exact(self) -> bool:
        """Tell whether the picture is right: each named thing once, recognisable, no look mixed.

        Every named concept is resembled by one thing; nothing else stands for it, whatever it looks
        like; and in no named concept's place does something resemble another one.
        """
        return (
            not self.missing and not self.mixed and all(self._of.count(k) == 1 for k in self.named)
        )

    @property
    def off_diagonal(self) -> float | None:
        """Return the mean likeness of the found concepts to concepts that they are not."""
        column = {k: i for i, k in enumerate(self.things)}
        return mean(
            float(np.delete(row, column[owner]).mean())
            for row, owner in zip(self.likeness, self.owners, strict=True)
            if owner in column and len(self.things) > 1
        )

    def identity(self, concept: int) -> float:
        """Return how much a concept in the picture looks like itself in the photos, -1..1.

        Of several regions that stand for it, the best; if none does, the best of all found
        things, since it may be there under another name; 0 if nothing was found at all.
        """
        return float(self._column(concept).max()) if len(self.likeness) else 0.0

    def identity_each(self, concept: int) -> float:
        """Return the same, -1..1, but the mean of several regions that stand for it.

        The best of several favours whoever draws a thing more than once.
        """
        return float(self._column(concept).mean()) if self._own(concept) else self.identity(concept)

    def unlike(self, concept: int) -> float:
        """Return how many, 0..1, of the regions that stand for a concept do not resemble it most.

        If no region does: 1 if the concept is missing, else 0.
        """
        own, resembles = self._own(concept), self.resembles
        if not own:
            return float(concept in self.missing)
        return sum(resembles[i] != concept for i in own) / len(own)

    @property
    def _of(self) -> list[int | None]:
        """Return the concept of each thing: the one it resembles most; if none, its owner."""
        pairs = zip(self.resembles, self.owners, strict=True)
        return [owner if like is None else like for like, owner in pairs]

    def _own(self, concept: int) -> list[int]:
        return [i for i, owner in enumerate(self.owners) if owner == concept]

    def _column(self, concept: int) -> Vectors:
        """Return the likeness to a concept of the regions that stand for it, or of all."""
        column = self.likeness[:, self.things.index(concept)]
        return column[self._own(concept) or slice(None)]


def reference_looks(scene: Scene, encoder: PictureEncoder) -> References:
    """Embed every thing of a scene as its photos show it.

    Args:
        scene: Framed to the size of the pictures.
        encoder: Tells things apart.
    """
    places = [(photo, k) for photo in scene.photos for k in scene.things if k in photo.present]
    looks = [cut_out(photo.pixels, photo.masks[k] >= INSIDE) for photo, k in places]
    return References(encoder.embed_pictures(looks), tuple(k for _, k in places))


def compare(
    pixels: Pixels,
    found: Sequence[Sighting],
    references: References,
    *,
    encoder: PictureEncoder,
    named: Sequence[int],
    floor: float,
) -> Comparison:
    """Compare everything found in a picture with every concept of the scene.

    What may stand for several concepts stands for the one that it resembles most.

    Args:
        pixels: (H, W, 3) uint8.
        found: What was found in it.
        references: The concepts' looks.
        encoder: The one that made them.
        named: The concepts that the prompt names; backgrounds are left out.
        floor: Cosine from which two things count as the same.
    """
    things = tuple(dict.fromkeys(references.concepts))
    looks = encoder.embed_pictures([cut_out(pixels, one.region) for one in found])
    likeness = np.zeros((len(found), len(things)), np.float32)
    if found:
        table = cosines(looks, references.vectors)
        for i, k in enumerate(things):
            rows = [j for j, concept in enumerate(references.concepts) if concept == k]
            likeness[:, i] = table[:, rows].max(axis=1)
    owners = tuple(
        max((one.owner, *one.twins), key=lambda k: row[things.index(k)]) if one.twins else one.owner
        for one, row in zip(found, likeness, strict=True)
    )
    return Comparison(likeness, things, owners, tuple(k for k in named if k in things), floor)


def rates(comparisons: Sequence[Comparison]) -> Mapping[str, float | None]:
    """Return the share of pictures that are right, and the rates of what goes wrong in the others.

    The missing and mixing rates are shares of the named concepts, the repeat rate is the mean
    number of repeats a picture; the others are means over named concepts.
    """
    n_named = sum(len(one.named) for one in comparisons)

    def share(count: int) -> float | None:
        return count / n_named if n_named else None

    return {
        "exact_set": mean(float(one.is_exact) for one in comparisons),
        "missing_rate": share(sum(len(one.missing) for one in comparisons)),
        "mixing_rate": share(sum(len(one.mixed) for one in comparisons)),
        "repeat_rate": mean(float(one.repeats) for one in comparisons),
        "identity_each": mean(one.identity_each(k) for one in comparisons for k in one.named),
        "unlike_rate": mean(one.unlike(k) for one in comparisons for k in one.named),
        "off_diagonal": mean(one.off_diagonal for one in comparisons),
    }
