"""A bounded number of places that a track can go back to."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Iterable

import torch

from sam2long.tracking import packing
from sam2long.tracking.track import Leads, Track

IN_MEMORY = 1 << 20  # bytes; more goes to a file


class Checkpoints:
    """Snapshots of a track, packed into bytes; when there are too many, every other one goes.

    The distance between two is then doubled, so a video of any length keeps between half of `limit` and `limit` of
    them, fewer when they are large. They wait in a temporary file without a name, which is gone however the program
    ends: the host's memory is not what a correction on an old frame should cost.

    Args:
        limit: how many are kept at most.
        budget: bytes at most, as long as two are left; the file may be twice as long.
        spacing: frames between two, at first.
    """

    def __init__(self, limit: int = 64, budget: int = 512 << 20, spacing: int = 4) -> None:
        self.limit, self.budget, self.spacing = limit, budget, spacing
        self._empty()

    @property
    def frames(self) -> list[int]:
        return list(self._places)

    def offer(self, track: Track) -> None:
        """Take a snapshot when the last one is far enough away."""
        leads = track.leads()
        if leads is None:
            return
        direction = track.rules.direction
        if self._places and min((leads.head - at) * direction for at in self._places) < self.spacing:
            return
        try:
            self.put(leads.head, packing.pack_leads(leads))
            while len(self._places) > self.limit or (self._bytes() > self.budget and len(self._places) > 2):
                self._keep(self.frames[1::2])
                self.spacing *= 2
        except OSError as error:
            warnings.warn(
                f"there is no room for checkpoints in {tempfile.gettempdir()} ({error.strerror or error}): masks stay "
                "as they are, but corrections on old frames take longer",
                stacklevel=2,
            )
            self._keep(())
            self.spacing *= 2

    def put(self, frame: int, data: bytes) -> None:
        """Add a packed snapshot."""
        if self._end + len(data) > max(2 * self.budget, IN_MEMORY):
            self._keep(self._places)
        self._file.seek(self._end)
        self._file.write(data)
        self._places[frame] = self._end, len(data)
        self._end += len(data)

    def data(self, frame: int) -> bytes:
        """A packed snapshot."""
        offset, size = self._places[frame]
        self._file.seek(offset)
        return self._file.read(size)

    def latest(self, frame: int, direction: int, device: torch.device, storage: torch.device | None) -> Leads | None:
        """The last snapshot at or before `frame`, as time runs."""
        usable = [at for at in self._places if (frame - at) * direction >= 0]
        if not usable:
            return None
        return packing.unpack_leads(self.data(max(usable, key=lambda at: at * direction)), device, storage)

    def drop_after(self, frame: int, direction: int) -> None:
        """Forget the snapshots later than `frame`."""
        self._places = {at: place for at, place in self._places.items() if (at - frame) * direction <= 0}

    def copy(self) -> Checkpoints:
        """The snapshots as they are now, to be read before this one takes another."""
        other = copy.copy(self)
        other._places = dict(self._places)
        return other

    def few(self, count: int) -> list[int]:
        """Frames of at most `count` snapshots, spread over all."""
        frames = self.frames
        return frames[:: -(-len(frames) // count)] if frames else []

    def _bytes(self) -> int:
        return sum(size for _, size in self._places.values())

    def _keep(self, frames: Iterable[int]) -> None:
        """Forget all others, and the room that they took."""
        kept = [(frame, *self._places[frame]) for frame in frames]
        with self._file as old:
            self._empty()
            for frame, offset, size in kept:
                old.seek(offset)
                self.put(frame, old.read(size))

    def _empty(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - open as long as the track
        self._end = 0
        self._places: dict[int, tuple[int, int]] = {}  # frame -> offset, size; in the order in which they were taken
