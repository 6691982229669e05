"""Label Studio's regions: percent of the picture, keyframes that are joined by straight lines, brush masks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np

from sam2long.errors import DataError
from sam2long.export.masks import run_lengths
from sam2long.hosts.boxes import Box, inside

RATE = 24.0  # frames per second that Label Studio counts in where its Video tag says nothing
TOLERANCE = 0.02  # of a box's longer side: by how much a side may be off between two keyframes
SIZES = (3, 4, 8, 16)  # bits that a brush mask's run lengths take
CHANNELS = 4  # of a brush mask: red, green, blue, alpha


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag of the labelling config."""

    kind: str
    name: str
    to_name: str
    attributes: Mapping[str, str]


def tags(config: str) -> list[Tag]:
    """The tags with a name, in order.

    Raises:
        DataError: not XML.
    """
    try:
        root = ElementTree.fromstring(config)
    except ElementTree.ParseError as error:
        raise DataError(f"the labelling config cannot be read ({error})") from None
    found = root.iter()
    return [Tag(e.tag, e.get("name", ""), e.get("toName", ""), dict(e.attrib)) for e in found if e.get("name")]


def box_of(value: Mapping[str, Any], height: int, width: int) -> Box:
    """A rectangle of a region or of a keyframe in pixels; a turned one as the upright box around it.

    Raises:
        DataError: no numbers. PromptError: outside the picture.
    """
    try:
        left, top = float(value["x"]) * width / 100, float(value["y"]) * height / 100
        across, down = float(value["width"]) * width / 100, float(value["height"]) * height / 100
        angle = math.radians(float(value.get("rotation") or 0))
    except (KeyError, TypeError, ValueError):
        raise DataError("a rectangle has no x, y, width and height in percent; draw it anew") from None
    corners = [(0.0, 0.0), (across, 0.0), (across, down), (0.0, down)]  # turned around its first one
    xs = [left + x * math.cos(angle) - y * math.sin(angle) for x, y in corners]
    ys = [top + x * math.sin(angle) + y * math.cos(angle) for x, y in corners]
    return inside((min(xs), min(ys), max(xs), max(ys)), height, width)


def percent(box: Sequence[float], height: int, width: int) -> dict[str, float]:
    """A box as a region has it."""
    left, top, right, bottom = box
    shares = {
        "x": left / width, "y": top / height, "width": (right - left) / width, "height": (bottom - top) / height
    }  # fmt: skip
    return {name: round(share * 100, 4) for name, share in shares.items()}


# ---- videos ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Clock:
    """Label Studio counts frames from 1, at a rate of its own, which its Video tag says."""

    rate: float
    fps: float
    count: int  # frames of the video

    @classmethod
    def of(cls, tag: Tag | None, fps: float | None, count: int) -> Clock:
        try:
            rate = float(tag.attributes.get("frameRate") or RATE) if tag else RATE
        except ValueError:
            rate = RATE
        return cls(rate, fps or rate, count)

    @property
    def duration(self) -> float:
        return self.count / self.fps

    @property
    def frames(self) -> int:
        """As Label Studio counts them."""
        return math.ceil(round(self.duration * self.rate, 6))

    def ours(self, frame: int) -> int:
        """The frame of the video that is shown as theirs."""
        return min(max(round((frame - 1) * self.fps / self.rate), 0), self.count - 1)

    def theirs(self, index: int) -> int:
        return min(round(index * self.rate / self.fps) + 1, self.frames)


def keyframes(boxes: Mapping[int, Box | None], clock: Clock, height: int, width: int) -> list[dict[str, Any]]:
    """A videorectangle's sequence: no more keyframes than straight lines between them need. Where the object leaves,
    the last one before it says `enabled: false`.

    Args:
        boxes: index of the frame -> box, or None where the object is away. height, width: of the video.
    """
    sequence: dict[int, dict[str, Any]] = {}
    for stretch in _stretches(boxes):
        frames = sorted(stretch)
        kept = _corners(np.array(frames), np.array([stretch[frame] for frame in frames]))
        goes_on = frames[-1] == max(boxes)
        for at in kept:
            index = frames[at]
            number = clock.theirs(index)
            sequence[number] = {
                "frame": number, "time": round((number - 1) / clock.rate, 6), "rotation": 0,
                "enabled": index != frames[-1] or goes_on, **percent(stretch[index], height, width),
            }  # fmt: skip
    return [sequence[number] for number in sorted(sequence)]


def _stretches(boxes: Mapping[int, Box | None]) -> list[dict[int, Box]]:
    """The boxes, cut where the object is away."""
    found: list[dict[int, Box]] = []
    last = None
    for frame, box in sorted(boxes.items()):
        if box is not None:
            if last != frame - 1 or not found:
                found.append({})
            found[-1][frame] = box
            last = frame
    return found


def _corners(frames: np.ndarray, boxes: np.ndarray) -> list[int]:
    """Which of the boxes are needed, when those between are on the lines (Douglas and Peucker 1973, over time)."""
    longer = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    kept, left = {0, len(frames) - 1}, [(0, len(frames) - 1)]
    while left:
        low, high = left.pop()
        if high - low < 2:
            continue
        share = ((frames[low + 1 : high] - frames[low]) / (frames[high] - frames[low]))[:, None]
        off = np.abs(boxes[low + 1 : high] - (boxes[low] + share * (boxes[high] - boxes[low]))).max(axis=1)
        off /= longer[low + 1 : high]
        if off.max() > TOLERANCE:
            at = low + 1 + int(off.argmax())
            kept.add(at)
            left += [(low, at), (at, high)]
    return sorted(kept)


# ---- masks ----------------------------------------------------------------------------------------------------------


def brush(mask: np.ndarray) -> list[int]:
    """A mask [H, W] bool as Label Studio's brush has it: bytes that pack the runs of an RGBA picture.

    Four bytes for the number of values, five bits for the bits of a value, four for each of the sizes that a run
    length may have; then for each run a bit (1: one value, many times), two for the size, length - 1, the value.
    """
    longest = 1 << SIZES[-1]
    bits = [f"{mask.size * CHANNELS:032b}{7:05b}", *(f"{size - 1:04b}" for size in SIZES)]
    for number, length in enumerate(run_lengths(mask.ravel())):
        value = f"{255 * (number % 2):08b}"
        left = length * CHANNELS
        while left:
            run = min(left, longest)
            size = next(at for at, room in enumerate(SIZES) if run <= 1 << room)
            bits.append(f"1{size:02b}{run - 1:0{SIZES[size]}b}{value}")
            left -= run
    packed = "".join(bits)
    packed += "0" * (-len(packed) % 8)
    return list(int(packed, 2).to_bytes(len(packed) // 8, "big"))
