"""What is known of one object on one frame beside its mask: the same for the page and for what is measured of it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from sam2long.doubt import reasons_of
from sam2long.tracking.report import ABSENT, UNCERTAIN, VISIBLE, FrameReport


class Row(NamedTuple):
    """The fields as in `track_report`, and where the mask came from."""

    status: str = VISIBLE
    iou: float = math.nan
    object_logit: float = math.nan
    pathways: int = 1
    margin: float = math.inf
    prompted: bool = False
    backward: bool = False  # from a backward pass
    empty: bool = False  # the mask has no pixel
    agreement: float | None = None  # IoU with the mask of a pass the other way

    @classmethod
    def of(cls, report: FrameReport, *, backward: bool, empty: bool) -> Row:
        """What the tracker thought of a frame that it has handed out."""
        return cls(
            report.status, report.iou, report.object_logit, report.pathways, report.margin, report.prompted,
            backward=backward, empty=empty,
        )  # fmt: skip

    @property
    def reasons(self) -> list[str]:
        """What speaks against the mask, in words."""
        return reasons_of(self)

    def to_json(self) -> list[Any]:
        """Plain values; `from_json` reads them back."""
        numbers = [number if math.isfinite(number) else str(number) for number in self[1:5]]
        return [self.status, *numbers, self.prompted, self.backward, self.empty, self.agreement]

    @classmethod
    def from_json(cls, values: list[Any]) -> Row:
        """Raises ValueError or TypeError for what `to_json` has not written."""
        status, iou, logit, pathways, margin, prompted, backward, empty, *agreement = values
        if status not in (VISIBLE, UNCERTAIN, ABSENT):
            raise ValueError(f"unknown status {status!r}")
        numbers = float(iou), float(logit), int(pathways), float(margin)
        known = float(agreement[0]) if agreement and agreement[0] is not None else None  # earlier versions wrote none
        return cls(status, *numbers, bool(prompted), bool(backward), bool(empty), known)
