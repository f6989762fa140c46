"""One step of each phase on the meta device, where tensors have shapes and no numbers.

The package's own code runs there; a `Ledger` follows what is alive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lora_scene.backbones.architectures import Architecture, meta_backbone
from lora_scene.backbones.backbone import Backbone, Moments
from lora_scene.backbones.decoding import wide_enough
from lora_scene.backbones.storage import BLOCKS, StoredLinear, packed_bytes, store
from lora_scene.learning.attention import read_level
from lora_scene.learning.flat_weights import BLOCK, blocks
from lora_scene.learning.handle_table import HandleTable
from lora_scene.learning.latents import EncodedVariant
from lora_scene.learning.ledger import Ledger, kernels_of_gpus
from lora_scene.learning.objective import EncodingCache
from lora_scene.learning.phases import Trainer
from lora_scene.learning.prior import PriorSet, trains_text
from lora_scene.learning.step import Materials
from lora_scene.recipe import Optimizer, Phase, Recipe
from lora_scene.scenes.scene import Concept
from lora_scene.size import Size

# By an H100 under CUDA 13: what it took, and what lets SDXL's estimate meet its peak; the slack is
# assumed. `benchmarks.gpu_day` writes what another card takes.
CONTEXT = 720 * 10**6  # what CUDA itself takes of a card outside the allocator, bytes
SLACK = 0.06  # fragmentation and rounding, as a share of all that is not weights
WORKSPACE = 192 * 2**20  # cuBLAS and convolution workspaces, bytes
STATE_BYTES = {"adamw": 8, "schedulefree": 8, "prodigy": 16}  # for each trained number


@dataclass(frozen=True)
class PhaseEstimate:
    """The peak of one phase.

    Attributes:
        name: `encode`, `prior`, `colours`, `grounds`, `phase 1`, `phase 2` or `samples`; of a
            picture alone `draw` or `draw --at`.
        parts: Bytes by what they hold; they add up to the peak.
    """

    name: str
    parts: Mapping[str, int]

    @property
    def peak_bytes(self) -> int:
        """Return the sum of all parts."""
        return sum(self.parts.values())


class _PackedLinear(StoredLinear):
    """The size of a bitsandbytes layer, which cannot be made on the meta device."""

    def __init__(self, layer: nn.Linear, n_bytes: int) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.computes_in = layer.weight.dtype
        self.register_buffer("stored", torch.empty(n_bytes, dtype=torch.uint8, device="meta"))
        self.bias = layer.bias

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """Return a restored weight (out, in)."""
        stored: Tensor = self.stored  # type: ignore[assignment]
        return stored.new_empty((self.out_features, self.in_features), dtype=self.computes_in)


class Simulation:
    """A base on the meta device, and the steps that the real trainer runs on it.

    Args:
        architecture: The base's parts.
        recipe: Every setting.
        dtype: Of the frozen weights.
        n_concepts: Handles; every sample names them all.
        photos: The photos' sizes, of which the largest picture counts; none for a square.

    Attributes:
        size: Of the largest picture, pixels.

    Raises:
        BackboneError: The size does not fit the architecture.
        RecipeError: Nor does another setting.
    """

    def __init__(
        self,
        architecture: Architecture,
        recipe: Recipe,
        dtype: torch.dtype,
        *,
        n_concepts: int,
        photos: Sequence[Size] = (),
    ) -> None:
        self.backbone = meta_backbone(architecture, dtype=dtype, resolution=recipe.base.resolution)
        self._recipe = recipe
        self._store()
        if recipe.base.gradient_checkpointing:
            self.backbone.unet.enable_gradient_checkpointing()
        canvas = self.backbone.canvas(recipe.base.shape)
        sizes = [canvas.size_for(photo) for photo in photos or [Size(1, 1)]]
        self.size = max(sizes, key=lambda size: size.area)
        self._trainer = trainer_of(self.backbone, recipe, n_concepts, size=self.size)

    def encode(self) -> PhaseEstimate:
        """Encode one picture with nothing but the VAE on the device."""
        shape = (1, 3, *self.size.rows_columns)
        return self._picture("encode", lambda vae: vae.encode(_empty(vae, shape)))

    def colours(self) -> PhaseEstimate:
        """Decode one picture of a noun beside the base."""
        return self._decoding("colours", trained={})

    def samples(self) -> PhaseEstimate:
        """Decode one picture beside all that trains."""
        return self._decoding("samples", trained=self._trained(self._recipe.phase2))

    def _decoding(self, name: str, *, trained: Mapping[str, int]) -> PhaseEstimate:
        shape = self._latents(1)
        alone = self._picture(name, lambda vae: vae.decode(_empty(vae, shape)))
        return PhaseEstimate(name, {**self._residents(Ledger("meta")), **trained, **alone.parts})

    def drawing(self, name: str) -> PhaseEstimate:
        """Denoise one picture with guidance: a batch of two, without gradients."""
        ledger, backbone = Ledger("meta"), self.backbone
        parts = self._residents(ledger)
        held = ledger.live
        z_t = torch.empty(self._latents(2), device="meta")
        t = torch.zeros(2, dtype=torch.long, device="meta")
        with torch.no_grad(), kernels_of_gpus(), ledger:
            backbone.denoise(z_t, t, backbone.encode_tokens(backbone.tokenize(["", ""])))
        return PhaseEstimate(name, _with_slack({**parts, "activations": ledger.peak - held}))

    def train(self, number: int) -> PhaseEstimate:
        """Run one step of a phase, forward and backward; every sample names all handles."""
        phase, trainer = self._recipe.phases[number - 1], self._trainer
        with trainer.table.spliced(), torch.random.fork_rng(devices=[]):
            stepper = trainer.stepper(number)
            ledger = Ledger("meta")
            parts = self._residents(ledger)
            ledger.hold(trainer.parameters())
            held = ledger.live
            is_mixed = phase.trains == "full" and self.backbone.dtype != torch.float32
            dtype = self.backbone.dtype if is_mixed else None
            with stepper.attached(), kernels_of_gpus(dtype), ledger:
                stepper.gradients(0)
        gradients = _bytes(p.grad for p in trainer.parameters() if p.grad is not None)
        for parameter in trainer.parameters():
            parameter.grad = None
        activations = ledger.peak - held - gradients
        parts |= self._trained(phase) | {"gradients": gradients, "activations": activations}
        return PhaseEstimate(f"phase {number}", _with_slack(parts))

    def _latents(self, n: int) -> tuple[int, ...]:
        cells = self.size.cells(self.backbone.vae_factor)
        return (n, self.backbone.latent_channels, *cells.rows_columns)

    def _picture(self, name: str, work: Callable[[Any], Any]) -> PhaseEstimate:
        vae, ledger = self.backbone.vae, Ledger("meta")
        with wide_enough(vae):
            parts = {"VAE": ledger.hold(_tensors(vae))}
            with torch.no_grad(), kernels_of_gpus(), ledger:
                work(vae)
        activations = ledger.peak - parts["VAE"]
        return PhaseEstimate(name, _with_slack({**parts, "VAE activations": activations}))

    def _residents(self, ledger: Ledger) -> dict[str, int]:
        """Return the bytes of the frozen parts that stay on the device, and hold them."""
        trained = {id(p) for p in self._trainer.parameters()}
        unet = [t for t in _tensors(self.backbone.unet) if id(t) not in trained]
        encoders = [t for e in self.backbone.text_encoders for t in _tensors(e)]
        texts = [t for t in encoders if id(t) not in trained]
        return {"UNet": ledger.hold(unet), "text encoders": ledger.hold(texts)}

    def _trained(self, phase: Phase) -> dict[str, int]:
        """Return the bytes of what is trained, and of its optimizers' states."""
        rows, weights = list(self._trainer.table.tables), self._trainer.weights
        states = sum(8 * row.numel() for row in rows) if phase.rows_lr else 0
        if phase.trains != "rows":
            states += state_bytes(weights, self._recipe.optimizer)
        kept = {"rows": _bytes(rows), "trained weights": _bytes(weights)}
        return {**kept, "optimizer states": states}

    def _store(self) -> None:
        kind, unet = self._recipe.base.quantization, self.backbone.unet
        if kind == "none" or kind == "fp8":
            store(unet, kind, device="meta")
            return
        for name, layer in list(unet.named_modules()):
            if name.partition(".")[0] in BLOCKS and isinstance(layer, nn.Linear):
                parent, _, leaf = name.rpartition(".")
                packed = _PackedLinear(layer, packed_bytes(layer, kind))
                setattr(unet.get_submodule(parent), leaf, packed)


