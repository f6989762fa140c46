"""Cross-attention maps, recorded only where the loss reads them, only for the handles' columns.

The recorder listens to `to_q` and `to_k` of the cross-attention layers of one level and
recomputes there what the handles' columns of softmax(q k^T / sqrt(d)) are. The attention itself
is left to whatever processor the model has, so every layer keeps its memory-efficient kernel
(the published code replaced all of them by an explicit softmax).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.families import map_level
from lora_scene.errors import RecipeError
from lora_scene.recipe import Recipe
from lora_scene.size import Size


@dataclass(frozen=True)
class Columns:
    """Which token columns belong to which drawn handle.

    Attributes:
        selection: (b, n_tokens, k_max); 1 where a token is one of a handle's, else 0.
        counts: Drawn handles of each sample, k_1..k_b.
    """

    selection: Tensor
    counts: tuple[int, ...]

    @classmethod
    def of(
        cls,
        positions: Sequence[Sequence[Sequence[int]]],
        n_tokens: int,
        device: torch.device | None = None,
    ) -> Columns:
        """Build from the token positions of each handle of each sample.

        Args:
            positions: Of each sample, of each drawn handle, its tokens' places in the prompt.
            n_tokens: Tokens of a prompt.
            device: On the UNet's own no recorded layer has to wait for a copy.
        """
        counts = tuple(len(sample) for sample in positions)
        selection = torch.zeros(len(positions), n_tokens, max(counts))
        for i, sample in enumerate(positions):
            for j, tokens in enumerate(sample):
                selection[i, list(tokens), j] = 1
        return cls(selection.to(device), counts)


class AttentionRecorder:
    """Records the handles' maps of a UNet, with their gradient, also under checkpointing.

    With non-reentrant checkpointing the layers run again in the backward pass; the hooks repeat
    the same operations there, so that autograd finds what it saved, and keep nothing.

    Args:
        unet: A `UNet2DConditionModel`; adapters must be in place before the hooks.
        level: The UNet's level whose maps are read, see `map_level`; None takes that.
    """

    def __init__(self, unet: Any, *, level: int | None = None) -> None:
        self.level = map_level(unet.config) if level is None else level
        self._layers = layers_at(unet, self.level)
        self._columns: Columns | None = None
        self._is_open = False
        self._latents = Size(0, 0)
        self._total: Tensor | None = None

    @property
    def n_layers(self) -> int:
        """Return how many layers are recorded."""
        return len(self._layers)

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Listen to the layers; stop listening afterwards."""
        try:
            with listening(self._layers, self._read):
                yield
        finally:
            self._columns = None

    @contextlib.contextmanager
    def recording(self, columns: Columns, latents: Tensor) -> Iterator[None]:
        """Record the next forward pass, of latents (b, c, h, w); `maps` returns what was read.

        The columns stay known until the next recording, for the backward pass.
        """
        self._columns, self._is_open, self._total = columns, True, None
        self._latents = Size.of(latents.shape)
        try:
            yield
        finally:
            self._is_open = False

    def maps(self) -> list[Tensor]:
        """Return each sample's maps (k_i, r_h, r_w), 0..1, averaged over layers and heads, float32.

        Raises:
            RuntimeError: No forward pass was recorded.
        """
        if self._total is None or self._columns is None:
            raise RuntimeError("no forward pass was recorded")
        mean = self._total / self.n_layers
        grid = self._latents.cells(2**self.level)
        mean = mean.view(len(mean), *grid.rows_columns, -1)
        return [
            sample[..., :k].permute(2, 0, 1)
            for sample, k in zip(mean, self._columns.counts, strict=True)
        ]

    def _read(self, layer: Any, query: Tensor, key: Tensor) -> None:
        if not self._is_listening():
            return
        assert self._columns is not None
        selection = self._columns.selection.to(key.device)
        b = len(selection)
        read = checkpoint(
            handle_map,
            query[:b],
            key[:b],
            selection,
            layer.heads,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        if self._is_open:
            self._total = read if self._total is None else self._total + read

    def _is_listening(self) -> bool:
        """Tell a recorded pass, or its repetition in the backward pass, from all others."""
        return self._is_open or (self._columns is not None and torch.is_grad_enabled())


@contextlib.contextmanager
def listening(layers: Sequence[Any], hear: Callable[[Any, Tensor, Tensor], None]) -> Iterator[None]:
    """Tell `hear` each cross-attention layer that runs, what `to_q` gave, and what `to_k`."""
    queries: dict[nn.Module, Tensor] = {}

    def keep(layer: Any, module: nn.Module, args: Any, query: Tensor) -> None:
        queries[layer] = query

    def tell(layer: Any, module: nn.Module, args: Any, key: Tensor) -> None:
        hear(layer, queries.pop(layer), key)

    hooks = [layer.to_q.register_forward_hook(partial(keep, layer)) for layer in layers]
    hooks += [layer.to_k.register_forward_hook(partial(tell, layer)) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def handle_map(query: Tensor, key: Tensor, selection: Tensor, n_heads: int) -> Tensor:
    """Return the handles' columns of the attention probabilities, averaged over heads.

    The normaliser runs over all tokens; the columns of a handle of several tokens are added.

    Args:
        query: (b, n_cells, n_heads * d), the output of `to_q`.
        key: (b, n_tokens, n_heads * d), the output of `to_k`.
        selection: (b, n_tokens, k), `Columns.selection`.
        n_heads: Attention heads.

    Returns:
        (b, n_cells, k), 0..1, float32.
    """
    with _without_autocast(query.device.type):
        q = _split_heads(query.float(), n_heads)  # (b, heads, n_cells, d)
        k = _split_heads(key.float(), n_heads)  # (b, heads, n_tokens, d)
        logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        shares: Tensor = logits.softmax(dim=-1) @ selection[:, None].float()
        return shares.mean(dim=1)


def _without_autocast(kind: str) -> contextlib.AbstractContextManager[None]:
    if not torch.amp.is_autocast_available(kind):  # the meta device
        return contextlib.nullcontext()
    return torch.autocast(kind, enabled=False)


def _split_heads(states: Tensor, n_heads: int) -> Tensor:
    b, n, _ = states.shape
    return states.view(b, n, n_heads, -1).transpose(1, 2)


def read_level(backbone: Backbone, recipe: Recipe) -> int:
    """Return the UNet's level that a recipe's attention loss reads.

    Raises:
        RecipeError: No cross-attention layer outside the mid block has maps of the recipe's side.
    """
    unet, side = backbone.unet, recipe.attention_loss.map_side
    if not side:
        return map_level(unet.config)
    cells = backbone.resolution // backbone.vae_factor
    levels = range(len(unet.config.down_block_types))
    sides = {level: -(-cells // 2**level) for level in levels if layers_at(unet, level)}
    if side not in sides.values():
        raise RecipeError(
            "no cross-attention layer outside the mid block has maps of that side",
            where="attention_loss.map_side",
            expected=" or ".join(map(str, sorted(set(sides.values())))),
            got=side,
        )
    return max(level for level, own in sides.items() if own == side)


def layers_at(unet: Any, level: int) -> list[Any]:
    """Return the cross-attention layers of a level, outside the mid block."""
    names = f"down_blocks.{level}.", f"up_blocks.{len(unet.config.down_block_types) - 1 - level}."
    return [
        module
        for name, module in unet.named_modules()
        if name.startswith(names) and name.endswith(".attn2")
    ]
