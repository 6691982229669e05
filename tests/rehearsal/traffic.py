"""What is between host and device: pinned buffers, and copies that nobody has waited for yet."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import torch
from torch import Tensor

from tests.rehearsal.runtime import Stream


class Race(AssertionError):
    """The host wrote to a buffer that the device had still to read."""


@dataclass(frozen=True, slots=True, eq=False)
class Flight:
    """A copy that is over once `stream` has done its work number `number`."""

    stream: Stream
    number: int
    buffer: Tensor  # the host's
    content: Tensor  # what will be in it, or has to stay in it
    place: str


class Traffic:
    """Copies under way in both directions. To the host they arrive late: until then it finds rubbish."""

    def __init__(self) -> None:
        self._arriving: list[Flight] = []
        self._leaving: list[Flight] = []
        self._pinned: dict[int, weakref.ref] = {}

    def pin(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._pinned[storage._cdata] = weakref.ref(storage)
        return tensor

    def is_pinned(self, tensor: Tensor) -> bool:
        storage = tensor.untyped_storage()
        known = self._pinned.get(storage._cdata)
        return known is not None and known() is storage

    def arrives(self, stream: Stream, buffer: Tensor, content: Tensor, place: str) -> None:
        self._arriving.append(Flight(stream, stream.given, buffer, content.to(buffer.dtype).clone(), place))
        _spoil(buffer)

    def leaves(self, stream: Stream, buffer: Tensor, place: str) -> None:
        self._leaving.append(Flight(stream, stream.given, buffer, buffer.clone(), place))

    def completed(self, stream: Stream) -> None:
        """All that `stream` has done is over.

        Raises:
            Race: what has left was another thing than what was given.
        """
        for flight in self._over(self._arriving, stream):
            flight.buffer.copy_(flight.content)
        for flight in self._over(self._leaving, stream):
            if not _alike(flight.buffer, flight.content):
                raise Race(f"a pinned buffer was written to before its copy to the device was over (at {flight.place})")

    def read_by(self, stream: Stream, tensor: Tensor) -> None:
        """A stream reads a tensor of the host: what it has sent there itself is there, whoever else waits."""
        for flight in [each for each in self._arriving if each.stream is stream and _overlap(each.buffer, tensor)]:
            self._arriving.remove(flight)
            flight.buffer.copy_(flight.content)

    @staticmethod
    def _over(flights: list[Flight], stream: Stream) -> list[Flight]:
        over = [each for each in flights if each.stream is stream and each.number <= stream.done]
        flights[:] = [each for each in flights if each not in over]
        return over


def _overlap(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage()._cdata == other.untyped_storage()._cdata


def _alike(one: Tensor, other: Tensor) -> bool:
    return bool(((one == other) | ((one != one) & (other != other))).all())


def _spoil(tensor: Tensor) -> None:
    """What the host finds where nothing has arrived yet."""
    if tensor.dtype == torch.bool:
        tensor.logical_not_()
    elif tensor.is_floating_point() or tensor.is_complex():
        tensor.fill_(float("nan"))
    else:
        tensor.fill_(torch.iinfo(tensor.dtype).max)
