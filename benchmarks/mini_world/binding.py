"""Tie each noun to its place while the base is trained.

The masks of the world are exact, so they can teach the cross-attention which word belongs
where. For every cell covered by drawing k the loss is -log of noun k's share among the nouns'
attention there,

    L = -mean_cells log(A_k / sum_j A_j),

a proper score: where the picture is still noise, its minimum is the layout's prior. It
speeds up the learning of several nouns at once and leaves maps that personalisation, whose
attention loss reads the same layers, can rely on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.nn import functional as F

RECORDED = ("down_blocks.1.", "up_blocks.1.")
"""The levels whose maps are read: the coarsest with cross-attention outside the mid block."""

_EPS = 1e-6


class _Recorder:
    """An attention processor that keeps its probabilities, averaged over the heads."""

    def __init__(self, maps: list[Tensor]) -> None:
        self.maps = maps

    def __call__(
        self, attn: Attention, hidden: Tensor, encoder_hidden_states: Tensor, **_: Any
    ) -> Tensor:
        query = attn.head_to_batch_dim(attn.to_q(hidden))
        key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
        value = attn.head_to_batch_dim(attn.to_v(encoder_hidden_states))
        probabilities = attn.get_attention_scores(query, key)
        self.maps.append(probabilities.unflatten(0, (len(hidden), -1)).mean(1))
        out = attn.batch_to_head_dim(torch.bmm(probabilities, value))
        mixed: Tensor = attn.to_out[1](attn.to_out[0](out))
        return mixed


@contextmanager
def recorded_maps(unet: UNet2DConditionModel) -> Iterator[list[Tensor]]:
    """Collect the maps of the recorded levels, each (B, cells, tokens), while open."""
    maps: list[Tensor] = []
    before = dict(unet.attn_processors)
    recorder = _Recorder(maps)
    unet.set_attn_processor(
        {
            name: recorder if name.startswith(RECORDED) and "attn2" in name else processor
            for name, processor in before.items()
        }
    )
    try:
        yield maps
    finally:
        unet.set_attn_processor(before)


def binding_loss(maps: list[Tensor], masks: Tensor, owners: Tensor) -> Tensor:
    """Return the mean over covered cells of -log of the right noun's share; a scalar.

    Args:
        maps: each (B, cells, L), attention over L tokens.
        masks: (B, K, h, w) in 0..1, the share of a cell that drawing k covers.
        owners: (B, K, L) bool, true on the tokens of drawing k's noun.
    """
    total = masks.new_zeros(())
    for probabilities in maps:
        side = round(probabilities.shape[1] ** 0.5)
        cover = F.adaptive_avg_pool2d(masks, side).flatten(2)
        shares = torch.einsum("bcl,bkl->bkc", probabilities, owners.to(probabilities))
        whole = shares.sum(1, keepdim=True)
        log_share = ((shares + _EPS) / (whole + _EPS)).log()
        weight = cover * owners.any(-1)[..., None]
        total = total - (weight * log_share).sum() / weight.sum().clamp(min=1.0)
    return total / len(maps)
