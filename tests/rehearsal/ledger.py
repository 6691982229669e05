"""What a GPU would feel of a program, written down: launches, waits of the host, copies, bytes, memory."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
OURS = tuple(f"{ROOT / room}/" for room in ("sam2long", "eval", "scripts"))
HERE = str(Path(__file__).parent / "device.py"), __file__
TO_DEVICE, FROM_DEVICE = "to", "from"


@dataclass(frozen=True, slots=True)
class Wait:
    """The host stood still until the device had done something."""

    what: str  # "item", "nonzero", "blocking copy", "event", ...
    place: str  # file:line
    asked: bool  # by name: an event, a stream or a device was synchronised


@dataclass(frozen=True, slots=True)
class Copy:
    """Bytes between host and device."""

    way: str  # TO_DEVICE or FROM_DEVICE
    bytes: int
    blocking: bool
    place: str  # file:line


@dataclass(frozen=True, slots=True)
class Work:
    """One operator on the device."""

    name: str
    flops: int
    bytes: int  # read and written
    low: bool  # in half precision, where tensor cores compute


@dataclass(slots=True)
class Ledger:
    """Counts since the last `clear`; `in_use` goes on, since memory does."""

    work: list[Work] = field(default_factory=list)  # operators that launch at least one kernel
    waits: list[Wait] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)
    in_use: int = 0  # bytes of device memory
    peak: int = 0

    def clear(self) -> None:
        self.work.clear()
        self.waits.clear()
        self.copies.clear()
        self.peak = self.in_use

    def cut(self) -> Ledger:
        """What was counted since the last cut; counting begins anew."""
        taken = Ledger(self.work, self.waits, self.copies, self.in_use, self.peak)
        self.work, self.waits, self.copies, self.peak = [], [], [], self.in_use
        return taken

    @property
    def kernels(self) -> Counter[str]:
        return Counter(each.name for each in self.work)

    @property
    def launched(self) -> int:
        return len(self.work)

    @property
    def flops(self) -> int:
        return sum(each.flops for each in self.work)

    @property
    def bytes(self) -> int:
        return sum(each.bytes for each in self.work)

    def copied(self, way: str) -> list[Copy]:
        return [copy for copy in self.copies if copy.way == way]

    @property
    def blocking(self) -> list[Copy]:
        return [copy for copy in self.copies if copy.blocking]

    @property
    def hidden(self) -> list[Wait]:
        """Waits that nobody asked for by name."""
        return [wait for wait in self.waits if not wait.asked]

    def allocated(self, change: int) -> None:
        self.in_use += change
        self.peak = max(self.peak, self.in_use)


def places(entries: Iterable[Wait | Copy]) -> dict[str, int]:
    """Where they come from, most first."""
    return dict(Counter(entry.place for entry in entries).most_common())


def place() -> str:
    """file:line of the innermost line of ours under way, or else of the network's, or else of the caller's."""
    frame, networks, callers = sys._getframe(1), None, None
    torchs = str(Path(torch.__file__).parent)
    while frame is not None:
        path, line = frame.f_code.co_filename, frame.f_lineno
        if path.startswith(OURS):
            return f"{Path(path).relative_to(ROOT)}:{line}"
        for package in ("sam2", "transformers"):
            if networks is None and f"/site-packages/{package}/" in path:
                networks = f"{path.split('/site-packages/')[1]}:{line}"
        if callers is None and path not in HERE and not path.startswith((torchs, "<")):
            callers = f"{Path(path).name}:{line}"
        frame = frame.f_back
    return networks or callers or "?"
