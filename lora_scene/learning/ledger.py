"""Every byte that a piece of PyTorch code has alive, counted as it runs.

A dispatch mode sees each tensor that an operation returns and hears when its storage is freed; so
the peak of a forward and a backward pass can be known on the meta device, where nothing is
allocated. What kernels take inside themselves (convolution workspaces, cuBLAS) it cannot see.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages that live while it is entered.

    Attributes:
        live: Bytes alive now.
        peak: The most that were alive at once.

    Args:
        device: The kind of device whose bytes count.
    """

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device = device
        self.live = 0
        self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def hold(self, tensors: Iterable[Tensor]) -> int:
        """Count tensors that exist already; return their bytes."""
        before = self.live
        for tensor in tensors:
            self._enter(tensor)
        return self.live - before

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count what it returns."""
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._enter(leaf)
        return out

    def _enter(self, tensor: Tensor) -> None:
        if tensor.device.type != self._device:
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def leave(_: Any) -> None:
            self.live -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, leave)
        self.live += size
        self.peak = max(self.peak, self.live)


IN_LOW = ("linear", "conv2d")
IN_FULL = ("layer_norm", "group_norm", "softmax")
_TURN = threading.RLock()  # of who replaces functions: else one could put back another's
_is_here: ContextVar[bool] = ContextVar("_is_here", default=False)


@contextlib.contextmanager
def kernels_of_gpus(autocast: torch.dtype | None = None) -> Iterator[None]:
    """Let the meta device keep what CUDA's kernels keep for the backward pass.

    On the meta device attention would spell out its probabilities; here it keeps queries, keys,
    values, mask, output and normaliser, as the memory-efficient kernels do. Functions are replaced,
    not dispatched by a mode: modes are off where checkpointing repeats a pass. In other threads
    they stay as they were; a second thread that comes here waits.

    Args:
        autocast: The dtype of mixed precision, or None without it.
    """
    replaced: dict[str, Callable[..., Any]] = {"scaled_dot_product_attention": _attention}
    if autocast is not None:
        cast = _Autocast(autocast)
        replaced["scaled_dot_product_attention"] = cast.low(_attention)
        replaced |= {name: cast.low(getattr(F, name)) for name in IN_LOW}
        replaced |= {name: cast.full(getattr(F, name)) for name in IN_FULL}
    with _TURN:
        kept = {name: getattr(F, name) for name in replaced}
        for name, function in replaced.items():
            setattr(F, name, _only_here(function, kept[name]))
        token = _is_here.set(True)
        try:
            yield
        finally:
            _is_here.reset(token)
            for name, function in kept.items():
                setattr(F, name, function)


def _only_here(function: Callable[..., Any], kept: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(kept)
    def run(*args: Any, **kwargs: Any) -> Any:
        return (function if _is_here.get() else kept)(*args, **kwargs)

    return run


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *_: Any, **__: Any
) -> Tensor:
    out: Tensor = _Attention.apply(query, key, value, attn_mask)  # type: ignore[no-untyped-call]
    return out


class _Attention(torch.autograd.Function):
    """The shapes and lifetimes of a memory-efficient attention kernel."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        normaliser = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, normaliser, mask)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*(torch.empty_like(saved) for saved in ctx.saved_tensors[:3]), None)


class _Autocast:
    """What CUDA's autocast casts, as far as these models use it; trained weights are cast once."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._weights: dict[int, Tensor] = {}

    def low(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its tensors cast to the low dtype."""
        return _casting(function, self._to_low)

    def full(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its tensors cast to float32."""
        return _casting(function, Tensor.float)

    def _to_low(self, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter) or not tensor.requires_grad:
            return tensor.to(self._dtype)
        return self._weights.setdefault(id(tensor), tensor.to(self._dtype))


def _casting(function: Callable[..., Any], cast: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def fitted(value: Any) -> Any:
        is_float = isinstance(value, Tensor) and value.is_floating_point()
        return cast(value) if is_float else value

    def run(*args: Any, **kwargs: Any) -> Any:
        args = tuple(fitted(arg) for arg in args)
        return function(*args, **{name: fitted(arg) for name, arg in kwargs.items()})

    return run
