"""Metrics of whole sets of pictures: IS, FID, KID, precision and recall.

Where the literature takes Inception's features, these take an encoder's: Inception's weights are
a download that torchmetrics leaves to another package. So the figures order sets judged by the
same encoder, and cannot be held against published ones.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lora_scene.errors import JudgingError
from lora_scene.extras import optional
from lora_scene.judging.encoders import CaptionEncoder, PictureEncoder, Vectors
from lora_scene.judging.kept_pictures import UNFINISHED
from lora_scene.judging.metrics import cosines
from lora_scene.ownership import is_ours
from lora_scene.scenes.pictures import Pixels, read_photo
from lora_scene.silence import quiet_warnings

NEIGHBOURS = 3  # k of precision and recall (arXiv:1904.06991)
KID_SUBSETS = 50
CLASS_SHARPNESS = 100.0  # factor of cosines before the softmax: CLIP's own temperature
ENOUGH = 10_000  # pictures from which FID's bias is small (arXiv:1706.08500 asks for as many)
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
SHEET = re.compile(r"(?:grid|parts|variations|strip|sheet|pick)(?:_\d+)?")  # stems of our own


@dataclass(frozen=True)
class SetReport:
    """How a set of generated pictures relates to a reference set.

    Attributes:
        fid: Fréchet distance of the features (arXiv:1706.08500), lower is better.
        kid: Kernel distance of the features (arXiv:1801.01401), lower is better; not biased.
        kid_deviation: Its deviation over random subsets.
        inception_score: exp of the mean KL divergence of class shares (arXiv:1606.03498); None
            without class names.
        precision: Share of the generated pictures among the reference's neighbours.
        recall: Share of the reference pictures among the generated ones' neighbours.
        n_reference: Pictures.
        n_generated: Pictures.
        encoder: Whose features.
        warnings: What the numbers cannot carry, one sentence each.
    """

    fid: float
    kid: float
    kid_deviation: float
    inception_score: float | None
    precision: float
    recall: float
    n_reference: int
    n_generated: int
    encoder: str
    warnings: tuple[str, ...]


def compare_sets(
    reference: Sequence[Pixels],
    generated: Sequence[Pixels],
    encoder: PictureEncoder,
    *,
    captions: CaptionEncoder | None = None,
    classes: Sequence[str] = (),
) -> SetReport:
    """Compare two sets of pictures.

    Args:
        reference: (H, W, 3) uint8 each, more than `NEIGHBOURS`.
        generated: The same.
        encoder: Its features take the place of Inception's.
        captions: Tells the classes of the inception score apart.
        classes: Their names in words, such as `a cat`; none leaves the score out.

    Raises:
        JudgingError: A set is too small, or torchmetrics is not installed.
    """
    n = refuse_few(len(reference), len(generated))
    real, made = encoder.embed_pictures(reference), encoder.embed_pictures(generated)
    distance, deviation = kid(real, made)
    return SetReport(
        fid=fid(real, made),
        kid=distance,
        kid_deviation=deviation,
        inception_score=_class_score(generated, captions, classes),
        precision=coverage(real, made),
        recall=coverage(made, real),
        n_reference=len(reference),
        n_generated=len(generated),
        encoder=encoder.name,
        warnings=tuple(_warnings(n, real.shape[1])),
    )


def refuse_few(n_reference: int, n_generated: int) -> int:
    """Return the size of the smaller set.

    Raises:
        JudgingError: It is too small for neighbourhoods, and so to be compared.
    """
    n = min(n_reference, n_generated)
    if n <= NEIGHBOURS:
        raise JudgingError(
            "too few pictures to compare sets",
            expected=f"more than {NEIGHBOURS} in each",
            got=f"{n_reference} reference pictures, {n_generated} drawn",
        )
    return n


def _class_score(
    pictures: Sequence[Pixels], captions: CaptionEncoder | None, classes: Sequence[str]
) -> float | None:
    if captions is None or len(classes) < 2:
        return None
    seen, named = captions.embed_pictures(pictures), captions.embed_texts(classes)
    return inception_score(CLASS_SHARPNESS * cosines(seen, named))


def fid(reference: Vectors, generated: Vectors) -> float:
    """Return the Fréchet distance between normal fits of features (n, d) and (m, d)."""
    metric = _torchmetric("fid", "FrechetInceptionDistance", reference.shape[1])
    metric.update(torch.from_numpy(reference), real=True)
    metric.update(torch.from_numpy(generated), real=False)
    return float(metric.compute())


def kid(reference: Vectors, generated: Vectors) -> tuple[float, float]:
    """Return the mean and deviation of the kernel distance over random halves of the sets.

    Unit vectors (n, d) are scaled by sqrt(d) first, so that their components are about 1, as the
    kernel (x y / d + 1)^3 of arXiv:1801.01401 supposes; else it would see little but means.
    """
    scale = np.float32(np.sqrt(reference.shape[1]))
    reference, generated = scale * reference, scale * generated
    metric = _torchmetric(
        "kid",
        "KernelInceptionDistance",
        reference.shape[1],
        subsets=KID_SUBSETS,
        subset_size=max(2, min(len(reference), len(generated)) // 2),
    )
    metric.update(torch.from_numpy(reference), real=True)
    metric.update(torch.from_numpy(generated), real=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


def inception_score(logits: Vectors) -> float:
    """Return the inception score of class logits (n, c): from 1 to c, higher is better.

    The set is not split: a part of a small set would lose classes.
    """
    metric = _torchmetric("inception", "InceptionScore", logits.shape[1], splits=1)
    metric.update(torch.from_numpy(logits))
    with torch.random.fork_rng(), quiet_warnings():  # the deviation over one split is no number
        mean, _ = metric.compute()
    return float(mean)


def coverage(anchors: Vectors, points: Vectors) -> float:
    """Return the share of points (m, d) that lie within an anchor's neighbourhood, 0..1.

    An anchor's neighbourhood reaches to its k-th nearest fellow (arXiv:1904.06991, eq. 2).
    """
    fellows = _distances(anchors, anchors)
    np.fill_diagonal(fellows, np.inf)
    radii = np.sort(fellows, axis=1)[:, NEIGHBOURS - 1]
    return float((_distances(points, anchors) <= radii).any(axis=1).mean())


def read_pictures(folder: Path) -> list[Pixels]:
    """Read every picture of a folder and those below it, in the order of their names.

    The sheets that verbs write beside their pictures show these once more, and are left out, as
    is what an interrupted judgement keeps in its folder.

    Raises:
        JudgingError: There is none, or torchmetrics is not installed, which compares them.
        SceneError: One cannot be read.
    """
    optional("torchmetrics", error=JudgingError, where=folder)
    found = sorted(f for f in Path(folder).rglob("[!.]*") if f.suffix.lower() in SUFFIXES)
    doubtful = [f for f in found if SHEET.fullmatch(f.stem) or f.parent.name == UNFINISHED]
    ours = {f for f in doubtful if is_ours(f)}
    files = [f for f in found if f not in ours]
    if not files:
        raise JudgingError("no pictures", where=folder, expected=", ".join(SUFFIXES))
    return [read_photo(file).pixels for file in files]


class _AsIs(nn.Module):
    """Stands where torchmetrics expects a network: the features are there already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def _torchmetric(module: str, name: str, n_features: int, **settings: Any) -> Any:
    library = optional(f"torchmetrics.image.{module}", error=JudgingError, where=name)
    metric = getattr(library, name)
    with quiet_warnings():  # that features are kept: they are in memory anyway
        return metric(feature=_AsIs(n_features), **settings)


def _distances(a: Vectors, b: Vectors) -> Vectors:
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    distances: Vectors = np.sqrt(np.maximum(squares, 0)).astype(np.float32)
    return distances


def _warnings(n: int, n_features: int) -> list[str]:
    if n >= ENOUGH:
        return []
    said = [
        f"{n} pictures are few: FID and the inception score are biased below about {ENOUGH}, "
        "so compare only sets of this very size; KID is not biased, but it scatters"
    ]
    if n <= n_features:
        said.append(
            f"with {n} pictures for {n_features} features the covariances are not of full rank: "
            "FID sees only part of the space"
        )
    return said
