"""Devices: the best there is, and tensors on their way to and from it, without waiting wherever that is safe."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

HOST = torch.device("cpu")
ALIGNED = 16  # bytes; every type may stand there
AMPERE = 8  # the first generation of NVIDIA's GPUs that computes in bfloat16; torch emulates it on older ones, slowly


def best_device() -> torch.device:
    """An accelerator when torch has a working one, else the CPU."""
    if not hasattr(torch, "accelerator"):  # torch 2.5
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is not None and torch.accelerator.is_available():
        return torch.device(accelerator.type)
    return HOST


def fast_bfloat16(device: torch.device) -> bool:
    """Whether a CUDA device computes in bfloat16 itself."""
    return bool(torch.version.hip) or torch.cuda.get_device_capability(device)[0] >= AMPERE


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on `device`; itself when it is there.

    To a CUDA device it goes from pinned memory, so the host does not wait for what the device has still to do. From
    one it comes without waiting too: it is complete for later work on the same device, and for the host after
    `settle`. Other devices (MPS) always wait: torch's asynchronous copies there may read memory that is freed already.
    """
    if tensor.device.type == device.type:
        return tensor.to(device)
    if device.type == "cuda" and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking="cuda" in (device.type, tensor.device.type))


def moved_once(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """`moved` for several, each different tensor once: what was one tensor stays one."""
    there = {key: moved(tensor, device) for key, tensor in {id(tensor): tensor for tensor in tensors}.items()}
    return [there[id(tensor)] for tensor in tensors]


def settle(device: torch.device) -> None:
    """Wait until everything that has been moved from `device` is there."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def moved_together(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """`moved` for several; to a CUDA device all that are not there go in one copy, from one pinned buffer.

    What comes back are parts of one tensor, which lives for as long as one of them.
    """
    away = {id(tensor): tensor for tensor in tensors if tensor.device.type != device.type and tensor.numel()}
    if device.type != "cuda" or len(away) < 2:
        return [moved(tensor, device) for tensor in tensors]
    parts = {key: range(0) for key in away}
    end = 0
    for key, tensor in away.items():
        start = -(-end // ALIGNED) * ALIGNED
        end = start + tensor.numel() * tensor.element_size()
        parts[key] = range(start, end)
    # torch keeps pinned memory for the next one who asks, once the device has read it.
    buffer = torch.empty(end, dtype=torch.uint8, pin_memory=True)
    for key, tensor in away.items():
        _part(buffer, parts[key], tensor).copy_(tensor)
    there = buffer.to(device, non_blocking=True)
    return [
        _part(there, parts[id(tensor)], tensor) if id(tensor) in away else moved(tensor, device) for tensor in tensors
    ]


def _part(buffer: Tensor, part: range, like: Tensor) -> Tensor:
    """Bytes of a buffer as a tensor of another one's type and shape."""
    return buffer[part.start : part.stop].view(like.dtype).view(like.shape)


class Outgoing:
    """Tensors that shall leave a CUDA device: they go with the next numbers that are read out, in one copy.

    So the host waits for them no time of their own. Other devices send each at once, and wait.
    """

    def __init__(self) -> None:
        self._queued: dict[int, Tensor] = {}  # by id()
        self._arrived: dict[int, tuple[Tensor, Tensor]] = {}  # by id(): the tensor, kept alive, and its copy

    def on_host(self, tensor: Tensor) -> Tensor | None:
        """A tensor's copy on the host; None while it has not arrived. To ask is to have it sent.

        A copy can be had until the next numbers are read out. It is part of a large pinned buffer: clone what is to
        stay for long.
        """
        if tensor.device.type != "cuda":
            return moved(tensor, HOST)
        if id(tensor) in self._arrived:
            return self._arrived[id(tensor)][1]
        self._queued[id(tensor)] = tensor
        return None

    def read_out(self, numbers: Tensor, while_waiting: Callable[[], None] | None = None) -> list:
        """`numbers.tolist()`, which waits for the device; afterwards all that was to be sent is there.

        Args:
            while_waiting: on a CUDA device called before the wait; what it launches is not waited for, and keeps the
                device busy while the host goes on with the numbers. Elsewhere not called.
        """
        if numbers.device.type != "cuda":
            return numbers.tolist()
        # The widest types first: then all stand where their type may stand.
        sent = sorted([numbers, *self._queued.values()], key=lambda tensor: -tensor.element_size())
        packed = [tensor.contiguous().view(-1).view(torch.uint8) for tensor in sent]
        packed = torch.cat(packed) if len(packed) > 1 else packed[0]
        buffer = torch.empty(packed.shape, dtype=torch.uint8, pin_memory=True).copy_(packed, non_blocking=True)
        over = torch.cuda.current_stream(numbers.device).record_event()
        if while_waiting is not None:
            while_waiting()
        over.synchronize()
        self._queued, self._arrived, end = {}, {}, 0
        for tensor in sent:
            start, end = end, end + tensor.numel() * tensor.element_size()
            self._arrived[id(tensor)] = tensor, _part(buffer, range(start, end), tensor)
        return self._arrived.pop(id(numbers))[1].tolist()
