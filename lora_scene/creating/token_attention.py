"""Cross-attention, read and steered through hooks: no attention processor is replaced.

The maps of handles are read from `to_q` and `to_k`; the attention itself is steered by a bias on
its logits, handed to each layer as the attention mask that every processor understands.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lora_scene.adapters.vocabulary import handle_tokens
from lora_scene.backbones.families import map_level
from lora_scene.creating.studio import Studio
from lora_scene.errors import CreationError
from lora_scene.learning.attention import Columns, handle_map, layers_at, listening
from lora_scene.size import Size

BiasOf = Callable[[Size], Tensor]  # a grid's cells to a bias (b, n_cells, n_tokens) on logits


def token_columns(studio: Studio, prompt: str, handle: str) -> list[int]:
    """Return the token positions of a handle in a prompt.

    Raises:
        CreationError: The prompt does not name the handle, or no adapter knows it.
    """
    handle = studio.find_handle(handle)
    concept = next(c for one in studio.adapters for c in one.adapter.concepts if c.handle == handle)
    tokenizer = studio.backbone.tokenizers[0]
    wanted = set(tokenizer.convert_tokens_to_ids(list(handle_tokens(handle, concept.n_vectors))))
    ids = tokenizer(studio.pipeline.maybe_convert_prompt(prompt, tokenizer)).input_ids
    columns = [position for position, token in enumerate(ids) if token in wanted]
    if not columns:
        raise CreationError(f"the prompt does not name {handle}", where=prompt)
    return columns


def grid_of(n_cells: int, latents: Size) -> Size:
    """Return a map's size from its number of cells and the latents' size.

    Raises:
        ValueError: No level of the UNet has so many.
    """
    grid = latents
    while grid.area > n_cells:
        grid = grid.cells(2)
    if grid.area != n_cells:
        raise ValueError(f"{n_cells} cells are no level of latents {latents}")
    return grid


def cross_layers(unet: Any) -> list[Any]:
    """Return all cross-attention layers."""
    return [module for name, module in unet.named_modules() if name.endswith(".attn2")]


def telling_layers(unet: Any) -> list[Any]:
    """Return the layers whose maps tell where things are: the coarsest outside the mid block.

    They are those that the attention loss reads in training (Break-A-Scene, section 3.3).
    """
    return layers_at(unet, map_level(unet.config))


@contextlib.contextmanager
def biased(unet: Any, bias_of: BiasOf, latents: Size) -> Iterator[None]:
    """Add a bias to the logits of every cross-attention layer.

    Where a pass holds twice as many samples as the bias, its first half is the negative prompts
    of classifier-free guidance, and is left alone.

    Args:
        unet: A `UNet2DConditionModel`.
        bias_of: Grid to bias (b, n_cells, n_tokens).
        latents: The latents' size, cells.
    """

    @functools.cache  # copied to the device once, not in every layer of every step
    def ready(n: int, n_cells: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        bias = bias_of(grid_of(n_cells, latents)).to(device, dtype)
        return torch.cat([torch.zeros_like(bias), bias]) if n == 2 * len(bias) else bias

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        states: Tensor = args[0]
        bias = ready(*states.shape[:2], states.device, states.dtype)
        return args, {**kwargs, "attention_mask": bias}

    hooks = [
        layer.register_forward_pre_hook(hook, with_kwargs=True) for layer in cross_layers(unet)
    ]
    try:
        yield
    finally:
        for one in hooks:
            one.remove()


class MapReader:
    """Reads the handles' maps of one UNet pass after the other, with their gradient.

    The maps are those of the model's own queries and keys, before any bias: what the picture at
    hand attends to, whatever is forbidden to it.

    Args:
        unet: A `UNet2DConditionModel`.
        columns: Token positions of each handle of each sample.
        n_tokens: Tokens of a prompt.
        latents: The latents' size, cells.
    """

    def __init__(
        self, unet: Any, columns: Sequence[Sequence[Sequence[int]]], *, n_tokens: int, latents: Size
    ) -> None:
        self._layers = telling_layers(unet)
        self._latents = latents
        self._selection = Columns.of(columns, n_tokens).selection
        self._maps: list[Tensor] = []

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Listen to the layers; stop listening afterwards."""
        try:
            with listening(self._layers, self._read):
                yield
        finally:
            self._maps.clear()

    def take(self) -> Tensor:
        """Return the last pass's maps (b, k, rows, columns), 0..1, means over layers and heads."""
        maps = torch.stack(self._maps[-len(self._layers) :]).mean(dim=0)
        self._maps.clear()
        b, n_cells, k = maps.shape
        return maps.transpose(1, 2).reshape(b, k, *grid_of(n_cells, self._latents).rows_columns)

    def clear(self) -> None:
        """Forget what was read."""
        self._maps.clear()

    def _read(self, layer: Any, query: Tensor, key: Tensor) -> None:
        b = len(self._selection)
        self._selection = self._selection.to(key.device)
        self._maps.append(handle_map(query[-b:], key[-b:], self._selection, layer.heads))
