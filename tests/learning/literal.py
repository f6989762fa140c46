"""The published loss, restated slowly: stock parts, explicit softmax everywhere, whole maps, loops.

Nothing of `lora_scene` is used here. The vocabulary matrix grows by `resize_token_embeddings` and
all of it gets a gradient; LoRA is two matrices added by hand in an attention processor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Weights:
    """What a loss is made of.

    Attributes:
        attention: Weight of the maps against the masks.
        pairwise: Weight of the maps against each other.
        prior: Weight of the prior.
        outside: Weight of cells outside all concepts.
        by_area: Whether the masked loss is divided by the masks' area.
        mean_concepts: Whether the attention term is averaged over concepts, not summed.
    """

    attention: float = 0.01
    pairwise: float = 0.0
    prior: float = 0.0
    outside: float = 0.0
    by_area: bool = False
    mean_concepts: bool = False


@dataclass
class Drawn:
    """One sample: (c, h, w) latent and noise, timestep, prompt, indices of the named concepts.

    `sizes` are SDXL's six, for pictures that are no square of the base's own size.
    """

    z: Tensor
    eps: Tensor
    t: int
    prompt: str
    subset: tuple[int, ...]
    sizes: tuple[int, ...] = ()


@dataclass
class SlowAttention:
    """Explicit softmax, head by head, LoRA by hand; keeps every probability."""

    lora: Mapping[str, tuple[Tensor, Tensor]]
    name: str
    kept: dict[str, list[Tensor]] = field(default_factory=dict)

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = self._project(attn.to_q, "to_q", hidden_states)
        key = self._project(attn.to_k, "to_k", context)
        value = self._project(attn.to_v, "to_v", context)
        width = query.shape[-1] // attn.heads
        heads, outputs = [], []
        for h in range(attn.heads):
            part = slice(h * width, (h + 1) * width)
            scores = query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(width)
            exponents = (scores - scores.amax(dim=-1, keepdim=True)).exp()
            probabilities = exponents / exponents.sum(dim=-1, keepdim=True)
            heads.append(probabilities)
            outputs.append(probabilities @ value[..., part])
        if encoder_hidden_states is not None:
            self.kept[self.name] = heads
        return self._project(attn.to_out[0], "to_out.0", torch.cat(outputs, dim=-1))

    def _project(self, layer, leaf, states):
        down, up = self.lora[f"{self.name}.{leaf}"]
        return layer(states) + (states @ down.T) @ up.T


def add_handles(pipe, handles: Sequence[str], rows: Sequence[Tensor]) -> list[Tensor]:
    """Grow the vocabularies, copy the rows in, return the matrices, which want gradients."""
    matrices = []
    parts = [("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")]
    for (tokenizer_name, encoder_name), new in zip(parts, rows, strict=False):
        tokenizer, encoder = getattr(pipe, tokenizer_name), getattr(pipe, encoder_name)
        n_known = len(tokenizer)
        tokenizer.add_tokens(list(handles))
        matrix = encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False).weight
        with torch.no_grad():
            matrix[n_known:] = new
        matrices.append(matrix.requires_grad_(True))
    return matrices


def loss(
    pipe,
    drawn: Sequence[Drawn],
    *,
    handles: Sequence[str],
    masks: Tensor,
    map_levels: tuple[str, str],
    lora: Mapping[str, tuple[Tensor, Tensor]],
    weights: Weights,
    prior: Sequence[Drawn] = (),
) -> dict[str, Tensor]:
    """Return every term and the total.

    Args:
        pipe: A stock pipeline with the handles added.
        drawn: The batch.
        handles: All handles.
        masks: (K, H, W), of the photo.
        map_levels: The down and the up block whose cross-attention the loss reads.
        lora: Down and up matrix by layer name.
        weights: What the loss is made of.
        prior: Pictures without masks or maps.
    """
    kept: dict[str, list[Tensor]] = {}
    processors = {}
    for name in pipe.unet.attn_processors:
        layer = name.removesuffix(".processor")
        processors[name] = SlowAttention(lora, layer, kept)
    pipe.unet.set_attn_processor(processors)
    every = [*drawn, *prior]
    noisy = torch.stack([noised(pipe, d) for d in every])
    prediction = pipe.unet(
        noisy,
        torch.tensor([d.t for d in every]),
        **conditions(pipe, every),
    ).sample
    terms = {name: torch.zeros(()) for name in ("diffusion", "attention", "pairwise", "prior")}
    for i, d in enumerate(drawn):
        error = (prediction[i] - target(pipe, d)) ** 2
        terms["diffusion"] = terms["diffusion"] + masked_mean(error, d, masks, weights)
        maps = handle_maps(pipe, kept, i, d, handles, map_levels)
        terms["attention"] = terms["attention"] + map_term(maps, d, masks, weights)
        terms["pairwise"] = terms["pairwise"] + similarity(maps)
    for name in ("diffusion", "attention", "pairwise"):
        terms[name] = terms[name] / len(drawn)
    for j, d in enumerate(prior):
        error = (prediction[len(drawn) + j] - target(pipe, d)) ** 2
        terms["prior"] = terms["prior"] + error.mean() / len(prior)
    terms["total"] = (
        terms["diffusion"]
        + weights.attention * terms["attention"]
        + weights.pairwise * terms["pairwise"]
        + weights.prior * terms["prior"]
    )
    return terms


def conditions(pipe, every: Sequence[Drawn]) -> dict[str, object]:
    """Encode prompts as the stock pipeline does."""
    prompts = [d.prompt for d in every]
    encoded = pipe.encode_prompt(
        prompts, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    if len(encoded) == 2:
        return {"encoder_hidden_states": encoded[0]}
    side = pipe.vae.config.sample_size
    own = (side, side, 0, 0, side, side)
    sizes = torch.tensor([d.sizes or own for d in every], dtype=torch.float32)
    return {
        "encoder_hidden_states": encoded[0],
        "added_cond_kwargs": {"text_embeds": encoded[2], "time_ids": sizes},
    }


def alpha_bar(pipe, t: int) -> float:
    """Return the product of 1 - beta up to t, of the scaled linear schedule."""
    config = pipe.scheduler.config
    n = config.num_train_timesteps
    low, high = config.beta_start**0.5, config.beta_end**0.5
    product = 1.0
    for step in range(t + 1):
        product *= 1 - (low + (high - low) * step / (n - 1)) ** 2
    return product


def noised(pipe, d: Drawn) -> Tensor:
    kept = alpha_bar(pipe, d.t)
    return math.sqrt(kept) * d.z + math.sqrt(1 - kept) * d.eps


def target(pipe, d: Drawn) -> Tensor:
    if pipe.scheduler.config.prediction_type == "epsilon":
        return d.eps
    kept = alpha_bar(pipe, d.t)
    return math.sqrt(kept) * d.eps - math.sqrt(1 - kept) * d.z


def nearest(mask: Tensor, n_rows: int, n_columns: int) -> Tensor:
    """Resize (H, W) to cells by taking the pixel at the floor of the scaled index."""
    down, across = mask.shape[0] / n_rows, mask.shape[1] / n_columns
    return torch.stack(
        [
            torch.stack(
                [mask[int(row * down), int(column * across)] for column in range(n_columns)]
            )
            for row in range(n_rows)
        ]
    )


def masked_mean(error: Tensor, d: Drawn, masks: Tensor, weights: Weights) -> Tensor:
    """Average the squared errors (c, h, w) under the drawn concepts' masks, cell by cell."""
    channels, n_rows, n_columns = error.shape
    small = [nearest(mask, n_rows, n_columns) for mask in masks]
    total, area = torch.zeros(()), 0.0
    for row in range(n_rows):
        for column in range(n_columns):
            weight = max(float(small[k][row, column]) for k in d.subset)
            outside = 1 - max(float(mask[row, column]) for mask in small)
            weight = max(weight, weights.outside * outside)
            area += weight
            if weight:
                total = total + weight * sum(error[c, row, column] for c in range(channels))
    return total / (channels * (area if weights.by_area else n_rows * n_columns))


