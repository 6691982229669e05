"""Devices: the best there is, and tensors on their way to and from it, without waiting wherever that is safe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

HOST = torch.device("cpu")
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


def tensor_on(device: torch.device, values: Any, dtype: torch.dtype | None = None) -> Tensor:
    """`torch.tensor(values)` on `device`, without waiting for it."""
    return moved(torch.tensor(values, dtype=dtype), device)


def settle(device: torch.device) -> None:
    """Wait until everything that has been moved from `device` is there."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def read_out(tensor: Tensor, while_waiting: Callable[[], None] | None = None) -> list:
    """`tensor.tolist()`, which waits for the device.

    Args:
        while_waiting: on a CUDA device called before the wait; what it launches is not waited for, and keeps the device
            busy while the host goes on with the numbers. Elsewhere not called.
    """
    if tensor.device.type != "cuda":
        return tensor.tolist()
    here = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
    arrived = torch.cuda.current_stream(tensor.device).record_event()
    if while_waiting is not None:
        while_waiting()
    arrived.synchronize()
    return here.tolist()
