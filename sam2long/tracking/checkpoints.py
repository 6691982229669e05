"""A bounded number of standings that a track can go back to."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable
from typing import Any

import torch

from sam2long.network.devices import Outgoing
from sam2long.tracking import packing
from sam2long.tracking.track import Standing

IN_MEMORY = 1 << 20  # bytes; more goes to a file


class Checkpoints:
    """Standings of a track, packed into bytes; when there are too many, every other one goes.

    The distance between two is then doubled, so a video of any length keeps between half of `limit` and `limit` of
    them, fewer when they are large. They wait in a temporary file without a name, which is gone however the program
    ends: the host's memory is not what a correction on an old frame should cost.

    Args:
        limit: how many are kept at most.
        budget: bytes at most, as long as two are left; the file may be twice as long.
        spacing: frames between two, at first.
    """

    def __init__(self, limit: int = 64, budget: int = 512 << 20, spacing: int = 4) -> None:
        self._extents: dict[int, tuple[int, int]]
        self.limit, self.budget, self.spacing = limit, budget, spacing
        self._arriving: tuple[Standing, packing.Packer, dict[str, Any]] | None = None  # on its way to the host
        self._empty()

    @property
    def times(self) -> list[int]:
        return list(self._extents)

    def offer(self, standing: Standing, outgoing: Outgoing) -> None:
        """Keep a standing when the last one is far enough away.

        Args:
            standing: of the track, after a step.
            outgoing: takes its tensors to the host with the next frame's numbers; until then it waits on the device.
        """
        if self._arriving is None and self._is_due(standing):
            packer = packing.Packer()
            bare = standing.bare()
            self._arriving = bare, packer, packer.standing(bare)
        if self._arriving is not None and self._arriving[1].arrived(outgoing):
            self._store()

    def _is_due(self, standing: Standing) -> bool:
        if standing.time is None or not standing.pathways:
            return False
        return not self._extents or standing.time - max(self._extents) >= self.spacing

    def _store(self) -> None:
        """Write the standing that was arriving; what has not arrived is waited for."""
        assert self._arriving is not None
        (standing, packer, content), self._arriving = self._arriving, None
        assert standing.time is not None  # `_is_due` takes no other
        try:
            self.put(standing.time, packer.bytes(content))
            while len(self._extents) > self.limit or (self._bytes() > self.budget and len(self._extents) > 2):
                self._keep(self.times[1::2])
                self.spacing *= 2
        except OSError as error:
            warnings.warn(
                f"there is no room for checkpoints in {tempfile.gettempdir()} ({error.strerror or error}): masks stay "
                "as they are, but corrections on old frames take longer",
                stacklevel=2,
            )
            self._keep(())
            self.spacing *= 2

    def put(self, time: int, data: bytes) -> None:
        """Add a packed standing."""
        if self._end + len(data) > max(2 * self.budget, IN_MEMORY):
            self._keep(self._extents)
        self._file.seek(self._end)
        self._file.write(data)
        self._extents[time] = self._end, len(data)
        self._end += len(data)

    def data(self, time: int) -> bytes:
        """A packed standing."""
        offset, size = self._extents[time]
        self._file.seek(offset)
        return self._file.read(size)

    def latest(self, time: int, device: torch.device, storage: torch.device | None) -> Standing | None:
        """The last standing at or before `time`."""
        usable = [at for at in self._extents if at <= time]
        arriving = None if self._arriving is None else self._arriving[0]
        if arriving is not None and max([*usable, arriving.time or 0]) == (arriving.time or 0) <= time:
            return arriving
        return packing.unpack_standing(self.data(max(usable)), device, storage) if usable else None

    def drop_after(self, time: int) -> None:
        """Forget the standings later than `time`."""
        self._extents = {at: extent for at, extent in self._extents.items() if at <= time}
        if self._arriving is not None and (self._arriving[0].time or 0) > time:
            self._arriving = None

    def few(self, count: int) -> list[int]:
        """Times of at most `count` standings, spread over all."""
        if self._arriving is not None:
            self._store()
        times = self.times
        return times[:: -(-len(times) // count)] if times else []

    def _bytes(self) -> int:
        return sum(size for _, size in self._extents.values())

    def _keep(self, times: Iterable[int]) -> None:
        """Forget all others, and the room that they took."""
        kept = [(time, *self._extents[time]) for time in times]
        with self._file as old:
            self._empty()
            for time, offset, size in kept:
                old.seek(offset)
                self.put(time, old.read(size))

    def _empty(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - open as long as the track
        self._end = 0
        self._extents = {}  # time -> offset, size; in the order in which they were kept
