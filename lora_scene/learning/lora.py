"""The adapters of phase 2: PEFT LoRA on the attention layers (arXiv:2106.09685).

`lora.conv_rank` adds the convolutions of the residual blocks (LoCon, arXiv:2309.14859).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_scene.adapters.adapter import LoraModule
from lora_scene.backbones.backbone import Backbone
from lora_scene.backbones.loading import LIBRARIES
from lora_scene.errors import RecipeError
from lora_scene.recipe import Full, Lora, Recipe

ADAPTER_NAME = "scene"
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")
CONV_TARGETS = ("conv1", "conv2")


def add_lora(backbone: Backbone, settings: Lora) -> list[nn.Parameter]:
    """Put adapters on the base's layers, as the settings say; the new factors are float32.

    They start at zero effect: `up` is zero, `down` a draw from torch's global generator.

    Returns:
        The trainable parameters, in a fixed order.

    Raises:
        RecipeError: A target is no linear layer of the attention.
    """
    targets = unet_targets(backbone.unet, settings)
    convolutions = residual_convolutions(backbone.unet) if settings.conv_rank else []
    _inject(backbone.unet, settings, settings.rank, targets, convolutions)
    if settings.text_encoder_rank:
        for encoder in backbone.text_encoders:
            names = [
                name
                for name, _ in encoder.named_modules()
                if name.endswith(tuple(f"self_attn.{target}" for target in TEXT_TARGETS))
            ]
            _inject(encoder, settings, settings.text_encoder_rank, names)
    return list(lora_parameters(backbone))


def remove_lora(backbone: Backbone) -> None:
    """Take the adapters away again, leaving the base as it was."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for part in (backbone.unet, *backbone.text_encoders):
        for name, module in list(part.named_modules()):
            if isinstance(module, BaseTunerLayer):
                parent, _, leaf = name.rpartition(".")
                setattr(part.get_submodule(parent), leaf, module.get_base_layer())
        for leftover in ("peft_config", "_hf_peft_config_loaded"):
            vars(part).pop(leftover, None)


def unet_targets(unet: nn.Module, settings: Lora) -> list[str]:
    """Return the names of the attention's layers that get adapters, in the model's order.

    Raises:
        RecipeError: A target is no linear layer of the attention.
    """
    kinds = ("attn1", "attn2") if settings.attention == "all" else ("attn2",)
    found: dict[str, list[str]] = {target: [] for target in settings.targets}
    names = []
    for name, module in unet.named_modules():
        for target, own in found.items():
            is_named = name.endswith(tuple(f".{kind}.{target}" for kind in kinds))
            if is_named and hasattr(module, "in_features"):
                own.append(name)
                names.append(name)
    missing = [target for target, own in found.items() if not own]
    if missing or not names:
        raise RecipeError(
            "not a linear layer of the UNet's attention",
            where="lora.targets",
            expected="to_q, to_k, to_v, to_out.0",
            got=", ".join(missing) or "none",
        )
    return names


def residual_convolutions(unet: nn.Module) -> list[str]:
    """Return the names of the residual blocks' 3x3 convolutions, in the model's order."""
    names = (name for name, _ in unet.named_modules())
    return [name for name in names if ".resnets." in name and name.endswith(CONV_TARGETS)]


def lora_parameters(backbone: Backbone) -> Iterator[nn.Parameter]:
    """Yield the adapters' parameters, UNet first, in the models' order."""
    for part in (backbone.unet, *backbone.text_encoders):
        for name, parameter in part.named_parameters():
            if ".lora_" in name:
                yield parameter


def full_parameters(backbone: Backbone, settings: Full) -> list[nn.Parameter]:
    """Return the model's own weights that `trains = "full"` trains, cast to float32.

    Position embeddings are among them, as in the published code; the vocabulary matrix never is:
    only handles' rows may change.
    """
    if settings.unet == "all":
        chosen = list(backbone.unet.parameters())
        backbone.unet.float()
    else:
        cross_kv = (".attn2.to_k.weight", ".attn2.to_v.weight")
        chosen = [p for name, p in backbone.unet.named_parameters() if name.endswith(cross_kv)]
    if settings.text_encoder:
        for encoder in backbone.text_encoders:
            chosen += [p for name, p in encoder.named_parameters() if "token_embedding" not in name]
    for parameter in chosen:
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    return chosen


