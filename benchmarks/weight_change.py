"""A weight change, layer by layer: cut to low rank by SVD, or left out by the kind of layer."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

RANKS = ((8, 2), (8, 8), (16, 16), (32, 32))  # of linear layers, of convolutions
CUTS = {f"cut to {linear} and {conv}": (linear, conv) for linear, conv in RANKS}
WHOLE, ENERGY = "full-ours", "cut to 90 % of the energy"
SHARE = 0.9  # of a layer's energy, the sum of its squared singular values
KINDS = (
    "attention", "feed-forward", "convolutions", "time layers", "norms and biases", "text encoder"
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Layer:
    """The change of one weight.

    Attributes:
        kind: One of `KINDS`.
        is_ours: Whether the recipe's LoRA adapts it.
        change: In the weight's shape.
        factors: U (m, k), S (k,) and V^T (k, n) of the change as a matrix; None of a vector.
    """

    kind: str
    is_ours: bool
    change: Tensor
    factors: tuple[Tensor, Tensor, Tensor] | None

    @property
    def rank(self) -> int:
        """Return the greatest rank that the change can have; 1 of a vector."""
        return len(self.factors[1]) if self.factors else 1

    def cut(self, rank: int) -> Tensor:
        """Return the nearest change of a rank; a vector's is all of it, or nothing."""
        if rank >= self.rank:
            return self.change
        if self.factors is None or not rank:
            return torch.zeros_like(self.change)
        u, s, vt = self.factors
        return ((u[:, :rank] * s[:rank]) @ vt[:rank]).view_as(self.change)

    def numbers(self, rank: int) -> int:
        """Return how many numbers a rank takes, as factors where these are fewer."""
        n = self.change.numel()
        if self.factors is None or rank >= self.rank:
            return n * (rank > 0)
        return min(n, rank * sum(self.change.flatten(1).shape))

    def energy(self, rank: int) -> float:
        """Return the sum of squares of what is kept."""
        return float(self.cut(rank).double().square().sum())

    def rank_of(self, share: float) -> int:
        """Return the least rank that keeps a share of the energy."""
        if self.factors is None:
            return 1
        kept = self.factors[1].double().square().cumsum(0)
        return min(int((kept < share * kept[-1]).sum()) + 1, self.rank)


RankOf = Callable[[Layer], int]


def variants() -> dict[str, RankOf]:
    """Return what is drawn of a weight change: a name, and the rank that each layer keeps."""

    def cut(linear: int, convolutions: int) -> RankOf:
        ranks = {1: 1, 4: convolutions}  # vectors are kept whole
        return lambda layer: ranks.get(layer.change.ndim, linear)

    def part(kind: str, *, is_kept: bool) -> RankOf:
        return lambda layer: layer.rank * ((layer.kind == kind) == is_kept)

    first = cut(*RANKS[0])
    return {
        WHOLE: lambda layer: layer.rank,
        "rows alone": lambda layer: 0,
        **{name: cut(*ranks) for name, ranks in CUTS.items()},
        ENERGY: lambda layer: layer.rank_of(SHARE),
        "our layers, whole": lambda layer: layer.rank * layer.is_ours,
        "our layers, cut to {} and {}".format(*RANKS[0]): lambda one: first(one) * one.is_ours,
        "matrices, cut to 90 %": lambda one: one.rank_of(SHARE) * (one.factors is not None),
        **{f"{kind} alone": part(kind, is_kept=True) for kind in KINDS},
        **{f"without {kind}": part(kind, is_kept=False) for kind in KINDS},
    }


def take_apart(
    base: Mapping[str, Tensor], full: Mapping[str, Tensor], ours: Collection[str]
) -> dict[str, Layer]:
    """Return each weight's change; `ours` names the weights that the recipe's LoRA adapts."""
    layers = {}
    for name, before in base.items():
        change = full[name] - before
        is_vector = change.ndim == 1
        u, s, vt = (None,) * 3 if is_vector else torch.linalg.svd(change.flatten(1), False)
        factors = None if u is None or s is None or vt is None else (u, s, vt)
        layers[name] = Layer(_kind_of(name, change.ndim), name in ours, change, factors)
    return layers


def _kind_of(name: str, n_dims: int) -> str:
    if name.startswith("text_encoder"):
        return "text encoder"
    if n_dims == 1:
        return "norms and biases"
    if ".attn" in name:
        return "attention"
    if ".ff." in name:
        return "feed-forward"
    return "convolutions" if n_dims == 4 else "time layers"


def what_is_kept(layers: Collection[Layer], rank_of: RankOf) -> dict[str, dict[str, Any]]:
    """Return, by kind: numbers, share of the whole change's energy, and each matrix's rank."""
    total = sum(layer.energy(layer.rank) for layer in layers)
    kept = {}
    for kind in KINDS:
        own = [(layer, rank_of(layer)) for layer in layers if layer.kind == kind]
        kept[kind] = {
            "numbers": sum(layer.numbers(rank) for layer, rank in own),
            "energy": sum(layer.energy(rank) for layer, rank in own) / total,
            "ranks": [rank for layer, rank in own if layer.factors],
        }
    return kept
