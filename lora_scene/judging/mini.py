"""The embedded judge: a small CLIP of the mini world whose patches can be read as nouns.

It was trained so that a patch's projected embedding lies near the name of what it shows. So one
network of a few megabytes does what CLIP, DINO and a segmenter do elsewhere: it weighs captions,
tells drawings of one noun apart, and finds things.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from lora_scene.errors import JudgingError
from lora_scene.judging.encoders import ClipEncoder
from lora_scene.judging.finding import Sighting
from lora_scene.scenes.pictures import Pixels
from lora_scene.scenes.scene import Concept

NAME = "mini"
NOUNS = (
    "cat", "dog", "panda", "frog", "penguin", "owl", "apple", "pineapple", "burger",
    "donut", "sunflower", "cactus", "mushroom", "car", "rocket", "house",
)  # fmt: skip
SMUDGE = "smudge"  # the word for what looks like nothing
BACKGROUNDS = (
    "grass", "sand", "snow", "the sky", "water", "the night", "a wooden table", "a brick wall",
)  # fmt: skip

MIN_PATCHES = 2.5  # a thing covers more of them; fewer are an edge or a speck
PATCH_SHARE = 1 / 8  # of a picture's side

Grid = npt.NDArray[np.int64]  # (H, W), a class of each pixel


class MiniJudge(ClipEncoder):
    """The embedded judge: encoder of pictures and captions, and finder.

    Args:
        folder: Where it lies; None takes the one in the package.
        device: Where it computes.

    Raises:
        JudgingError: It is not there.
    """

    def __init__(self, folder: Path | str | None = None, *, device: str = "cpu") -> None:
        super().__init__(embedded_folder() if folder is None else folder, device=device)
        self.name = NAME

    @property
    def finds_every(self) -> bool:
        """Return True: two things of one noun are two regions, unless they touch."""
        return True

    @torch.no_grad()
    def find(self, pixels: Pixels, concepts: Sequence[Concept]) -> list[Sighting]:
        """Return the things in a picture (H, W, 3) uint8, each part that hangs together one.

        Nouns are told from all that the world knows, so that a thing of none of the concepts is
        found too; its owner is None.
        """
        things = [k for k, concept in enumerate(concepts) if not concept.is_background]
        nouns = {k: concepts[k].noun.casefold() for k in things}
        own = list(dict.fromkeys(nouns.values()))
        others = [noun for noun in NOUNS if noun not in own]
        names = [*own, *others, SMUDGE]
        prompts = [with_article(name) for name in names] + list(BACKGROUNDS)
        classes = self._read(pixels, prompts)
        least = MIN_PATCHES * (PATCH_SHARE * classes.shape[0]) * (PATCH_SHARE * classes.shape[1])
        found = []
        for region, number in read_things(classes, len(names), least):
            same = [k for k in things if nouns[k] == names[number]]
            found.append(Sighting(region, same[0] if same else None, tuple(same[1:])))
        return found

    def _read(self, pixels: Pixels, prompts: Sequence[str]) -> Grid:
        """Return each pixel's class (H, W): patch scores, enlarged linearly, then the best."""
        _, patches = patch_embeddings(self.model, self.pixel_values([pixels]))
        texts = torch.from_numpy(self.embed_texts(prompts)).to(patches)
        scores = self.model.logit_scale.exp() * patches @ texts.T  # (1, g, g, C)
        shares = scores.softmax(dim=-1).permute(0, 3, 1, 2)
        size = pixels.shape[:2]
        enlarged = F.interpolate(shares, size, mode="bilinear", align_corners=False)
        classes: Grid = enlarged[0].argmax(dim=0).cpu().numpy()
        return classes


def read_things(
    classes: Grid, n_things: int, least: float
) -> list[tuple[npt.NDArray[np.bool_], int]]:
    """Tell things apart in a map of classes; specks go to the thing that they lie next to.

    Args:
        classes: (H, W); the classes below `n_things` are things, the others backgrounds.
        n_things: How many classes are things.
        least: Pixels of the smallest thing.

    Returns:
        Each thing's region (H, W) and class, class by class.
    """
    found = []
    for blob in connected_parts(classes < n_things):
        if blob.sum() < least:
            continue
        inside = np.where(blob, classes, n_things)
        parts = [
            (part, number)
            for number in np.unique(inside[blob]).tolist()
            for part in connected_parts(inside == number)
            if part.sum() >= least
        ]
        if len(parts) < 2:
            found.append((blob, int(np.bincount(classes[blob]).argmax())))
            continue
        nearest = _nearest([part for part, _ in parts])
        found += [(blob & (nearest == i), number) for i, (_, number) in enumerate(parts)]
    return sorted(found, key=lambda pair: pair[1])


def _nearest(regions: Sequence[npt.NDArray[np.bool_]]) -> Grid:
    """Return the index of the region (H, W) that each pixel is nearest to."""
    import cv2

    away = [cv2.distanceTransform((~region).astype(np.uint8), cv2.DIST_L2, 5) for region in regions]
    nearest: Grid = np.stack(away).argmin(axis=0)
    return nearest


def patch_embeddings(judge: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Embed pictures whole and patch by patch.

    Args:
        judge: A `CLIPModel` whose patch embeddings were trained beside the whole ones.
        pixels: (b, 3, S, S), scaled as its image processor does.

    Returns:
        (b, d) and (b, g, g, d), of unit length.
    """
    vision = judge.vision_model
    hidden = vision.post_layernorm(vision(pixel_values=pixels).last_hidden_state)
    embeddings = F.normalize(judge.visual_projection(hidden), dim=-1)
    side = round((embeddings.shape[1] - 1) ** 0.5)
    patches = embeddings[:, 1:].reshape(len(pixels), side, side, -1)
    return embeddings[:, 0], patches


def with_article(noun: str) -> str:
    """Return a noun with "a" or "an" before it."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def connected_parts(region: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.bool_]]:
    """Return the parts of a region (H, W) that hang together by edges."""
    import cv2

    n_labels, labels = cv2.connectedComponents(region.astype(np.uint8), connectivity=4)
    return [labels == label for label in range(1, n_labels)]


def embedded_folder() -> Path:
    """Return where the embedded judge lies.

    Raises:
        JudgingError: This installation has none.
    """
    folder = Path(str(resources.files("lora_scene.judging"))) / "mini_judge"
    if not (folder / "config.json").is_file():
        raise JudgingError(
            "this installation has no embedded judge", where=NAME, hint="reinstall lora-scene"
        )
    return folder
