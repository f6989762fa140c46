"""The settings: one frozen dataclass a section of a recipe; more in `shown`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lora_scene.forms import between


@dataclass(frozen=True)
class Base:
    """The base model.

    Attributes:
        model: Hub id, diffusers folder, single `.safetensors` file, or `mini`.
        config: For a single file: hub id or folder of a base of the same family, for tokenizer
            and configurations; empty takes the family's usual hub id.
        resolution: Training size in pixels; 0 takes the size that the model was made for.
        shape: `photo` trains each photo in its own aspect, within 1:2.4, at the area of
            `resolution` squared; `square` cuts a square out of it.
        family: `sd1`, `sd2` or `sdxl`, which the recipe is made for; empty suits any.
        force: Whether to train a base that does not suit: of another family, made for a size more
            than twice off, or distilled to few steps.
        dtype: Storage of the frozen weights; `auto` takes bf16 or fp16 on a GPU, fp32 elsewhere.
        quantization: Low-bit storage of the frozen UNet: `nf4` and `int8` by bitsandbytes, `fp8`
            by layerwise casting.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, slower.
        compile: Fuse residual blocks and feed-forward layers by torch.compile: minutes at the
            start of each phase for faster steps on a GPU; on a CPU it never pays.
    """

    model: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    config: str = ""
    resolution: int = between(0, 0, 2048)
    shape: Literal["photo", "square"] = "square"
    family: Literal["", "sd1", "sd2", "sdxl"] = ""
    force: bool = False
    dtype: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    quantization: Literal["none", "nf4", "int8", "fp8"] = "none"
    gradient_checkpointing: bool = False
    compile: bool = False


@dataclass(frozen=True)
class Handles:
    """The handles' embedding rows and their place in prompts.

    Attributes:
        init: `noun` starts from the class noun's pieces, `random` from the vocabulary's
            mean and deviation.
        n_vectors: Rows per handle.
        norm: `vocabulary` keeps each row at the norm it started with (arXiv:2512.13672); `free`
            lets it grow.
        with_nouns: Whether the class noun follows the handle: `a photo of <bear> teddy bear`.
        templates: Prompt templates, each with one `{}`; a step draws one.
    """

    init: Literal["noun", "random"] = "noun"
    n_vectors: int = between(1, 1, 16)
    norm: Literal["free", "vocabulary"] = "free"
    with_nouns: bool = False
    templates: tuple[str, ...] = ("a photo of {}",)


@dataclass(frozen=True)
class Lora:
    """The adapters of phase 2 (LoRA, arXiv:2106.09685).

    Attributes:
        rank: r, of the adapters on the UNet's attention.
        alpha: LoRA's alpha at `rank`; 0 takes the rank, so that the scale is 1. Adapters of another
            rank have the same scale, alpha / rank.
        dropout: Probability of dropping an input of the down projection.
        targets: Linear layers of each attention.
        attention: `all`, or only `cross`-attention.
        conv_rank: Rank of adapters on the 3x3 convolutions of the UNet's residual blocks (LoCon,
            arXiv:2309.14859); 0 leaves them frozen.
        text_encoder_rank: Rank of adapters on the text encoders' attention; 0 leaves them frozen.
    """

    rank: int = between(16, 1, 1024)
    alpha: float = between(0.0, 0.0)
    dropout: float = between(0.0, 0.0, 0.95)
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    attention: Literal["all", "cross"] = "all"
    conv_rank: int = between(0, 0, 1024)
    text_encoder_rank: int = between(0, 0, 1024)

    def alpha_of(self, rank: int) -> float:
        """Return the alpha of adapters of a rank, by which all have one scale."""
        return self.alpha * (rank / self.rank) if self.alpha else rank


@dataclass(frozen=True)
class Full:
    """What a phase with `trains = "full"` trains of the model itself.

    Attributes:
        unet: `all` of it, or the key and value projections of cross-attention (`cross_kv`, as
            Custom Diffusion does, arXiv:2212.04488).
        text_encoder: Whether the text encoders are trained too.
    """

    unet: Literal["all", "cross_kv"] = "all"
    text_encoder: bool = True


@dataclass(frozen=True)
class MaskedLoss:
    """The masked diffusion loss (Break-A-Scene, eq. 1).

    Attributes:
        enabled: Whether the loss is masked at all (off is an ablation).
        normalize: `none` averages over all cells as the paper does, `area` over the weights.
        resize: How masks come to the grids of latents and maps: by the `area` that they cover of
            a cell, or by its `nearest` pixel as published, where thin things may be lost.
        outside_weight: Weight of the cells that belong to no concept; of all beside the named ones
            where the base is asked and nothing stands on grounds.
        outside_target: What these cells are held to: the photo's (`data`), or what the untouched
            base predicts for the same prompt with nouns (`base`).
    """

    enabled: bool = True
    normalize: Literal["none", "area"] = "none"
    resize: Literal["area", "nearest"] = "area"
    outside_weight: float = between(0.0, 0.0, 1.0)
    outside_target: Literal["data", "base"] = "data"

    @property
    def asks_base(self) -> bool:
        """Tell whether a step needs the untouched base's prediction."""
        return self.enabled and self.outside_weight > 0 and self.outside_target == "base"


