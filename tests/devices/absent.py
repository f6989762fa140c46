"""A device that is not there: its tensors say that they lie on it, their numbers lie on the CPU.

Every operation is checked as a real device would check it (one device an operation, generators of
that device, nothing handed to numpy), then run on the CPU, and counted: kernels that would be
launched, bytes that would be copied to the device, and waits, where the host asks for a number.
It is torch's private backend under a name of its own, in Python alone, so branches on "cuda" are
not taken. It is blind to real kernels, to their choice and speed, and to memory.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "absent"
VIEWS = {
    *("view", "detach", "alias", "t", "transpose", "permute", "expand", "slice", "select"),
    *("unsqueeze", "squeeze", "as_strided", "_unsafe_view", "chunk", "split", "unbind"),
    *("lift_fresh", "reshape", "_reshape_alias", "split_with_sizes", "diagonal", "unfold"),
}
READS = {
    *("_local_scalar_dense", "equal", "nonzero", "masked_select", "bincount"),
    *("unique_consecutive", "unique_dim", "_unique2"),
}
TAKES_HOST_INDICES = {"index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_"}
TAKES_NO_HOST_NUMBERS = {"cat", "stack", "addmm", "mm", "bmm"}
# what CUDA's mixed precision computes in 16 bits and in 32, of what a UNet and CLIP are made of
IN_LOW = ("linear", "matmul", "addmm", "baddbmm", "bmm", "mm", "conv2d",
          "scaled_dot_product_attention")  # fmt: skip
IN_FULL = ("layer_norm", "group_norm", "softmax.int", "mse_loss", "pow.Tensor_Scalar", "exp",
           "sum.dim_IntList", "sum")  # fmt: skip


@dataclass
class Counts:
    """What the device was asked for, and by which line of the package.

    Attributes:
        kernels: Operations launched; views are none.
        uploads: Copies from the host.
        uploaded: Their bytes.
        waits: Times that the host waited for a number.
        downloaded: The bytes that it waited for.
        where: Kind and line to count, of uploads and waits.
        operations: Of torch's (overloads), that ran on it.
    """

    kernels: int = 0
    uploads: int = 0
    uploaded: int = 0
    waits: int = 0
    downloaded: int = 0
    where: Counter[str] = field(default_factory=Counter)
    operations: set[Any] = field(default_factory=set)

    def upload(self, tensor: torch.Tensor) -> None:
        """Count a copy from the host."""
        self.uploads += 1
        self.uploaded += tensor.numel() * tensor.element_size()
        self.where[f"upload {_line()}"] += 1

    def wait(self, tensor: torch.Tensor) -> None:
        """Count a wait for a tensor's numbers."""
        self.waits += 1
        self.downloaded += tensor.numel() * tensor.element_size()
        self.where[f"wait {_line()}"] += 1


class AbsentTensor(torch.Tensor):
    """A tensor on the device; `held` has its numbers, on the CPU."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor, requires_grad: bool = False) -> AbsentTensor:
        if held.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"{NAME} has no {held.dtype}, as MPS has none")
        made: AbsentTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=torch.device(NAME, 0),
            requires_grad=requires_grad,
        )
        made.held = held
        return made

    def __init__(self, held: torch.Tensor, requires_grad: bool = False) -> None:
        """Take what `__new__` has taken already."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def tolist(self) -> Any:
        """Wait for the numbers, as a device would."""
        _counts.wait(self)
        return self.held.detach().tolist()

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse, as a device would."""
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy; use Tensor.cpu()")

    __array__ = numpy

    def double(self) -> torch.Tensor:
        """Return a single number as it is: torch's gradient scaler asks so of all but MPS."""
        wider: torch.Tensor = self if self.numel() == 1 else super().double()
        return wider

    def untyped_storage(self) -> Any:
        """Return the host's storage: what tells shared weights apart."""
        return self.held.untyped_storage()

    def data_ptr(self) -> int:
        """Return where the host keeps the numbers."""
        return self.held.data_ptr()

    @property
    def data(self) -> AbsentTensor:
        """Return the tensor without its history."""
        detached: AbsentTensor = self.detach()
        return detached

    @data.setter
    def data(self, new: torch.Tensor) -> None:
        if not isinstance(new, AbsentTensor):
            raise RuntimeError(f"a tensor on {new.device} given to a parameter on {NAME}")
        torch.Tensor.data.__set__(self, new)
        self.held = new.held

    def __deepcopy__(self, memo: Any) -> torch.Tensor:
        copy = AbsentTensor(self.held.detach().clone())
        is_parameter = isinstance(self, torch.nn.Parameter)
        return torch.nn.Parameter(copy, self.requires_grad) if is_parameter else copy

    def __repr__(self, **kwargs: Any) -> str:
        return f"{NAME}({self.held!r})"


