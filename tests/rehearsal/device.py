"""A pretended CUDA device: tensors that say "cuda:0", compute on the CPU, and count what a GPU would feel.

    with PretendedCuda() as gpu:
        predictor.to("cuda:0")
        ...
    gpu.ledger.waits

Everything that asks torch for CUDA gets an answer within it: placing, factories, pinned memory, streams and events,
generators, autocast with CUDA's own rules. What CUDA refuses is refused (operands on two devices, numpy), and what it
does late is done late: a copy to the host that nobody has waited for yet holds rubbish, and a pinned buffer that is
written to before its copy has left is a `Race`. With compute=False nothing is computed (the tensors are torch's meta
tensors), and numbers that are read are made up: enough to count a network of any size.

Names relied on in torch: those that torch's own FakeTensor stands on.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

from tests.rehearsal.ledger import FROM_DEVICE, TO_DEVICE, Copy, Ledger, Wait, Work, place
from tests.rehearsal.runtime import Stream, machines, patches, the_machine
from tests.rehearsal.traffic import Traffic

HOST = torch.device("cpu")
ANY_SIZE = 1 << 50  # of the storage that torch believes in, so that it lets shapes change in place
aten = torch.ops.aten
NO_KERNEL = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "lift"}
# Their result, or its size, is known to the host only once the device has computed it.
WAITING = {
    "_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "_unique", "_unique2", "unique_dim",
    "unique_consecutive", "bincount", "_linalg_check_errors", "allclose",
}  # fmt: skip
# Take numbers of the host among their operands, as pointwise operators do.
WITH_NUMBERS = {"fill_", "fill", "masked_fill", "masked_fill_", "where", "index_put", "index_put_", "_index_put_impl_"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}


class DeviceTensor(Tensor):
    """A tensor of a pretended device; what it holds is `inner`."""

    inner: Tensor
    block: _Block
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor, device: torch.device) -> DeviceTensor:
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=device,
            storage_size=ANY_SIZE,
        )
        made.inner = inner
        made.block = the_machine().block(inner)
        return made

    @classmethod
    def __torch_dispatch__(cls, func: OpOverload, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return the_machine().run(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(
            f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host "
            f"memory first. (at {place()})"
        )

    def __array__(self, dtype: Any = None) -> Any:
        return self.numpy()

    def __repr__(self) -> str:
        return f"{repr(self.cpu())[:-1]}, device='{self.device}')"

    def __format__(self, how: str) -> str:
        return format(self.item(), how) if self.dim() == 0 else repr(self)

    def __reduce_ex__(self, protocol: int) -> Any:
        return _placed, (self.cpu(), str(self.device))

    def __deepcopy__(self, memo: dict) -> Tensor:
        copied = self.detach().clone()
        if getattr(self, "_is_param", False):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        return memo.setdefault(id(self), copied)

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def record_stream(self, stream: Any) -> None:
        """Memory is freed when nobody holds it."""


def _placed(tensor: Tensor, device: str) -> Tensor:
    return tensor.to(device)


class _Block:
    """Memory of the device, for as long as a tensor is in it."""

    __slots__ = ("bytes", "ledger", "__weakref__")

    def __init__(self, count: int, ledger: Ledger) -> None:
        self.bytes, self.ledger = count, ledger
        ledger.allocated(count)

    def __del__(self) -> None:
        self.ledger.allocated(-self.bytes)


class PretendedCuda(TorchDispatchMode):
    """The machine. Args: devices: how many. compute: False counts only. answer: made-up numbers for what is read."""

    def __init__(
        self, devices: int = 1, compute: bool = True, answer: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.devices = devices
        self.compute = compute
        self.answer = answer or (lambda tensor: torch.ones(tensor.shape, dtype=tensor.dtype))
        self.ledger = Ledger()
        self.index = 0  # of the current device
        self.streams: dict[torch.device, Stream] = {}
        self.default: dict[torch.device, Stream] = {}
        self._blocks: weakref.WeakValueDictionary[int, _Block] = weakref.WeakValueDictionary()
        self.traffic = Traffic()
        self._lock = threading.RLock()
        self._stack = ExitStack()
        self._depth = 0

    # ---- coming and going ------------------------------------------------------------------------------------

    def __enter__(self) -> PretendedCuda:
        if self._depth == 0:
            torch._C._ensureCUDADeviceGuardSet()
            machines.append(self)
            for patch in patches(self):
                self._stack.enter_context(patch)
        self._depth += 1
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._depth -= 1
        if self._depth == 0:
            self._stack.close()
            machines.remove(self)

    def device(self, device: Any) -> torch.device:
        """A device with its number."""
        if device is None or (isinstance(device, int) and device < 0):
            return torch.device("cuda", self.index)
        device = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
        index = self.index if device.index is None else device.index
        if index >= self.devices:
            raise RuntimeError("CUDA error: invalid device ordinal")
        return torch.device("cuda", index)

    @contextmanager
    def device_context(self, device: Any) -> Iterator[None]:
        before, self.index = self.index, self.device(device).index
        try:
            yield
        finally:
            self.index = before

    # ---- time ------------------------------------------------------------------------------------------------

    def current(self, device: Any = None) -> Stream:
        device = self.device(device)
        return self.streams.get(device) or self.default_stream(device)

    def default_stream(self, device: Any = None) -> Stream:
        device = self.device(device)
        if device not in self.default:
            self.default[device] = Stream(device)
        return self.default[device]

    def synchronize(self, device: Any = None) -> None:
        stream = self.current(device)
        self.wait_for(stream, stream.given, "device")

    def wait_for(self, stream: Stream, number: int, what: str, asked: bool = True) -> None:
        """The host goes on when a stream's work up to `number` is complete; no wait where it knows that already."""
        with self._lock:
            if number > stream.done or not asked:
                self.ledger.waits.append(Wait(what, place(), asked))
            self._complete(stream, number)

    def _complete(self, stream: Stream, number: int) -> None:
        if number <= stream.done:
            return
        stream.done = number
        for start, other, until in [each for each in stream.after if each[0] <= number]:
            stream.after.remove((start, other, until))
            self._complete(other, until)
        self.traffic.completed(stream)

    # ---- memory ----------------------------------------------------------------------------------------------

    def block(self, inner: Tensor) -> _Block:
        storage = inner.untyped_storage()
        key = storage._cdata
        block = self._blocks.get(key)
        if block is None:
            block = self._blocks[key] = _Block(storage.nbytes(), self.ledger)
        return block

    def _pinned_copy(self, tensor: Tensor) -> Tensor:
        if isinstance(tensor, DeviceTensor):
            raise RuntimeError(f"cannot pin a tensor of {tensor.device}; only those of the CPU can be (at {place()})")
        return tensor if self.traffic.is_pinned(tensor) else self.traffic.pin(tensor.clone())

    # ---- operators -------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return self.run(func, args, kwargs or {})

    def run(self, func: OpOverload, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Any operator, on whatever."""
        name = func.overloadpacket.__name__
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        on_device = [tensor for tensor in tensors if isinstance(tensor, DeviceTensor)]
        to_device = any(isinstance(leaf, torch.device) and leaf.type == "cuda" for leaf in leaves)
        if name == "is_pinned":
            return not on_device and self.traffic.is_pinned(tensors[0])
        if name in ("pin_memory", "_pin_memory"):
            return self._pinned_copy(tensors[0])
        if name == "_has_compatible_shallow_copy_type":
            return not on_device
        if not on_device and not to_device:
            if kwargs.get("pin_memory"):
                return self.traffic.pin(func(*args, **kwargs | {"pin_memory": False}))
            return func(*args, **kwargs)
        if name == "scaled_dot_product_attention":
            return self._compute(func, name, args, kwargs, on_device)
        if _is_composite(func):
            with self:  # torch's own kernel for all devices, not a decomposition in Python: that has other last bits
                return func._op_dk(torch._C.DispatchKey.CompositeImplicitAutograd, *args, **kwargs)
        if name == "_to_copy":
            return self._to_copy(args[0], **kwargs)
        if name == "copy_":
            return self._copy_(*args, **kwargs)
        if not on_device:
            return self._made(func, name, args, kwargs)
        return self._compute(func, name, args, kwargs, on_device)

    def _made(self, func: OpOverload, name: str, args: tuple, kwargs: dict[str, Any]) -> DeviceTensor:
        """A factory."""
        device = self.device(kwargs["device"])
        made = func(*args, **kwargs | {"device": self._inner_device(), "pin_memory": False})
        self._launched(name, (), made, device)
        return DeviceTensor(made, device)

    def _inner_device(self) -> torch.device:
        return HOST if self.compute else torch.device("meta")

    def _compute(
        self, func: OpOverload, name: str, args: tuple, kwargs: dict[str, Any], on_device: list[DeviceTensor]
    ) -> Any:
        device = self._one_device(func, name, args, kwargs)
        if name in INDEXING:
            args = self._with_indices(args, device)
        if name in WAITING or (name in INDEXING and _by_mask(name, args)):
            self._wait_here(name, device)
        if name == "repeat_interleave" and func is aten.repeat_interleave.Tensor and kwargs.get("output_size") is None:
            self._wait_here(name, device)
        outer = {id(tensor.inner): tensor for tensor in on_device}
        inside = tree_map_only(DeviceTensor, lambda tensor: tensor.inner, (args, kwargs))
        inner_args, inner_kwargs = inside
        if inner_kwargs.get("device") is not None:
            inner_kwargs["device"] = self._inner_device()
        if not self.compute:
            if name in ("_local_scalar_dense", "equal", "is_nonzero"):
                return self.answer(inner_args[0]).flatten()[0].item()
            inner_args, inner_kwargs = tree_map_only(
                Tensor,
                lambda tensor: tensor.to("meta") if tensor.device.type == "cpu" and tensor.dim() else tensor,
                inside,
            )
        if name == "scaled_dot_product_attention" and not self.compute:
            out = inner_args[0].new_empty(*inner_args[0].shape[:-1], inner_args[2].shape[-1])
        elif name in ("_softmax", "_log_softmax") and inner_args[2]:  # CUDA widens half precision on the way
            out = func(inner_args[0].float(), inner_args[1], False)
        else:
            out = func(*inner_args, **inner_kwargs)
        view = _is_view(func)
        if not view:
            flops = _flops(func, inner_args, inner_kwargs, out)
            self._launched(name, tree_leaves((inner_args, inner_kwargs)), out, device, flops)

        def outside(tensor: Tensor) -> Tensor:
            known = outer.get(id(tensor))
            return DeviceTensor(tensor, device) if known is None else _refitted(known)

        # A view of an ordinary tensor, a weight say, is one too, in inference mode as well.
        ordinary = view and torch.is_inference_mode_enabled() and not on_device[0].is_inference()
        with torch.inference_mode(False) if ordinary else nullcontext():
            return tree_map_only(Tensor, outside, out)

    def _one_device(self, func: OpOverload, name: str, args: tuple, kwargs: dict[str, Any]) -> torch.device:
        numbers = name in WITH_NUMBERS or torch.Tag.pointwise in func.tags
        operands = (args[0], *args[2:]) if name in INDEXING else args
        found = {}
        for tensor in tree_leaves((operands, kwargs)):
            if isinstance(tensor, Tensor) and (isinstance(tensor, DeviceTensor) or tensor.dim() or not numbers):
                found.setdefault(tensor.device, tensor)
        if len(found) > 1:
            shapes = " and ".join(f"{list(tensor.shape)} on {device}" for device, tensor in found.items())
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two: {shapes} "
                f"(in {name}, at {place()})"
            )
        return next(iter(found))

    def _with_indices(self, args: tuple, device: torch.device) -> tuple:
        """Indices of the host go over in a copy that waits."""
        with self:
            indices = [
                index.to(device) if isinstance(index, Tensor) and not isinstance(index, DeviceTensor) else index
                for index in args[1]
            ]
        return (args[0], indices, *args[2:])

    def _wait_here(self, what: str, device: torch.device) -> None:
        stream = self.current(device)
        self.wait_for(stream, stream.given, {"_local_scalar_dense": "item"}.get(what, what), asked=False)

    def _launched(self, name: str, read: Any, written: Any, device: torch.device, flops: int = 0) -> None:
        if name in NO_KERNEL:
            return
        tensors = [each for each in (*read, *tree_leaves(written)) if isinstance(each, Tensor)]
        low = any(each.dtype in (torch.bfloat16, torch.float16) for each in tensors)
        with self._lock:
            self.ledger.work.append(Work(name, flops, sum(map(_bytes, tensors)), low))
            self.current(device).given += 1

    # ---- copies ----------------------------------------------------------------------------------------------

    def _to_copy(
        self, tensor: Tensor, *, dtype: Any = None, device: Any = None, non_blocking: bool = False,
        memory_format: Any = None, **_: Any,
    ) -> Tensor:  # fmt: skip
        """`to`. As CUDA does it: converted where it comes from when it leaves the device, too."""
        target = tensor.device if device is None else torch.device(device)
        target = self.device(target) if target.type == "cuda" else target
        how = {"dtype": dtype or tensor.dtype, "memory_format": memory_format or torch.preserve_format}
        if not isinstance(tensor, DeviceTensor):
            sent = self._left(tensor, target, non_blocking)
            return DeviceTensor(aten._to_copy(sent, device=self._inner_device(), **how), target)
        if target.type == "cuda":
            out = aten._to_copy(tensor.inner, **how)
            self._launched("_to_copy", (tensor.inner,), out, target)
            return DeviceTensor(out, target)
        made = torch.empty_like(tensor.inner, device=HOST, **how)
        return self._arrive(self.traffic.pin(made) if non_blocking else made, tensor, non_blocking)

    def _copy_(self, target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        if not isinstance(target, DeviceTensor):
            return self._arrive(target, source, non_blocking and self.traffic.is_pinned(target))
        if isinstance(source, DeviceTensor):
            target.inner.copy_(source.inner)
            self._launched("copy_", (source.inner,), target.inner, target.device)
        else:
            sent = self._left(source, target.device, non_blocking) if source.dim() or non_blocking else source
            target.inner.copy_(sent if self.compute else sent.to("meta"))
            if not source.dim():
                self._launched("fill_", (), target.inner, target.device)
        return target

    def _left(self, tensor: Tensor, device: torch.device, non_blocking: bool) -> Tensor:
        """A tensor of the host on its way to the device."""
        with self._lock:
            stream = self.current(device)
            free = non_blocking and self.traffic.is_pinned(tensor)
            self.ledger.copies.append(Copy(TO_DEVICE, _bytes(tensor), not free, place()))
            self.traffic.read_by(stream, tensor)
            stream.given += 1
            if free:
                self.traffic.leaves(stream, tensor, place())
            elif not non_blocking:  # from pageable memory the driver may wait, and blocks the host while it copies
                self._waited(stream)
            return tensor

    def _arrive(self, target: Tensor, source: DeviceTensor, non_blocking: bool) -> Tensor:
        """A tensor of the device on its way into one of the host."""
        with self._lock:
            stream = self.current(source.device)
            self.ledger.copies.append(Copy(FROM_DEVICE, _bytes(source.inner), not non_blocking, place()))
            stream.given += 1
            inner = source.inner if self.compute else self.answer(source.inner)
            if non_blocking:
                self.traffic.arrives(stream, target, inner, place())
            else:
                self._waited(stream)
                target.copy_(inner)
            return target

    def _waited(self, stream: Stream) -> None:
        self.ledger.waits.append(Wait("blocking copy", place(), asked=False))
        self._complete(stream, stream.given)


@functools.cache
def _is_composite(func: OpOverload) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


@functools.cache
def _is_view(func: OpOverload) -> bool:
    aliases = [each.alias_info for each in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def _flops(func: OpOverload, args: tuple, kwargs: dict[str, Any], out: Any) -> int:
    """Of matrix products and convolutions; all else has few."""
    if func is aten.scaled_dot_product_attention.default:
        query, key, value = args[:3]
        return 2 * query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])
    count = flop_registry.get(func.overloadpacket)
    return 0 if count is None else count(*args, **kwargs, out_val=out)


def _by_mask(name: str, args: tuple) -> bool:
    """Whether an index is a mask whose places have to be found first; a mask that is filled with one value is not."""
    masks = [each for each in args[1] if isinstance(each, Tensor) and each.dtype in (torch.bool, torch.uint8)]
    if not masks:
        return False
    value = args[2] if name != "index" and len(args) > 2 else None
    return not (isinstance(value, Tensor) and value.numel() == 1 and len(args[1]) == 1)


def _refitted(tensor: DeviceTensor) -> DeviceTensor:
    """After an operator that changed it in place, its shape perhaps too."""
    inner = tensor.inner
    if (tensor.shape, tensor.stride()) != (inner.shape, inner.stride()):
        with torch._C._DisableTorchDispatch():
            Tensor.as_strided_(tensor, inner.shape, inner.stride(), inner.storage_offset())
    return tensor


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