@dataclass(frozen=True)
class AttentionLoss:
    """The cross-attention loss (Break-A-Scene, eq. 2); its weights stand in each phase.

    Attributes:
        form: `mask` is the paper's: each map, divided by its maximum, against its mask.
            `across` is a cross-entropy of the maps normalised across the concepts against the
            masks (after PartCraft, arXiv:2407.04604).
        reduction: Over the drawn concepts: the paper's `sum`, or `mean`.
        map_side: Chooses the UNet's level by the side, in cells, that its maps have at a square of
            `base.resolution`; 0 takes the coarsest outside the mid block.
    """

    form: Literal["mask", "across"] = "mask"
    reduction: Literal["sum", "mean"] = "sum"
    map_side: int = between(0, 0, 512)


@dataclass(frozen=True)
class Phase:
    """One phase of training.

    Attributes:
        steps: Optimizer steps.
        trains: `rows` alone; rows and `lora`; or rows and the `full` weights.
        rows_lr: Learning rate of the rows.
        weights_lr: Learning rate of adapters or weights; under `prodigy` a factor, usually 1.
        schedule: `constant`, or `cosine` or `linear` down to `end_fraction`.
        end_fraction: Last learning rate over the first.
        sampling: `union` draws a random subset of the concepts each step, `single` one concept.
        attention_weight: Weight of the attention loss against the masks; the paper's is 0.01.
        pairwise_weight: Weight of the mean cosine similarity between different handles' maps.
        timesteps: `uniform`, or a linear preference for `noisy` or `clean` ones.
        draws: Steps after which the same pictures, prompts, timesteps and noise come again, from
            the first on; the untouched base (`outside_target`) answered then, and is not asked
            again. 0, or where the base is not asked at all: every step draws anew.
    """

    steps: int = between(400, 0, 1_000_000)
    trains: Literal["rows", "lora", "full"] = "rows"
    rows_lr: float = between(5e-4, 0.0, 1.0)
    weights_lr: float = between(0.0, 0.0, 1.0)
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    end_fraction: float = between(0.1, 0.0, 1.0)
    sampling: Literal["union", "single"] = "union"
    attention_weight: float = between(0.01, 0.0)
    pairwise_weight: float = between(0.0, 0.0)
    timesteps: Literal["uniform", "noisy", "clean"] = "uniform"
    draws: int = between(0, 0, 1_000_000)


@dataclass(frozen=True)
class Optimizer:
    """The optimizer of the adapters or weights; the rows, a few kilobytes, always have AdamW.

    Attributes:
        name: Its name.
        weight_decay: Of adapters or weights; the rows have none.
        max_grad_norm: Gradients are clipped to this norm, over what is trained alone.
    """

    name: Literal[
        "adamw8bit", "adamw", "pagedadamw8bit", "lion8bit", "adafactor", "prodigy", "schedulefree"
    ] = "adamw8bit"
    weight_decay: float = between(0.01, 0.0, 1.0)
    max_grad_norm: float = between(1.0, 0.0)


@dataclass(frozen=True)
class Run:
    """How a run goes.

    Attributes:
        batch_size: Samples a forward pass.
        accumulation: Forward passes an optimizer step.
        seed: Seed of everything that is drawn.
        checkpoint_every: Steps between checkpoints; 0 keeps none.
        sample_every: Steps between sample pictures; 0 draws none.
        sample_prompts: Prompts of the sample pictures; none takes each handle alone and all
            together.
        snapshots: Adapters that are kept along phase 2, at equal distances, the last step's among
            them; `lora-scene pick` chooses between them.
        watch: Looks a phase at held draws that are never trained on, and at each handle's attention
            over the photo, for run.html; 0 watches nothing, and writes no page.
        patience: Steps after which phase 2 ends if held loss and attention have not moved; 0 never
            ends it early.
    """

    batch_size: int = between(1, 1, 256)
    accumulation: int = between(1, 1, 256)
    seed: int = between(0, 0, 2**63 - 1)
    checkpoint_every: int = between(100, 0)
    sample_every: int = between(0, 0)
    sample_prompts: tuple[str, ...] = ()
    snapshots: int = between(0, 0, 1000)
    watch: int = between(6, 0, 1000)
    patience: int = between(0, 0)