class _Mode(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and the guard is a tenth of a run

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not kwargs:
            return _run(func, args, {}) if _holds(args) else func(*args)
        is_ours = _is_ours(kwargs) or _holds(args) or _holds(kwargs.values())
        return _run(func, args, kwargs) if is_ours else func(*args, **kwargs)


@contextlib.contextmanager
def absent_device() -> Iterator[Counts]:
    """Make the device known, and count what it is asked for."""
    global _counts
    register()
    kept, _counts = _counts, Counts()
    only_cpu = torch._C._only_lift_cpu_tensors()
    compatible = torch._has_compatible_shallow_copy_type
    torch._C._set_only_lift_cpu_tensors(True)
    torch._has_compatible_shallow_copy_type = lambda a, b: (
        isinstance(a, AbsentTensor) == isinstance(b, AbsentTensor) and compatible(a, b)
    )
    try:
        with _Mode():
            yield _counts
    finally:
        torch._C._set_only_lift_cpu_tensors(only_cpu)
        torch._has_compatible_shallow_copy_type = compatible
        _counts = kept


_counts = Counts()


class _Module(backend_registration._DummyBackendModule):
    def get_rng_state(self, device: Any = 0) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = 0) -> None:
        """Leave the host's generator alone."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


def scaled(given: Callable[..., Any]) -> Callable[..., Any]:
    """Let a run's mixed precision scale float16's gradients here, as accelerate has cards do."""

    def mixed_precision(dtype: torch.dtype, device: torch.device) -> Any:
        accelerator = given(dtype, device)
        if device.type == NAME and dtype == torch.float16:
            accelerator.scaler = torch.amp.GradScaler(NAME)
        return accelerator

    return mixed_precision


def register() -> None:
    """Make the device known to torch, once."""
    import torch._dynamo  # it looks at what `absent_device` replaces

    if not hasattr(torch, NAME):
        backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
        _ELSE.fallback(torch.library.fallthrough_kernel, _MIXED_KEY.name)
        for names, is_low in ((IN_LOW, True), (IN_FULL, False)):
            for name in names:
                _MIXED.impl(name, _mixed(name, is_low=is_low), _MIXED_KEY.name)


_MIXED = torch.library.Library("aten", "IMPL")  # what is put there lasts as long as it does
_ELSE = torch.library.Library("_", "IMPL")
_MIXED_KEY = torch._C.DispatchKey.AutocastPrivateUse1


def _mixed(name: str, *, is_low: bool) -> Callable[..., Any]:
    """Return an operation as mixed precision runs it: its tensors cast, then without the mode."""
    packet, _, overload = name.partition(".")
    operation = getattr(getattr(torch.ops.aten, packet), overload or "default")

    def cast(value: Any) -> Any:
        if not (isinstance(value, torch.Tensor) and value.is_floating_point()):
            return value
        return value.to(torch.get_autocast_dtype(NAME) if is_low else torch.float32)

    def run(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(_MIXED_KEY)):
            given = [_mapped(cast, value) for value in args]
            return operation(*given, **{key: _mapped(cast, v) for key, v in kwargs.items()})

    return run


def _run(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Check, count, run on the CPU, and wrap what comes out."""
    everything = [*_leaves(args), *_leaves(kwargs.values())]
    leaves = [leaf for leaf in everything if isinstance(leaf, torch.Tensor)]
    is_here = any(isinstance(leaf, AbsentTensor) for leaf in leaves)
    stays = _is_ours(kwargs) or (is_here and kwargs.get("device") is None)
    packet = func._overloadpacket.__name__
    _check(func, everything, args, stays=stays)
    _count(packet, args, stays=stays, is_here=is_here)
    _counts.operations.add(func)
    if packet == "is_pinned":
        return False
    if packet in ("_pin_memory", "pin_memory"):
        return args[0]
    if packet == "_fused_sdp_choice":
        return 0  # plain mathematics: which kernel a card would take is not known here
    given = [_mapped(_inner, value) for value in args]
    named = {key: _mapped(_inner, value) for key, value in kwargs.items()}
    if named.get("pin_memory"):
        named["pin_memory"] = False
    found = func(*given, **named)
    if func._schema.is_mutable:
        return _mutated(func, args, kwargs, found)
    return _mapped(_outer, found) if stays else found


