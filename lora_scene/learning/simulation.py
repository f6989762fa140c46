"""One step of each phase on the meta device, where tensors have shapes and no numbers.

The package's own code runs there; a `Ledger` follows what is alive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lora_scene.backbones.architectures import Architecture, meta_backbone
from lora_scene.backbones.backbone import TextEncoding
from lora_scene.backbones.storage import BLOCKS, StoredLinear, packed_bytes, store
from lora_scene.learning.attention import AttentionRecorder, Columns
from lora_scene.learning.handles import SplicedEmbedding
from lora_scene.learning.ledger import Ledger, kernels_of_gpus
from lora_scene.learning.lora import add_lora, full_parameters
from lora_scene.learning.losses import map_error, weighted_error
from lora_scene.recipe import Optimizer, Phase, Recipe

SLACK = 0.06  # assumed: fragmentation and rounding, as a share of all that is not weights
WORKSPACE = 64 * 2**20  # assumed: cuBLAS and convolution workspaces, bytes
STATE_BYTES = {"adamw": 8, "schedulefree": 8, "prodigy": 16}  # for each trained number
BLOCK = 256  # numbers that share one 4-byte scale in an 8-bit state


@dataclass(frozen=True)
class PhaseEstimate:
    """The peak of one phase.

    Attributes:
        name: `encode`, `prior`, `phase 1`, `phase 2` or `samples`.
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
    """A base on the meta device, and the steps that are run on it."""

    def __init__(
        self, architecture: Architecture, recipe: Recipe, dtype: torch.dtype, n_concepts: int
    ) -> None:
        self.backbone = meta_backbone(architecture, dtype=dtype, resolution=recipe.base.resolution)
        self._recipe = recipe
        self._n_concepts = n_concepts
        self._store()
        if recipe.base.gradient_checkpointing:
            self.backbone.unet.enable_gradient_checkpointing()
        self._rows = [self._splice(encoder) for encoder in self.backbone.text_encoders]
        self._weights: list[nn.Parameter] = []

    def encode(self) -> PhaseEstimate:
        """Encode one picture with nothing but the VAE on the device."""
        side = self.backbone.resolution
        return self._picture("encode", lambda vae: vae.encode(_empty(vae, (1, 3, side, side))))

    def samples(self) -> PhaseEstimate:
        """Decode one picture beside all that trains."""
        backbone = self.backbone
        size = (1, backbone.latent_channels, backbone.latent_side, backbone.latent_side)
        alone = self._picture("samples", lambda vae: vae.decode(_empty(vae, size)))
        kept = {**self._residents(), **self._trained(self._recipe.phase2)}
        return PhaseEstimate("samples", {**kept, **alone.parts})

    def prior(self) -> PhaseEstimate:
        """Denoise one picture with guidance: a batch of two, without gradients."""
        ledger = Ledger()
        parts = self._residents(ledger)
        held = ledger.live
        with torch.no_grad(), kernels_of_gpus(), ledger:
            self._denoise(2, self._ids(2))
        return PhaseEstimate("prior", _with_slack({**parts, "activations": ledger.peak - held}))

    def train(self, name: str, phase: Phase) -> PhaseEstimate:
        """Run one step of a phase, forward and backward."""
        if phase.trains == "lora" and not self._weights:
            self._weights = add_lora(self.backbone, self._recipe.lora)
        if phase.trains == "full" and not self._weights:
            self._weights = full_parameters(self.backbone, self._recipe.full)
        ledger = Ledger()
        parts = self._residents(ledger)
        trained = self._trained(phase)
        ledger.hold([*self._rows, *self._weights])
        held = ledger.live
        is_mixed = phase.trains == "full" and self.backbone.dtype != torch.float32
        dtype = self.backbone.dtype if is_mixed else None
        with self.backbone.in_mode(is_training=True), kernels_of_gpus(dtype), ledger:
            self._step(phase)
        parameters = [*self._rows, *self._weights]
        gradients = sum(_bytes([p.grad]) for p in parameters if p.grad is not None)
        for parameter in parameters:
            parameter.grad = None
        parts |= trained | {"gradients": gradients, "activations": ledger.peak - held - gradients}
        return PhaseEstimate(name, _with_slack(parts))

    def _picture(self, name: str, work: Callable[[Any], Any]) -> PhaseEstimate:
        vae, ledger = self.backbone.vae, Ledger()
        kept = vae.dtype
        if vae.config.get("force_upcast", True) and kept == torch.float16:
            vae.to(torch.float32)
        parts = {"VAE": ledger.hold(_tensors(vae))}
        with torch.no_grad(), kernels_of_gpus(), ledger:
            work(vae)
        vae.to(kept)
        activations = ledger.peak - parts["VAE"]
        return PhaseEstimate(name, _with_slack({**parts, "VAE activations": activations}))

    def _residents(self, ledger: Ledger | None = None) -> dict[str, int]:
        """Return the bytes of the frozen parts that stay on the device, and hold them."""
        ledger = ledger or Ledger()
        trained = {id(p) for p in (*self._rows, *self._weights)}
        unet = [t for t in _tensors(self.backbone.unet) if id(t) not in trained]
        encoders = [t for e in self.backbone.text_encoders for t in _tensors(e)]
        texts = [t for t in encoders if id(t) not in trained]
        return {"UNet": ledger.hold(unet), "text encoders": ledger.hold(texts)}

    def _trained(self, phase: Phase) -> dict[str, int]:
        """Return the bytes of what is trained, and of its optimizers' states."""
        weights = self._weights if phase.trains != "rows" else []
        rows = self._rows if phase.rows_lr else []
        settings = self._recipe.optimizer
        return {
            "rows": _bytes(self._rows),
            "trained weights": _bytes(self._weights),
            "optimizer states": sum(8 * row.numel() for row in rows)
            + state_bytes(weights, settings),
        }

    def _step(self, phase: Phase) -> None:
        """Run forward and backward on a batch in which every sample names all handles."""
        if not (phase.attention_weight or phase.pairwise_weight):
            torch.autograd.backward(self._loss())
            return
        backbone, b = self.backbone, self._recipe.run.batch_size
        side = self._recipe.attention_loss.map_side
        recorder = AttentionRecorder(backbone.unet, latent_side=backbone.latent_side, side=side)
        n_tokens = self._ids(1)[0].shape[1]
        spans = [[[k % n_tokens] for k in range(self._n_concepts)]] * b
        with recorder.attached():
            with recorder.recording(Columns.of(spans, n_tokens)):
                loss = self._loss()
            for maps in recorder.maps():
                loss = loss + map_error(maps, torch.empty_like(maps)).sum()
            torch.autograd.backward(loss)

    def _loss(self) -> Tensor:
        b = self._recipe.run.batch_size
        prediction = self._denoise(2 * b if self._recipe.prior.weight else b, self._ids(b))
        target = torch.empty_like(prediction, dtype=torch.float32)
        return weighted_error(prediction, target, torch.empty_like(target[:, :1])).mean()

    def _denoise(self, n: int, ids: tuple[Tensor, ...]) -> Tensor:
        """Predict for `n` latents; prompts beyond `ids` are encoded already."""
        backbone = self.backbone
        text = backbone.encode_tokens(ids)
        if n > len(ids[0]):
            text = text.append(_more(text, n - len(ids[0])))
        side = backbone.latent_side
        z_t = torch.empty(n, backbone.latent_channels, side, side, device="meta")
        return backbone.denoise(z_t, torch.zeros(n, dtype=torch.long, device="meta"), text)

    def _ids(self, n: int) -> tuple[Tensor, ...]:
        lengths = [e.config.max_position_embeddings for e in self.backbone.text_encoders]
        return tuple(torch.zeros(n, length, dtype=torch.long) for length in lengths)

    def _splice(self, encoder: Any) -> nn.Parameter:
        lookup = encoder.get_input_embeddings()
        n_rows = self._n_concepts * self._recipe.handles.n_vectors
        rows = nn.Parameter(torch.empty(n_rows, lookup.embedding_dim, device="meta"))
        encoder.set_input_embeddings(SplicedEmbedding(lookup, rows, lookup.num_embeddings))
        return rows

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


def state_bytes(weights: Sequence[Tensor], settings: Optimizer) -> int:
    """Return the bytes that an optimizer keeps beside the weights.

    Adafactor keeps a row and a column for each matrix; 8-bit optimizers keep 32-bit state for
    tensors below `min_8bit_size`.
    """
    total = 0
    for weight in weights:
        n = weight.numel()
        if settings.name == "adafactor":
            total += 4 * (sum(weight.shape[:2]) if weight.dim() > 1 else n)
        elif settings.name.endswith("8bit"):
            moments = 1 if settings.name == "lion8bit" else 2
            is_small = n < settings.min_8bit_size
            total += moments * (4 * n if is_small else n + 4 * -(-n // BLOCK))
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


def _more(text: TextEncoding, n: int) -> TextEncoding:
    """Return `n` encodings shaped like the given ones, without a graph."""
    pooled = None if text.pooled is None else text.pooled.new_empty(n, text.pooled.shape[1])
    return TextEncoding(text.states.new_empty(n, *text.states.shape[1:]), pooled)


def _empty(model: Any, size: tuple[int, ...]) -> Tensor:
    return torch.empty(size, device="meta", dtype=model.dtype)