def handle_maps(
    pipe,
    kept: Mapping[str, list[Tensor]],
    i: int,
    d: Drawn,
    handles: Sequence[str],
    map_levels: tuple[str, str],
) -> list[Tensor]:
    """Return each drawn handle's map: the mean over layers and heads of its column.

    Its rows and columns are those of the latents, halved as often as the level says.
    """
    ids = pipe.tokenizer(d.prompt, padding="max_length").input_ids
    maps = []
    for k in d.subset:
        column = ids.index(pipe.tokenizer.convert_tokens_to_ids(handles[k]))
        found = [
            head[i, :, column]
            for name, heads in kept.items()
            if name.startswith(map_levels)
            for head in heads
        ]
        flat = sum(found) / len(found)
        n_rows, n_columns = d.z.shape[1:]
        while n_rows * n_columns > len(flat):
            n_rows, n_columns = math.ceil(n_rows / 2), math.ceil(n_columns / 2)
        maps.append(flat.reshape(n_rows, n_columns))
    return maps


def map_term(maps: Sequence[Tensor], d: Drawn, masks: Tensor, weights: Weights) -> Tensor:
    """Compare each map, divided by its maximum, with its mask, cell by cell."""
    total = torch.zeros(())
    for own, k in zip(maps, d.subset, strict=True):
        n_rows, n_columns = own.shape
        mask = nearest(masks[k], n_rows, n_columns)
        scaled = own / own.max()
        for row in range(n_rows):
            for column in range(n_columns):
                squared = (scaled[row, column] - mask[row, column]) ** 2
                total = total + squared / (n_rows * n_columns)
    return total / len(maps) if weights.mean_concepts else total


def similarity(maps: Sequence[Tensor]) -> Tensor:
    """Average the cosine similarity over the pairs of different handles."""
    found = []
    for a in range(len(maps)):
        for b in range(len(maps)):
            if a != b:
                norms = (maps[a] ** 2).sum().sqrt() * (maps[b] ** 2).sum().sqrt()
                found.append((maps[a] * maps[b]).sum() / norms)
    return sum(found) / len(found) if found else torch.zeros(())
