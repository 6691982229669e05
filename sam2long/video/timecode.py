"""SMPTE timecodes: the hour, minute, second and frame by which editors find a picture again.

At 29.97 and 59.94 frames per second a drop-frame timecode (written with a semicolon) leaves out the first numbers of
each minute but every tenth, so that it stays with the clock (SMPTE ST 12-1). No pictures are left out.
"""

from __future__ import annotations

import re
from fractions import Fraction

import av

_FORM = re.compile(r"([0-9]{1,2})[:.;]([0-9]{1,2})[:.;]([0-9]{1,2})([:.;])([0-9]{1,3})")
_ZERO = "00:00:00:00"
HOURS = 24  # then it begins anew


def read_timecode(container: av.container.InputContainer, video: av.VideoStream) -> str | None:
    """The timecode of a file's first picture, as the file says it; None where it says none."""
    tracks = [video, *(stream for stream in container.streams if stream.type == "data")]
    for metadata in (*(track.metadata for track in tracks), container.metadata):
        for key, value in metadata.items():
            if key.lower() == "timecode" and _FORM.fullmatch(value.strip()):  # Matroska's keys are in capitals
                return value.strip()
    return None


def later(timecode: str | None, frames: int, rate: float | Fraction) -> str | None:
    """The timecode `frames` pictures after another one; None where this rate has no such timecode.

    Args:
        timecode: "01:00:00:00", with a semicolon before the frames for drop-frame; None for zero.
        rate: frames per second.
    """
    found = _FORM.fullmatch(timecode or _ZERO)
    assert found is not None, timecode  # nothing else is read out of a file
    hours, minutes, seconds, mark, at = found.groups()
    nominal = round(rate)
    if nominal < 1 or int(at) >= nominal:
        return None
    dropped = nominal // 15 if mark in ";." and nominal % 30 == 0 else 0  # 2 of 30 numbers, 4 of 60
    total_minutes = 60 * int(hours) + int(minutes)
    number = (60 * total_minutes + int(seconds)) * nominal + int(at) - dropped * (total_minutes - total_minutes // 10)
    number += frames
    if dropped:
        ten_minutes = 600 * nominal - 9 * dropped
        tens, rest = divmod(number, ten_minutes)
        # The first minute of ten has all its numbers.
        number += 9 * dropped * tens + dropped * max(0, (rest - 60 * nominal) // (60 * nominal - dropped) + 1)
    seconds, at = divmod(number, nominal)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    width = max(2, len(str(nominal - 1)))
    return f"{hours % HOURS:02d}:{minutes:02d}:{seconds:02d}{';' if dropped else ':'}{at:0{width}d}"