def trainer_of(
    backbone: Backbone, recipe: Recipe, n_concepts: int, *, size: Size | None = None
) -> Trainer:
    """Return a trainer that learns concepts without pictures: what a step costs asks no values.

    Args:
        backbone: A base with any numbers, or none.
        recipe: Every setting.
        n_concepts: Handles; every sample names them all.
        size: Of the pictures, pixels; None for a square of the base's resolution.
    """
    canvas = backbone.canvas(level=read_level(backbone, recipe))
    size = size or canvas.size_for(Size(1, 1))
    cells, map_cells = canvas.latents(size).rows_columns, canvas.maps(size).rows_columns
    concepts = [Concept(f"<thing{k}>", "bear") for k in range(n_concepts)]
    latent = torch.ones(backbone.latent_channels, *cells)
    variant = EncodedVariant(
        moments=Moments(latent, latent),
        masks=torch.ones(n_concepts, *cells),
        map_masks=torch.ones(n_concepts, *map_cells),
        present=tuple(range(n_concepts)),
        names_all=True,
        caption_suffix="",
        probability=1.0,
    )
    prior = None
    if recipe.has_prior:
        encodings = None if trains_text(recipe) else {"": EncodingCache(backbone).encode([""])}
        prior = PriorSet((latent,), ("",), encodings)
    return Trainer(
        backbone,
        HandleTable(
            backbone,
            concepts,
            n_vectors=recipe.handles.n_vectors,
            generator=torch.Generator().manual_seed(0),
        ),
        materials=Materials((variant,), prior, recipe, ""),
        folder=Path(),
        listener=lambda event: None,
    )


def state_bytes(weights: Sequence[Tensor], settings: Optimizer) -> int:
    """Return the bytes that an optimizer keeps beside the weights.

    Adafactor keeps a row and a column for each matrix; 8-bit ones a scale for each of the blocks
    that `flat_weights` fills.
    """
    total = 0
    for weight in weights:
        n = weight.numel()
        if settings.name == "adafactor":
            total += 4 * (sum(weight.shape[:2]) if weight.dim() > 1 else n)
        elif settings.name.endswith("8bit"):
            moments = 1 if settings.name == "lion8bit" else 2
            total += moments * (BLOCK + 4) * blocks(n)
        else:
            total += STATE_BYTES[settings.name] * n
    return total


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _with_slack(parts: Mapping[str, int]) -> dict[str, int]:
    """Add what the allocator and the kernels take beside the tensors, by assumption."""
    moving = sum(size for name, size in parts.items() if "activations" in name)
    return {**parts, "slack (assumed)": int(SLACK * moving) + WORKSPACE}


def _empty(model: Any, size: tuple[int, ...]) -> Tensor:
    return torch.empty(size, device="meta", dtype=model.dtype)
