"""One forward pass: from drawn samples to the three terms of the loss.

L = L_masked + w_prior L_prior + w_attention L_attention + w_pairwise L_pairwise
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from lora_scene.backbones.backbone import Backbone, TextEncoding, whole_picture
from lora_scene.learning.attention import AttentionRecorder, Columns
from lora_scene.learning.draws import Sample
from lora_scene.learning.handle_table import HandleTable
from lora_scene.learning.lora import without_lora
from lora_scene.learning.losses import (
    cell_weights,
    map_confusion,
    map_error,
    map_similarity,
    weighted_error,
)
from lora_scene.recipe import AttentionLoss, Phase, Recipe
from lora_scene.size import Size

KEPT_PROMPTS = 128  # on SDXL each takes 0.3 MB in 16 bits
Draw = tuple[int, int]
"""A step's number among those that are drawn, and its part where gradients accumulate."""


@dataclass(frozen=True)
class PriorBatch:
    """Pictures of the base that go into the same forward pass.

    Attributes:
        z: (p, c, h, w).
        eps: (p, c, h, w).
        t: (p,).
        text: Their prompts, encoded.
    """

    z: Tensor
    eps: Tensor
    t: Tensor
    text: TextEncoding


@dataclass(frozen=True)
class LossTerms:
    """The terms of the loss before their weights, scalars, averaged over the batch.

    Attributes:
        diffusion: The masked diffusion loss.
        attention: The maps against the masks.
        pairwise: The maps against each other.
        prior: The prior's diffusion loss.
        total: Their weighted sum.
    """

    diffusion: Tensor
    attention: Tensor
    pairwise: Tensor
    prior: Tensor
    total: Tensor

    def stacked(self) -> Tensor:
        """Return all terms (5,), float32, without a graph, in the order of `LOSSES`."""
        return torch.stack([getattr(self, name).detach().float() for name in LOSSES])


LOSSES = tuple(field.name for field in fields(LossTerms))


