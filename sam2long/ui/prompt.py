"""What a user says: what objects are called, and where they are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sam2long.errors import PromptError, short
from sam2long.export.masks import encode_mask
from sam2long.export.overlay import COLOURS
from sam2long.imports import ObjectPrompt
from sam2long.naming import check_id, check_name
from sam2long.ui.store import Rle


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedObject:
    """What the user calls an object."""

    id: int
    name: str = ""
    label: str = ""  # its class
    colour: str = ""  # #rrggbb

    def __post_init__(self) -> None:
        check_id(self.id)
        for field in ("name", "label"):
            object.__setattr__(self, field, check_name(getattr(self, field), f"the object's {field}"))
        if self.colour and not re.fullmatch("#[0-9a-f]{6}", self.colour):
            raise PromptError(f"the colour is {short(self.colour)}; expected one like #2a7fff")

    @property
    def title(self) -> str:
        """What other tools call it: its class, or else its name."""
        return self.label or self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Everything said of one object on one frame: clicks and a box, or a mask."""

    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()  # 1 object, 0 not
    box: tuple[float, float, float, float] | None = None
    mask: Rle | None = None

    @property
    def drawn(self) -> Rle | None:
        """The mask, where it is all that was said. It stands as it is: sam2 would hand it back at a quarter of the
        network's resolution, a little off at every edge."""
        return None if self.points or self.box is not None else self.mask

    def to_json(self) -> dict[str, Any]:
        """As prompts.json of `sam2long track` has it, but for frame and object."""
        said: dict[str, Any] = {}
        if self.points:
            said |= {"points": [list(point) for point in self.points], "labels": list(self.labels)}
        if self.box:
            said["box"] = list(self.box)
        if self.mask and not said:
            said["mask"] = dict(self.mask)
        return said

    @classmethod
    def from_object_prompt(cls, prompt: ObjectPrompt) -> Prompt:
        mask = None if prompt.mask is None else encode_mask(prompt.mask)
        return cls(points=prompt.points, labels=prompt.point_labels, box=prompt.box, mask=mask)


def default_colour(obj_id: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*COLOURS[(obj_id - 1) % len(COLOURS)])
