"""Which frames a video file has, and where decoding may start.

Packets foretell it: reading the container through without decoding takes milliseconds for a minute of video, and
headers are often wrong about the number of frames. Where packets do not tell enough, the file is decoded once.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from sam2long.errors import VideoError
from sam2long.video.chunks import is_cut_off
from sam2long.video.decoding import CORRUPT_IS_A_GUESS, decode_file, open_container, video_stream

# One packet of these is one picture, so packets foretell frames. Files of others are decoded once to list them.
PACKET_IS_FRAME = {
    "h264", "hevc", "av1", "vp9", "mjpeg", "mpeg1video", "mpeg2video", "mpeg4", "ffv1", "prores", "png", "gif", "qtrle"
}  # fmt: skip
MOST_REORDERED = 16  # pictures that may be stored before one that is shown earlier; H.264's and HEVC's limit
SAME_RATE = 0.01  # header and measured frame rate may differ by this much and are the same


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FileIndex:
    """Which frames a file has, in order of display."""

    times: np.ndarray  # [N] int64, in units of time_base; distinct, rising. Without a clock: 0, 1, 2, ...
    starts: np.ndarray  # [K] int64, frames at which decoding may start; the first is 0
    time_base: Fraction
    rate: Fraction | None  # frames per second
    has_clock: bool  # False: frames are told apart by counting from the beginning
    decoded: bool  # whether this is what the decoder has handed out, not only what packets foretell
    damage: str | None = None  # where and why the file ends early
    note: str | None = None  # about pictures that give no frame

    def find(self, time: int | None) -> int | None:
        """Which frame has this time; None when it is not one of ours."""
        if time is None:
            return None
        at = int(np.searchsorted(self.times, time))
        return at if at < len(self.times) and self.times[at] == time else None

    def start_before(self, index: int) -> tuple[int, int]:
        """The last place to start at or before a frame, and the one before that."""
        at = int(np.searchsorted(self.starts, index, side="right")) - 1
        return int(self.starts[at]), int(self.starts[max(at - 1, 0)])


def index_file(path: Path) -> FileIndex:
    """List a file's frames from its packets, without decoding where they tell enough.

    Raises:
        VideoError: not a video, or nothing in it.
    """
    with open_container(path) as container:
        video = video_stream(container, path)
        codec = video.codec_context.codec.canonical_name
        guess = container.format.name in CORRUPT_IS_A_GUESS
        packets, missing, jumps, last_dts = [], False, False, None
        try:
            for packet in container.demux(video):
                if packet.size == 0:
                    continue
                if packet.is_corrupt and not guess:
                    missing = True
                    break
                packets.append((packet.pts, packet.is_keyframe, packet.is_discard))
                if packet.dts is not None:
                    jumps |= last_dts is not None and packet.dts <= last_dts
                    last_dts = packet.dts
        except av.FFmpegError:
            missing = True
        in_header = video.frames
        missing |= is_cut_off(path) and not 0 < in_header <= len(packets)
        # AVI stores no times; FFmpeg's guess for reordered pictures changes after seeking.
        guessed = container.format.name == "avi" and codec in ("h264", "hevc")
        keys = [time for time, key, _ in packets if key]
        if not keys or jumps or guessed or codec not in PACKET_IS_FRAME or any(time is None for time, *_ in packets):
            return scan_file(path, trust_times=not guessed, missing=missing)
        shown = sorted(time for time, _, hidden in packets if not hidden and time >= min(keys))
        if not shown or any(a == b for a, b in pairwise(shown)):
            return scan_file(path, missing=missing)
        times = np.array(shown, dtype=np.int64)
        damage = None
        if missing:
            # Pictures are stored in the order of decoding: one that is missing is shown after the last that is there
            # was decoded.
            times = _before_gap(times, 0 if last_dts is None else int(np.searchsorted(times, last_dts, side="right")))
            of = f" of {in_header}" if in_header else ""
            damage = f"video ends at frame {len(times)}{of}: the file is cut off or incomplete"
        note = _note(sum(not hidden for *_, hidden in packets), len(shown))
        return FileIndex(
            times=times, starts=_starts(times, keys), time_base=clock_of(video), rate=_rate(video, times),
            has_clock=True, decoded=False, damage=damage, note=note,
        )  # fmt: skip


def scan_file(path: Path, trust_times: bool = True, missing: bool = False) -> FileIndex:
    """List a file's frames by decoding it once: slow, for files whose packets do not tell.

    Args:
        trust_times: whether the frames' times stay the same after seeking.
        missing: the file is known to lack its end.
    """
    times: list[int | None] = []
    keys: list[int] = []
    damage, sure = "the file is cut off or incomplete" if missing else None, 0
    for frame, broken in decode_file(path):
        damage = broken or damage
        if frame is not None:
            times.append(frame.pts)
            sure += broken is None
            if frame.key_frame and frame.pts is not None:
                keys.append(frame.pts)
    if not times:
        raise VideoError(f"{path} has no frame that can be decoded; the file is damaged or not a video")
    said = [time for time in times if time is not None]
    has_clock = trust_times and len(said) == len(times) and all(a < b for a, b in pairwise(said))
    known = np.array(said if has_clock else range(len(times)), dtype=np.int64)
    if damage is not None:
        known = _before_gap(known, min(sure, len(known) - MOST_REORDERED) if missing else sure)
        damage = f"video ends at frame {len(known)}: {damage}"
    with open_container(path) as container:
        video = video_stream(container, path)
        rate = _rate(video, known) if has_clock else video.average_rate and Fraction(video.average_rate)
        coded = len(times)
        if damage is None:
            coded = sum(packet.size > 0 and not packet.is_discard for packet in container.demux(video))
        return FileIndex(
            times=known, starts=_starts(known, keys if has_clock else []), time_base=clock_of(video), rate=rate,
            has_clock=has_clock, decoded=True, damage=damage, note=_note(coded, len(times)),
        )  # fmt: skip


def _note(coded: int, shown: int) -> str | None:
    if shown >= coded:
        return None
    return f"{coded - shown} of the video's {coded} coded pictures give no frame (before the first key frame, say)"


def _starts(times: np.ndarray, keys: list[int]) -> np.ndarray:
    """Indices of the frames whose times are among `keys`; 0 is always one."""
    return np.union1d([0], np.flatnonzero(np.isin(times, keys)))


def _before_gap(times: np.ndarray, sure: int) -> np.ndarray:
    """The first `sure` times of a file that breaks off, and more up to the first picture that is missing."""
    keep = max(1, sure)
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    while keep < len(times) and times[keep] - times[keep - 1] <= 1.5 * step:
        keep += 1
    return times[:keep]


def clock_of(video: av.VideoStream) -> Fraction:
    """Seconds of one step of the stream's times."""
    return video.time_base or Fraction(1, 1000)


def _rate(video: av.VideoStream, times: np.ndarray) -> Fraction | None:
    """Frames per second: the header's when the times agree with it, else measured."""
    header = Fraction(video.average_rate) if video.average_rate else None
    if len(times) < 2:
        return header
    measured = Fraction(len(times) - 1) / (int(times[-1] - times[0]) * clock_of(video))
    if header is not None and abs(measured / header - 1) < SAME_RATE:
        return header
    return measured.limit_denominator(1001)
