"""What a run was made with, and how much memory it took."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PACKAGES = ("sam2long", "sam2", "torch", "torchvision", "numpy", "pillow", "av")


def versions() -> dict[str, str]:
    """Of everything that can change a mask."""
    from sam2long._version import __version__

    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = __version__ if package == "sam2long" else "unknown"
    return found


def process_peak() -> int | None:
    """Bytes that this process has had in memory at most; None where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def device_peak(device: torch.device | None) -> int | None:
    """Bytes that torch has had on a CUDA device at most; None on another device."""
    if device is None or device.type != "cuda":
        return None
    import torch

    return torch.cuda.max_memory_allocated(device)


def peak_memory(device: torch.device | None) -> dict[str, float | None]:
    """MiB at most so far: of the process, and of the CUDA device when it is used."""
    process, cuda = process_peak(), device_peak(device)
    peak = {"process": None if process is None else round(process / 2**20, 1)}
    return peak if cuda is None else peak | {"cuda": round(cuda / 2**20, 1)}
