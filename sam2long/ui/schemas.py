"""What a request may say. Anything else is refused before it reaches the project."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from sam2long.naming import MOST_ID, MOST_LETTERS, check_name

Coordinate = Annotated[float, Field(ge=-(2**16), le=2**16, allow_inf_nan=False)]
FrameIndex = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
ObjectId = Annotated[int, Field(ge=1, le=MOST_ID, strict=True)]
Text = Annotated[str, Field(max_length=4 * MOST_LETTERS), AfterValidator(check_name)]
Colour = Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewObject(Request):
    name: Text = ""
    label: Text = ""
    colour: Colour | Literal[""] = ""


class ObjectChange(Request):
    name: Text | None = None
    label: Text | None = None
    colour: Colour | None = None


class OnFrame(Request):
    object: ObjectId
    frame: FrameIndex


class Click(OnFrame):
    x: Coordinate
    y: Coordinate
    positive: bool = True


class Box(OnFrame):
    box: tuple[Coordinate, Coordinate, Coordinate, Coordinate]


class TrackRequest(Request):
    direction: Literal["forward", "backward", "both"] = "forward"
    start: FrameIndex
    end: FrameIndex | None = None
    objects: Annotated[list[ObjectId], Field(min_length=1, max_length=1000)] | None = None


class Reset(Request):
    keep_masks: bool = False


class View(Request):
    """Where the user is; kept for the next time."""

    frame: FrameIndex = 0
    object: ObjectId | None = None
    range: tuple[FrameIndex, FrameIndex] | None = None
    show: Annotated[str, Field(max_length=20)] = "mask"


class ExportRequest(Request):
    format: Annotated[str, Field(max_length=40)]
    folder: Annotated[str, Field(min_length=1, max_length=400)] | None = None
    shape: Annotated[str, Field(max_length=40)] | None = None
    images: bool = False
    feather: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    band: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    tracked_only: bool = False
    overwrite: bool = False
