"""The losses: pure functions of tensors, one value a sample, unreduced over the batch.

Symbols: b samples, c channels, h x w latent cells, k drawn concepts, r x r map cells.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def weighted_error(
    prediction: Tensor,
    target: Tensor,
    weight: Tensor,
    *,
    normalize: Literal["none", "area"] = "none",
) -> Tensor:
    """Return the masked diffusion loss of each sample (Break-A-Scene, arXiv:2305.16311, eq. 1).

    The published code multiplies prediction and target by the mask and averages the squared
    difference over all cells; for a binary mask that is the weighted mean below. A soft edge
    weighs by its value here, not by its square.

    Args:
        prediction: (b, c, h, w).
        target: (b, c, h, w).
        weight: (b, 1, h, w), 0..1.
        normalize: `none` divides by all cells, so that a small concept has a small loss;
            `area` by the sum of the weights.

    Returns:
        (b,), float32, >= 0: averaged over channels and cells, as `normalize` says.
    """
    error = (prediction.float() - target.float()).square().mean(dim=1, keepdim=True)
    total = (error * weight).sum(dim=(1, 2, 3))
    if normalize == "area":
        return total / weight.sum(dim=(1, 2, 3)).clamp_min(1e-6)
    return total / weight[0].numel()


def cell_weights(drawn: Tensor, every: Tensor, outside_weight: float) -> Tensor:
    """Weigh the cells of one sample: 1 on drawn concepts, `outside_weight` where there is none.

    Cells of concepts that the prompt does not name keep weight 0: they are neither learnt under
    this prompt nor background.

    Args:
        drawn: (k, h, w), 0..1, masks of the drawn concepts.
        every: (K, h, w), 0..1, masks of all concepts.
        outside_weight: 0..1.

    Returns:
        (1, h, w), 0..1.
    """
    union = drawn.amax(dim=0, keepdim=True)
    if not outside_weight:
        return union
    outside = 1 - every.amax(dim=0, keepdim=True)
    return torch.maximum(union, outside_weight * outside)


def map_error(maps: Tensor, masks: Tensor) -> Tensor:
    """Return the cross-attention loss of each concept (Break-A-Scene, eq. 2).

    Each map is divided by its own maximum, through which the gradient flows, as in the published
    code; then the mean squared difference from its mask over the map's cells. A mask that covers no
    cell whole is divided by its own maximum too: a thin thing's attention is not held below 1.

    Args:
        maps: (k, r_h, r_w), >= 0, one handle's attention each, averaged over layers and heads.
        masks: (k, r_h, r_w), 0..1.

    Returns:
        (k,), 0..1.
    """
    peaks = maps.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    tops = masks.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    return (maps / peaks - masks / tops).square().mean(dim=(1, 2))


def map_confusion(maps: Tensor, masks: Tensor) -> Tensor:
    """Return the cross-entropy of maps normalised across concepts (after PartCraft, 2407.04604).

    In every cell the maps become a distribution over the drawn concepts; it is held to the masks
    in the cells that these cover, averaged over a concept's own cells.

    Args:
        maps: (k, r_h, r_w), >= 0.
        masks: (k, r_h, r_w), 0..1.

    Returns:
        (k,), >= 0, in nats; zero for a single concept, which has nothing to be confused with.
    """
    share = maps / maps.sum(dim=0, keepdim=True).clamp_min(1e-12)
    surprise = -masks * share.clamp_min(1e-6).log()
    return surprise.sum(dim=(1, 2)) / masks.sum(dim=(1, 2)).clamp_min(1e-6)


def map_similarity(maps: Tensor) -> Tensor:
    """Return the mean cosine similarity between the maps of different handles.

    An extension: the paper's term compares a map with its mask, this one maps with each other.

    Args:
        maps: (k, r_h, r_w), >= 0.

    Returns:
        A scalar in 0..1; 0 for a single handle.
    """
    k = len(maps)
    if k < 2:
        return maps.sum() * 0
    flat = torch.nn.functional.normalize(maps.flatten(1), dim=1)
    cosines = flat @ flat.T
    return (cosines.sum() - cosines.diagonal().sum()) / (k * (k - 1))
