"""A bounded number of places that a track can go back to."""

from __future__ import annotations

import torch

from sam2long import persist
from sam2long.tracker import Leads, Track


class Checkpoints:
    """Snapshots of a track, packed into bytes on the host; when there are too many, every other one goes.

    The distance between two is then doubled, so a video of any length keeps between `limit / 2` and `limit`.
    """

    def __init__(self, limit: int = 16, spacing: int = 4) -> None:
        self.limit = limit
        self.spacing = spacing
        self.packed: dict[int, bytes] = {}

    def offer(self, track: Track) -> None:
        """Take a snapshot when the last one is far enough away."""
        leads = track.leads()
        if leads is None:
            return
        if (
            self.packed
            and (leads.head - max(self.packed, key=lambda at: at * track.rules.direction)) * (track.rules.direction)
            < self.spacing
        ):
            return
        self.packed[leads.head] = persist.pack_leads(leads)
        if len(self.packed) > self.limit:
            self.packed = dict(list(self.packed.items())[1::2])
            self.spacing *= 2

    def latest(self, frame: int, direction: int, device: torch.device, storage: torch.device | None) -> Leads | None:
        """The last snapshot at or before `frame`, as time runs."""
        usable = [at for at in self.packed if (frame - at) * direction >= 0]
        if not usable:
            return None
        return persist.unpack_leads(self.packed[max(usable, key=lambda at: at * direction)], device, storage)

    def drop_after(self, frame: int, direction: int) -> None:
        """Forget the snapshots later than `frame`."""
        self.packed = {at: data for at, data in self.packed.items() if (at - frame) * direction <= 0}
