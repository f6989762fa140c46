"""Frozen UNet weights in few bits: `nf4` and `int8` by bitsandbytes, `fp8` by layers of our own.

Layerwise casting as diffusers does it swaps a layer's weight around the forward pass alone: the
backward pass, and the repetition under gradient checkpointing, then find another dtype. Here the
restored weight lives only inside the product that needs it, and autograd keeps the stored one.
diffusers' own way to bitsandbytes insists on a GPU; its layers do not, so they are put in place
one by one.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from lora_scene.errors import BackboneError
from lora_scene.extras import optional

Quantization = Literal["none", "nf4", "int8", "fp8"]

STORED = torch.float8_e4m3fn
LARGEST = torch.finfo(STORED).max
BLOCKS = ("down_blocks", "mid_block", "up_blocks")  # what is outside them is small and sensitive


def store(unet: nn.Module, quantization: Quantization, *, device: str | torch.device) -> None:
    """Replace the layers of a frozen UNet's blocks by low-bit ones on `device`, in place.

    Only one layer at a time is on the device in full. `nf4` and `int8` store linear layers,
    `fp8` convolutions too.

    Args:
        unet: Loaded, in the dtype that it shall compute in, without adapters.
        quantization: The kind of storage; `none` does nothing.
        device: Where the weights are quantised and stay.

    Raises:
        BackboneError: bitsandbytes is needed and does not load.
    """
    if quantization == "none":
        return
    unet.requires_grad_(False)
    kinds = nn.Linear | nn.Conv2d if quantization == "fp8" else nn.Linear
    for name, layer in list(unet.named_modules()):
        if name.partition(".")[0] in BLOCKS and isinstance(layer, kinds):
            parent, _, leaf = name.rpartition(".")
            setattr(unet.get_submodule(parent), leaf, _stored(layer, quantization).to(device))
    if quantization != "fp8":
        flag = "is_loaded_in_4bit" if quantization == "nf4" else "is_loaded_in_8bit"
        setattr(unet, flag, True)  # PEFT looks here for the layers it has to expect


def check_storage(quantization: Quantization, device: str) -> None:
    """Send a gradient through one small layer, before a whole base is read for it.

    Raises:
        BackboneError: The device, or bitsandbytes on it, does not do it.
    """
    if quantization == "none":
        return
    try:
        model = nn.ModuleDict({"mid_block": nn.Linear(64, 64)}).to(device)
        store(model, quantization, device=device)
        given = torch.ones(2, 64, device=device, requires_grad=True)
        model["mid_block"](given).sum().backward()
        problem = None if given.grad is not None and given.grad.any() else "no gradient"
    except (ImportError, OSError, RuntimeError, TypeError, AttributeError, ValueError) as error:
        problem = str(error).strip().partition("\n")[0]
    if problem:
        raise BackboneError(
            f"{device} cannot compute with {quantization} weights",
            where=f"base.quantization={quantization}",
            got=problem,
            hint="take base.quantization=none, with base.gradient_checkpointing=true for memory",
        )


def packed_bytes(layer: nn.Linear, quantization: Literal["nf4", "int8"]) -> int:
    """Return the bytes that bitsandbytes stores a weight in.

    nf4 has 4 bits per weight, and for 64 of them a scale of 8 bits, for 256 scales one of 32 bits;
    int8 has 8 bits per weight and a scale of 32 bits per row.
    """
    n = layer.in_features * layer.out_features
    if quantization == "nf4":
        return n // 2 + n // 64 + n // 4096
    return n + 4 * layer.out_features


class StoredLinear(nn.Linear):
    """A frozen linear layer whose weight is float8 with a scale for each output.

    It computes in the dtype of the layer that it stores.
    """

    def __init__(self, layer: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        _shrink(self, layer)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """Return the weight (out, in), restored."""
        return _restored(self)

    def forward(self, input: Tensor) -> Tensor:
        """Return `input` (..., in) times the restored weight, (..., out)."""
        product: Tensor = _LinearProduct.apply(input, self)  # type: ignore[no-untyped-call]
        return product


class StoredConv2d(nn.Conv2d):
    """A frozen convolution whose kernel is float8 with a scale for each output channel."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Return a plain convolution to PEFT, which makes factors by their layer's class."""
        return nn.Conv2d(*args, **kwargs) if len(args) > 1 else super().__new__(cls)

    def __init__(self, layer: nn.Conv2d) -> None:
        nn.Module.__init__(self)
        sizes = ("in_channels", "out_channels", "kernel_size", "padding_mode")
        for name in (*sizes, "stride", "padding", "dilation", "groups"):
            setattr(self, name, getattr(layer, name))
        _shrink(self, layer)

    @property
    def geometry(self) -> tuple[Any, ...]:
        """Return stride, padding, dilation and groups, as `conv2d` takes them."""
        return self.stride, self.padding, self.dilation, self.groups

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """Return the kernel (out, in / groups, kh, kw), restored."""
        return _restored(self)

    def forward(self, input: Tensor) -> Tensor:
        """Return `input` (b, in, h, w) convolved with the restored kernel."""
        product: Tensor = _ConvProduct.apply(input, self)  # type: ignore[no-untyped-call]
        return product


