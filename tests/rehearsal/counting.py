"""A tracked video on a pretended device, counted frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch

from sam2long.network.sam2 import forget_positions_elsewhere
from sam2long.tracking.session import Session
from tests.rehearsal.device import PretendedCuda
from tests.rehearsal.ledger import FROM_DEVICE, TO_DEVICE, Copy, Ledger, Wait, places

FULL = 17  # frames until the banks of memories and of pointers are full


@dataclass(frozen=True)
class Counts:
    """What each of some frames cost."""

    frames: list[Ledger]

    def __post_init__(self) -> None:
        assert self.frames, "no frame was counted"

    def mean(self, of: str) -> float:
        return sum(getattr(frame, of) for frame in self.frames) / len(self.frames)

    def copies(self, way: str) -> float:
        return sum(len(frame.copied(way)) for frame in self.frames) / len(self.frames)

    def kibibytes(self, way: str) -> float:
        return sum(copy.bytes for frame in self.frames for copy in frame.copied(way)) / len(self.frames) / 1024

    @property
    def waits(self) -> list[Wait]:
        return [wait for frame in self.frames for wait in frame.waits]

    @property
    def most_waits(self) -> int:
        return max(len(frame.waits) for frame in self.frames)

    @property
    def most_copies(self) -> int:
        return max(len(frame.copies) for frame in self.frames)

    @property
    def hidden(self) -> list[Wait]:
        return [wait for frame in self.frames for wait in frame.hidden]

    @property
    def blocking(self) -> list[Copy]:
        return [copy for frame in self.frames for copy in frame.blocking]

    def told(self) -> str:
        """All of it, for the message of a test that fails."""
        copies = [copy for frame in self.frames for copy in frame.copies]
        return f"{len(self.frames)} frames; waits at {places(self.waits)}; copies at {places(copies)}"

    def row(self) -> dict[str, float]:
        """Per frame."""
        return {
            "kernels": self.mean("launched"),
            "host waits": len(self.waits) / len(self.frames),
            "blocking copies": len(self.blocking) / len(self.frames),
            "copies to": self.copies(TO_DEVICE),
            "copies from": self.copies(FROM_DEVICE),
            "KiB to": self.kibibytes(TO_DEVICE),
            "KiB from": self.kibibytes(FROM_DEVICE),
        }


def counted(gpu: PretendedCuda, run: Iterable[Any], skip: int = FULL, count: int = 9) -> Counts:
    """What frames of a run of ours cost, once the banks are full; the default sees two checkpoints at least.

    A frame is what happens from one step of the tracker to the next, whenever its masks are handed out.
    """
    taken: list[Ledger] = []

    def cut(step: Any, *args: Any) -> Any:
        taken.append(gpu.ledger.cut())
        if len(taken) > skip + count:
            raise _Enough
        return step(*args)

    step = Session._step
    with mock.patch.object(Session, "_step", lambda *args: cut(step, *args)), suppress(_Enough):
        for _ in run:
            pass
    return Counts(taken[skip + 1 : skip + 1 + count])


def counted_plain(gpu: PretendedCuda, run: Iterable[Any], skip: int = FULL, count: int = 9) -> Counts:
    """The same for sam2's own predictor, which hands out each frame at once."""
    run, frames = iter(run), []
    for _ in range(skip):
        next(run)
    for _ in range(count):
        gpu.ledger.clear()
        next(run)
        frames.append(gpu.ledger.cut())
    return Counts(frames)


class _Enough(Exception):
    """No more frames are counted."""


@contextmanager
def on_gpu(predictor: Any, devices: int = 1, device: str = "cuda:0") -> Iterator[PretendedCuda]:
    """A predictor on a pretended device, and back again."""
    with PretendedCuda(devices) as gpu:
        predictor.to(device)
        try:
            yield gpu
        finally:
            predictor.to("cpu")
            if isinstance(predictor, torch.nn.Module):
                forget_positions_elsewhere(predictor)
