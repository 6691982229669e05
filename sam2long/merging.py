"""A pass over frames that have masks already: which of both stays, and what has changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from sam2long.known import Row
from sam2long.meeting import meeting, trust

Mask = TypeVar("Mask")  # whatever holds one: pixels, run lengths

SAME = 0.95  # IoU of two masks that a user would call the same


@dataclass(frozen=True, slots=True)
class Known(Generic[Mask]):
    """What is kept of an object on a frame."""

    mask: Mask
    row: Row


@dataclass(frozen=True, slots=True)
class _Both(Generic[Mask]):
    frame: int
    old: Known[Mask]
    new: Known[Mask]
    agreement: float


@dataclass(frozen=True, slots=True)
class Changes:
    """What a pass has done to masks that were there before it."""

    compared: int = 0
    changed: int = 0
    most: tuple[int, float] | None = None  # the frame that changed most, and its IoU with what it was

    def __str__(self) -> str:
        if not self.compared:
            return ""
        if self.most is None:
            return "no mask changed"
        frame, iou = self.most
        return f"{self.changed} of {self.compared} masks changed, most on frame {frame} (IoU {iou:.2f} with before)"


class Merge(Generic[Mask]):
    """One object in one pass from a corrected frame.

    Towards the next prompt lie masks that a pass from there has left. What the new pass finds is kept up to where the
    two meet (see `meeting`). Masks that are out of date are replaced.

    Args:
        sign: 1 forward, -1 backward. prompts: frames on which the user has said where the object is.
        stale: frames whose masks are out of date. start: where the pass begins.
        overlap: IoU of two masks; 1 where both are empty.
        meets: False: everything is replaced.
    """

    def __init__(
        self,
        sign: int,
        start: int,
        prompts: Collection[int],
        stale: Collection[int],
        overlap: Callable[[Mask, Mask], float],
        meets: bool = True,
    ) -> None:
        self._sign, self._overlap, self._meets = sign, overlap, meets
        self._stale = frozenset(stale)
        beyond = [prompt for prompt in prompts if (prompt - start) * sign > 0]
        self._next = min(beyond, key=lambda prompt: abs(prompt - start)) if beyond else None
        self._both: list[_Both[Mask]] = []
        self._compared, self._changed = 0, 0
        self._most: tuple[int, float] | None = None

    def takes(self, frame: int, old: Known[Mask] | None, new: Known[Mask]) -> bool:
        """Whether a new mask is to be stored now; old: what is there."""
        if old is None or new.row.prompted:
            return True
        fresh = old.row.backward == (self._sign > 0) and frame not in self._stale and not old.row.prompted
        if not (self._meets and self._next is not None and fresh):
            self._count(frame, old, new)
            return True
        if (self._next - frame) * self._sign > 0:
            self._both.append(_Both(frame, old, new, self._overlap(old.mask, new.mask)))
            return True
        return False

    def settled(self) -> Iterator[tuple[int, Known[Mask]]]:
        """What is to be stored at last, on the frames that two passes have been over."""
        new, old = (
            [trust(known.row.iou, known.row.object_logit) for known in each]
            for each in ([both.new for both in self._both], [both.old for both in self._both])
        )
        kept = meeting(new, old, [both.agreement for both in self._both])
        for place, both in enumerate(self._both):
            chosen = both.new if place < kept else both.old
            if place < kept:
                self._count(both.frame, both.old, both.new)
            yield both.frame, Known(chosen.mask, chosen.row._replace(agreement=both.agreement))

    def _count(self, frame: int, old: Known[Mask], new: Known[Mask]) -> None:
        iou = self._overlap(old.mask, new.mask)
        self._compared += 1
        if iou < SAME:
            self._changed += 1
            if self._most is None or iou < self._most[1]:
                self._most = frame, iou

    @property
    def changes(self) -> Changes:
        return Changes(self._compared, self._changed, self._most)


def together(changes: Collection[Changes]) -> Changes:
    """Of several objects, or passes."""
    most = min((each.most for each in changes if each.most), key=lambda most: most[1], default=None)
    return Changes(sum(each.compared for each in changes), sum(each.changed for each in changes), most)
