"""What somebody said about one object on one frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sam2long.naming import check_id, check_name

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ObjectPrompt:
    """One object on one frame: a mask, or points, a box, or both."""

    frame: int  # in the video
    obj_id: int
    label: str = ""
    colour: str = ""  # #rrggbb that it has in a mask image of colours, which say less than ids
    called: str = ""  # by the file that it is from, where that could not be its number
    points: tuple[tuple[float, float], ...] = ()
    point_labels: tuple[int, ...] = ()  # 1 object, 0 not
    box: tuple[float, float, float, float] | None = None
    mask: np.ndarray | None = None  # [H, W] bool

    def __post_init__(self) -> None:
        check_id(self.obj_id)
        object.__setattr__(self, "label", check_name(self.label))

    def give(self, predictor: Any, state: Any, index: int) -> Any:
        """Pass it to a predictor, which checks it, and return its answer. index: of the frame among those tracked."""
        if self.mask is not None:
            return predictor.add_new_mask(state, index, self.obj_id, self.mask)
        return predictor.add_new_points_or_box(
            state,
            index,
            self.obj_id,
            points=list(self.points) or None,
            labels=list(self.point_labels) or None,
            box=self.box,
        )

    def named(self, label: str) -> ObjectPrompt:
        """The same with another label."""
        return replace(self, label=label)

    def describe(self) -> dict[str, Any]:
        """For run.json: what was given, masks as their number of pixels."""
        said: dict[str, Any] = {"frame": self.frame, "object": self.obj_id}
        if self.label:
            said["label"] = self.label
        if self.colour:
            said["colour"] = self.colour
        if self.called:
            said["called"] = self.called
        if self.points:
            said |= {"points": [list(point) for point in self.points], "labels": list(self.point_labels)}
        if self.box:
            said["box"] = list(self.box)
        if self.mask is not None:
            said["mask_pixels"] = int(self.mask.sum())
        return said


def labels_of(prompts: Sequence[ObjectPrompt]) -> dict[int, str]:
    """Object id -> its name, "" for none, in the order of the ids."""
    labels = {prompt.obj_id: "" for prompt in sorted(prompts, key=lambda p: p.obj_id)}
    for prompt in prompts:
        labels[prompt.obj_id] = labels[prompt.obj_id] or prompt.label
    return labels