class Objective:
    """The loss of a phase, on a base with its handles spliced in.

    Args:
        backbone: The base.
        table: The handles.
        recorder: Listens to the maps; None where no attention term is weighed.
        recipe: The loss's settings.
        phase: The terms' weights.
        has_grounds: Whether samples may stand on grounds of the base; see `Grounds`.
    """

    def __init__(
        self,
        backbone: Backbone,
        table: HandleTable,
        recorder: AttentionRecorder | None,
        *,
        recipe: Recipe,
        phase: Phase,
        has_grounds: bool = False,
    ) -> None:
        self._backbone = backbone
        self._table = table
        self._recorder = recorder
        self._recipe = recipe
        self._phase = phase
        self._has_grounds = has_grounds
        self._encodings = EncodingCache(backbone)
        self._answers: dict[Draw, Tensor] = {}  # of the untouched base

    def __call__(
        self,
        samples: Sequence[Sample],
        prior: PriorBatch | None = None,
        draw: Draw | None = None,
    ) -> LossTerms:
        """Return the loss of a batch; subsets may differ in size from sample to sample.

        Args:
            samples: The batch.
            prior: Pictures of the base beside it.
            draw: Names a batch that will come again; None for one that will not.
        """
        backbone, b = self._backbone, len(samples)
        prompts = [self._table.expand(sample.prompt) for sample in samples]
        ids = backbone.tokenize(prompts)
        is_fixed = self._is_text_fixed
        text = self._encodings.encode(prompts) if is_fixed else backbone.encode_tokens(ids)
        z = torch.stack([sample.z for sample in samples]).to(backbone.device)
        eps = torch.stack([sample.eps for sample in samples]).to(backbone.device)
        t = torch.tensor([sample.t for sample in samples], device=backbone.device)
        z_t = backbone.add_noise(z, eps, t)
        target = backbone.target(z, eps, t)
        asks_base = self._recipe.masked_loss.asks_base
        around = self._around(samples, z_t, t, target, draw) if asks_base else None
        if prior is not None:
            z_prior = backbone.add_noise(prior.z, prior.eps, prior.t)
            z_t, t = torch.cat([z_t, z_prior]), torch.cat([t, prior.t])
            text = text.append(prior.text)
        prediction, maps = self._predict(samples, ids[0], z_t, t, text)
        nothing = prediction.new_zeros((), dtype=torch.float32)
        diffusion = self._diffusion(samples, prediction[:b], target, around)
        attention = pairwise = prior_loss = nothing
        if maps is not None:
            attention = attention_term(maps, samples, self._recipe.attention_loss)
            pairwise = torch.stack([map_similarity(each) for each in maps]).mean()
        if prior is not None:
            prior_target = backbone.target(prior.z, prior.eps, prior.t)
            everywhere = torch.ones_like(prior_target[:, :1])
            prior_loss = weighted_error(prediction[b:], prior_target, everywhere).mean()
        total = (
            diffusion
            + self._phase.attention_weight * attention
            + self._phase.pairwise_weight * pairwise
            + self._recipe.prior.weight * prior_loss
        )
        return LossTerms(diffusion, attention, pairwise, prior_loss, total)

    def _predict(
        self, samples: Sequence[Sample], ids: Tensor, z_t: Tensor, t: Tensor, text: TextEncoding
    ) -> tuple[Tensor, list[Tensor] | None]:
        """Denoise; return the prediction and, if they are recorded, each sample's maps."""
        sizes = self._size_ids(samples, z_t)
        if self._recorder is None:
            return self._backbone.denoise(z_t, t, text, sizes), None
        positions = [
            self._table.columns(row, sample.subset)
            for row, sample in zip(ids, samples, strict=True)
        ]
        columns = Columns.of(positions, ids.shape[1], z_t.device)
        with self._recorder.recording(columns, z_t):
            prediction = self._backbone.denoise(z_t, t, text, sizes)
        return prediction, self._recorder.maps()

    def _size_ids(self, samples: Sequence[Sample], z_t: Tensor) -> Tensor | None:
        """Return what SDXL is told of the sizes of samples, and of the prior behind them (b, 6)."""
        if not self._backbone.family.has_pooled_text:
            return None
        whole = whole_picture(Size.of(z_t.shape).times(self._backbone.vae_factor))
        told = [sample.variant.size_ids or whole for sample in samples]
        told += [whole] * (len(z_t) - len(samples))
        return torch.tensor(told, device=z_t.device)

    def _diffusion(
        self, samples: Sequence[Sample], prediction: Tensor, target: Tensor, around: Tensor | None
    ) -> Tensor:
        """Return the masked loss against `target`, beside the things against what is `around`."""
        settings = self._recipe.masked_loss
        if not settings.enabled:
            everywhere = torch.ones_like(target[:, :1])
            return weighted_error(prediction, target, everywhere).mean()
        masks = [sample.variant.masks.to(target.device) for sample in samples]
        drawn = [mask[list(sample.subset)] for mask, sample in zip(masks, samples, strict=True)]
        weight = torch.stack(
            [self._weights(*one) for one in zip(samples, drawn, masks, strict=True)]
        )
        if around is not None:
            inside = torch.stack([d.amax(dim=0, keepdim=True) for d in drawn])
            target = inside * target + (1 - inside) * around
        return weighted_error(prediction, target, weight, normalize=settings.normalize).mean()

    def _weights(self, sample: Sample, drawn: Tensor, every: Tensor) -> Tensor:
        """Return the weight (1, h, w) of each cell of a sample."""
        settings = self._recipe.masked_loss
        if sample.on_ground:  # of the named things alone
            return cell_weights(drawn, drawn, self._recipe.grounds.outside_weight)
        if not settings.asks_base:
            return cell_weights(drawn, every, settings.outside_weight)
        if self._has_grounds:
            shown = [k for k, one in enumerate(self._table.concepts) if not one.is_background]
            return cell_weights(drawn, every[shown], settings.outside_weight)
        inside = drawn.amax(dim=0, keepdim=True)
        return inside + (1 - inside) * settings.outside_weight

    @property
    def _is_text_fixed(self) -> bool:
        """Tell whether nothing is trained that the prompts' encodings come from."""
        phase, recipe = self._phase, self._recipe
        is_adapted = phase.trains == "lora" and recipe.lora.text_encoder_rank > 0
        is_full = phase.trains == "full" and recipe.full.text_encoder
        return not (phase.rows_lr or is_adapted or is_full)

    @torch.no_grad()
    def _around(
        self,
        samples: Sequence[Sample],
        z_t: Tensor,
        t: Tensor,
        target: Tensor,
        draw: Draw | None,
    ) -> Tensor | None:
        """Return what is to be predicted around the things; None where that is `target` for all.

        It is what the untouched base predicts for the prompts with class nouns; where the things
        stand on a ground of the base, the picture's own `target`.
        """
        asked = [i for i, sample in enumerate(samples) if not sample.on_ground]
        if not asked:
            return None
        answer = self._answers.get(draw) if draw is not None else None
        if answer is None:
            about = [samples[i] for i in asked]
            z_asked, t_asked = (torch.stack([one[i] for i in asked]) for one in (z_t, t))
            with without_lora(self._backbone):
                text = self._encodings.encode([sample.plain_prompt for sample in about])
                sizes = self._size_ids(about, z_asked)
                answer = self._backbone.denoise(z_asked, t_asked, text, sizes)
            if draw is not None:
                self._answers[draw] = answer
        answers = dict(zip(asked, answer.float(), strict=True))
        return torch.stack([answers.get(i, own.float()) for i, own in enumerate(target)])


def attention_term(
    maps: Sequence[Tensor], samples: Sequence[Sample], settings: AttentionLoss
) -> Tensor:
    """Return the cross-attention loss, summed or averaged over concepts, averaged over samples.

    Args:
        maps: A sample's maps (k_i, r_h, r_w) each.
        samples: The batch.
        settings: Form and reduction.
    """
    per_concept = map_error if settings.form == "mask" else map_confusion
    terms = [
        per_concept(own, sample.variant.map_masks[list(sample.subset)].to(own.device))
        for own, sample in zip(maps, samples, strict=True)
    ]
    summed = [term.sum() if settings.reduction == "sum" else term.mean() for term in terms]
    return torch.stack(summed).mean()


class EncodingCache:
    """Encodes prompts without gradients and remembers the latest ones.

    Args:
        backbone: The base; its text encoders and rows must not change meanwhile.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._kept: OrderedDict[str, TextEncoding] = OrderedDict()

    def encode(self, prompts: Sequence[str]) -> TextEncoding:
        """Return the prompts' encodings, one after the other."""
        return TextEncoding.joined([self._one(prompt) for prompt in prompts])

    @torch.no_grad()
    def _one(self, prompt: str) -> TextEncoding:
        if prompt not in self._kept:
            self._kept[prompt] = self._backbone.encode_tokens(self._backbone.tokenize([prompt]))
        self._kept.move_to_end(prompt)
        if len(self._kept) > KEPT_PROMPTS:
            self._kept.popitem(last=False)
        return self._kept[prompt]