def _check(func: Any, everything: Sequence[Any], args: Any, *, stays: bool) -> None:
    """Raise what a device raises where tensors or generators of several devices meet."""
    packet = func._overloadpacket.__name__
    leaves = [leaf for leaf in everything if isinstance(leaf, torch.Tensor)]
    for generator in everything:
        if isinstance(generator, torch.Generator) and stays:  # a seed's noise is the host's, always
            raise RuntimeError(f"no generator on {NAME}: got {generator.device} in {func}")
    strangers = [leaf for leaf in leaves if not isinstance(leaf, AbsentTensor)]
    if packet in ("_to_copy", "copy_", "copy") or len(strangers) == len(leaves):
        return
    if packet in TAKES_HOST_INDICES and isinstance(args[0], AbsentTensor):
        indices = [index for index in _leaves([args[1]]) if isinstance(index, torch.Tensor)]
        for index in indices:
            if not isinstance(index, AbsentTensor):
                _counts.upload(index)
        strangers = [s for s in strangers if not any(s is index for index in indices)]
    if packet not in TAKES_NO_HOST_NUMBERS:
        strangers = [s for s in strangers if s.dim() or s.device.type == "meta"]
    if strangers:
        shapes = [tuple(leaf.shape) for leaf in leaves]
        raise RuntimeError(
            f"expected all tensors on one device, got {NAME}:0 and {strangers[0].device} "
            f"in {func} of {shapes}"
        )


def _count(packet: str, args: Sequence[Any], *, stays: bool, is_here: bool) -> None:
    if packet in READS and is_here:
        _counts.wait(args[0])
    elif packet in ("_to_copy", "copy_"):
        source = args[1] if packet == "copy_" else args[0]
        target = isinstance(args[0], AbsentTensor) if packet == "copy_" else stays
        if target and isinstance(source, AbsentTensor):
            _counts.kernels += 1
        elif target:
            _counts.upload(source)
        elif isinstance(source, AbsentTensor):
            _counts.wait(source)
    elif packet in TAKES_HOST_INDICES and is_here and _picks_by_truth(packet, args):
        _counts.wait(args[0])
    elif (is_here or stays) and packet not in VIEWS:
        _counts.kernels += 1


def _picks_by_truth(packet: str, args: Sequence[Any]) -> bool:
    """Tell whether an index is a mask, whose number of hits the host has to wait for.

    One number put in its cells is a `masked_fill` to torch, which counts none.
    """
    if "put" in packet and args[2].numel() == 1:
        return False
    leaves = [leaf for leaf in _leaves([args[1]]) if isinstance(leaf, AbsentTensor)]
    return any(leaf.dtype in (torch.bool, torch.uint8) for leaf in leaves)


def _mutated(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], found: Any) -> Any:
    """Return what the caller gave to be written into, in the order of the returns."""
    written = {}
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[position] if position < len(args) else kwargs.get(argument.name)
            written.update(dict.fromkeys(argument.alias_info.before_set, value))
    given = [
        next((written[name] for name in one.alias_info.before_set), None)
        for one in func._schema.returns
        if one.alias_info is not None and one.alias_info.is_write
    ]
    if len(given) != len(func._schema.returns):
        return _mapped(_outer, found)
    return given[0] if len(given) == 1 else tuple(given) or None


def _leaves(values: Iterable[Any]) -> Iterator[Any]:
    """Yield what an operation is given: its arguments are flat, but for lists."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from _leaves(value)
        else:
            yield value


def _holds(values: Iterable[Any]) -> bool:
    return any(isinstance(leaf, AbsentTensor) for leaf in _leaves(values))


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)([_mapped(change, each) for each in value])
    return change(value)


def _inner(value: Any) -> Any:
    if isinstance(value, AbsentTensor):
        return value.held
    if isinstance(value, torch.device) and value.type == NAME:
        return torch.device("cpu")
    return value


def _outer(value: Any) -> Any:
    is_new = isinstance(value, torch.Tensor) and not isinstance(value, AbsentTensor)
    return AbsentTensor(value) if is_new else value


def _is_ours(kwargs: Mapping[str, Any]) -> bool:
    device = kwargs.get("device")
    return device is not None and torch.device(device).type == NAME


def _line() -> str:
    """Return the innermost line of the package, or of whoever asked."""
    frame: FrameType | None = sys._getframe(2)
    first = None
    while frame is not None:
        name = frame.f_code.co_filename
        if "/lora_scene/" in name and not name.endswith("absent.py"):
            return f"{name.rpartition('/lora_scene/')[2]}:{frame.f_lineno}"
        if first is None and "/torch/" not in name and not name.endswith("absent.py"):
            first = f"{name.rpartition('site-packages/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return first or "?"