def learned_modules(backbone: Backbone, adapter: str = ADAPTER_NAME) -> dict[str, LoraModule]:
    """Return an adapter's factors by `<part>.<module path>`, as `Adapter.modules` wants them."""
    from peft.tuners.lora import LoraLayer

    modules = {}
    encoders = zip(backbone.family.text_encoders, backbone.text_encoders, strict=True)
    parts = [("unet", backbone.unet), *encoders]
    for part, model in parts:
        for name, layer in model.named_modules():
            if not isinstance(layer, LoraLayer) or adapter not in layer.lora_A:
                continue
            if part != "unet" and not name.startswith("text_model."):
                name = f"text_model.{name}"
            modules[f"{part}.{name}"] = LoraModule(
                down=_on_cpu(layer.lora_A[adapter].weight),
                up=_on_cpu(layer.lora_B[adapter].weight),
                alpha=float(layer.lora_alpha[adapter]),
            )
    return modules


@contextlib.contextmanager
def without_lora(backbone: Backbone) -> Iterator[None]:
    """Let the untouched base predict, adapters and all kept."""
    layers = list(_lora_layers((backbone.unet, *backbone.text_encoders)))
    trained = [(factor, factor.requires_grad) for factor in lora_parameters(backbone)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for factor, is_trained in trained:  # PEFT would train them all from here on
            factor.requires_grad_(is_trained)


class Factor(nn.Linear):
    """A float32 factor that multiplies in its input's dtype.

    PEFT would cast the input up and keep a float32 copy of it for each adapter; autocast would
    also spread float32 to the base's normalisations and all that they keep for the backward pass.

    Args:
        factor: PEFT's, whose weight (out, in) is taken over.
    """

    def __init__(self, factor: nn.Linear) -> None:
        super().__init__(factor.in_features, factor.out_features, bias=False, device="meta")
        self.weight = factor.weight

    def forward(self, input: Tensor) -> Tensor:
        """Return `input` (..., in) times the factor, (..., out)."""
        return F.linear(input, self.weight.to(input.dtype))


class ConvFactor(nn.Conv2d):
    """A float32 factor of a convolution's update that convolves in its input's dtype.

    Args:
        factor: PEFT's, whose weight (out, in, k, k) is taken over.
    """

    def __init__(self, factor: nn.Conv2d) -> None:
        super().__init__(
            factor.in_channels,
            factor.out_channels,
            factor.kernel_size,  # type: ignore[arg-type]
            stride=factor.stride,  # type: ignore[arg-type]
            padding=factor.padding,  # type: ignore[arg-type]
            bias=False,
            device="meta",
        )
        self.weight = factor.weight

    def forward(self, input: Tensor) -> Tensor:
        """Return `input` (b, in, h, w) convolved with the factor, (b, out, h, w)."""
        weight = self.weight.to(input.dtype)
        return F.conv2d(input, weight, stride=self.stride, padding=self.padding)


def _inject(
    model: Any, settings: Lora, rank: int, targets: list[str], convolutions: Sequence[str] = ()
) -> None:
    from peft import LoraConfig

    apart = CONV_TARGETS if convolutions else ()  # PEFT matches the ends of names
    config = LoraConfig(
        r=rank,
        rank_pattern=dict.fromkeys(apart, settings.conv_rank),
        lora_alpha=settings.alpha_of(rank),
        alpha_pattern=dict.fromkeys(apart, settings.alpha_of(settings.conv_rank)),
        lora_dropout=settings.dropout,
        target_modules=[*targets, *convolutions],
        init_lora_weights=True,
    )
    with LIBRARIES:
        model.add_adapter(config, adapter_name=ADAPTER_NAME)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
    for layer in _lora_layers((model,)):
        layer.cast_input_dtype_enabled = False
        for factors in (layer.lora_A, layer.lora_B):
            factor = factors[ADAPTER_NAME]
            kind = ConvFactor if isinstance(factor, nn.Conv2d) else Factor
            factors[ADAPTER_NAME] = kind(factor)


def _lora_layers(models: Iterable[nn.Module]) -> Iterator[Any]:
    from peft.tuners.lora import LoraLayer

    for model in models:
        for layer in model.modules():
            if isinstance(layer, LoraLayer):
                yield layer


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32).clone()


def trained_weights(backbone: Backbone, recipe: Recipe, number: int) -> list[nn.Parameter]:
    """Put in place what the phases up to `number` train beside the rows; return it.

    Adapters begin at draws of the recipe's seed, from torch's global generator.

    Raises:
        RecipeError: See `add_lora`.
    """
    kinds = {phase.trains for phase in recipe.phases[:number] if phase.steps}
    if "lora" in kinds:
        torch.manual_seed(recipe.run.seed)
        return add_lora(backbone, recipe.lora)
    return full_parameters(backbone, recipe.full) if "full" in kinds else []