def _stored(layer: nn.Linear | nn.Conv2d, quantization: Quantization) -> nn.Module:
    if isinstance(layer, nn.Conv2d):
        return StoredConv2d(layer)
    return StoredLinear(layer) if quantization == "fp8" else _unquantised(layer, quantization)


def _unquantised(layer: nn.Linear, quantization: Quantization) -> nn.Module:
    """Return bitsandbytes' layer with this weight, which it quantises when it is moved."""
    bnb: Any = optional(
        "bitsandbytes.nn",
        error=BackboneError,
        where=f"base.quantization={quantization}",
        instead="base.quantization=fp8, which needs no other library",
    )
    weight = layer.weight.detach().cpu()
    sizes, has_bias = (layer.in_features, layer.out_features), layer.bias is not None
    made: nn.Module
    if quantization == "nf4":
        made = bnb.Linear4bit(*sizes, has_bias, weight.dtype, quant_type="nf4", device="meta")
        made.weight = bnb.Params4bit(weight, requires_grad=False, quant_type="nf4", module=made)
        # the packed kernel of some CPUs drops gradients, and knows outputs in multiples of 32 alone
        vars(made)["support_avx512bf16_for_cpu"] = False
    else:
        made = _int8_layer()(*sizes, has_bias, has_fp16_weights=False, device="meta")
        made.weight = bnb.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    made.bias = layer.bias
    return made


@functools.cache
def _int8_layer() -> type[nn.Module]:
    """Return bitsandbytes' int8 layer, but one that keeps no input for the backward pass.

    bitsandbytes keeps it where gradient checkpointing cannot see it, and so cannot free it.
    """
    from bitsandbytes import nn as bnb

    logging.getLogger("bitsandbytes.autograd._functions").addFilter(_told_once())

    class FrozenLinear8bit(bnb.Linear8bitLt):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            product: Tensor = _Int8Product.apply(x, self, super().forward)  # type: ignore[no-untyped-call]
            return product

    return FrozenLinear8bit


def _told_once() -> Callable[[logging.LogRecord], bool]:
    """Return a filter of log records: bitsandbytes tells in every product what it casts."""
    told: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if message in told:
            return False
        told.add(message)
        return True

    return is_new


def _shrink(made: Any, layer: nn.Linear | nn.Conv2d) -> None:
    """Give `made` the layer's weight as bytes: `Module.to(dtype)` leaves those alone."""
    weight = layer.weight.detach()
    peak = weight.float().flatten(1).abs().amax(dim=1).clamp_min(1e-12)
    scale = peak / LARGEST
    shrunk = weight.float() / scale.view(-1, *[1] * (weight.dim() - 1))
    made.computes_in = weight.dtype
    made.register_buffer("stored", shrunk.to(STORED).view(torch.uint8))
    made.register_buffer("scale", scale)
    made.bias = layer.bias


def _restored(layer: Any) -> Tensor:
    scale: Tensor = layer.scale  # in float32: a small row's would be nothing in float16
    weight: Tensor = layer.stored.view(STORED).to(layer.computes_in)
    return weight.mul_(scale.view(-1, *[1] * (weight.dim() - 1)))


class _LinearProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: StoredLinear) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.weight, layer.bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None]:
        return grads[0] @ ctx.layer.weight, None


class _Int8Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Any, multiply: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.state = layer.state
        return multiply(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None]:
        (grad,), state = grads, ctx.state
        weight = state.CB.to(grad.dtype).mul_((state.SCB / 127)[:, None])
        return grad @ weight, None, None


class _ConvProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: StoredConv2d) -> Tensor:
        ctx.layer, ctx.size = layer, x.shape
        stride, padding, dilation, groups = layer.geometry
        return F.conv2d(x, layer.weight, layer.bias, stride, padding, dilation, groups)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None]:
        kernel, geometry = ctx.layer.weight, ctx.layer.geometry
        grad: Tensor = conv2d_input(ctx.size, kernel, grads[0], *geometry)  # type: ignore[no-untyped-call]
        return grad, None
