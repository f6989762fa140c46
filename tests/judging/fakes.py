"""A judge whose answers can be worked out by hand: it knows things by their colour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lora_scene.judging.finding import GREY, Sighting
from lora_scene.judging.judge import Judge
from lora_scene.scenes.scene import Concept, Photo, Scene

SIDE = 64
RED, BLUE, GREEN = (250, 10, 10), (10, 10, 250), (10, 250, 10)
LEFT = (slice(8, 32), slice(4, 28))
RIGHT = (slice(30, 58), slice(34, 62))
COLOURS = {"bear": RED, "bowl": BLUE}


class ColourEncoder:
    """Knows a picture by its mean colour where it is not grey, a text by its nouns' colours."""

    name = "colour"

    def embed_pictures(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        return np.array([self._unit(self._mean(one)) for one in pictures], np.float32)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        sums = [
            np.sum([np.array(c) - GREY for n, c in COLOURS.items() if n in text], axis=0)
            for text in texts
        ]
        return np.array([self._unit(one) for one in sums], np.float32)

    @staticmethod
    def _mean(picture: np.ndarray) -> np.ndarray:
        seen = picture[(picture != GREY).any(axis=-1)]
        return seen.mean(axis=0) - GREY if len(seen) else np.zeros(3)

    @staticmethod
    def _unit(vector: np.ndarray) -> np.ndarray:
        return vector / max(float(np.linalg.norm(vector)), 1e-9)


class PlaceFinder:
    """Takes what is not grey on the left for the first concept, on the right for the second."""

    name = "place"
    finds_every = False

    def find(self, pixels: np.ndarray, concepts: Sequence[Concept]) -> list[Sighting]:
        found = []
        for owner, place in enumerate((LEFT, RIGHT)):
            region = np.zeros(pixels.shape[:2], bool)
            region[place] = (pixels[place] != GREY).any(axis=-1)
            if region.any():
                found.append(Sighting(region, owner))
        return found


def judge() -> Judge:
    encoder = ColourEncoder()
    return Judge("fake", encoder, encoder, PlaceFinder(), same_floor=0.9)


def picture(left: tuple[int, ...] | None, right: tuple[int, ...] | None) -> np.ndarray:
    pixels = np.full((SIDE, SIDE, 3), GREY, np.uint8)
    for place, colour in ((LEFT, left), (RIGHT, right)):
        if colour is not None:
            pixels[place] = colour
    return pixels


def scene() -> Scene:
    """Return a red bear on the left, a blue bowl on the right."""
    masks = np.zeros((2, SIDE, SIDE), np.float32)
    masks[0][LEFT] = 1
    masks[1][RIGHT] = 1
    concepts = (Concept("<bear>", "bear"), Concept("<bowl>", "bowl"))
    return Scene(concepts, (Photo(picture(RED, BLUE), masks, "img.png"),), "scene")
