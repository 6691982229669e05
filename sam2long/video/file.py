"""Video files of any container that PyAV opens: which frames there are, and how to get at each of them.

What the decoder hands out in order is the truth. The container is read through once without decoding, which takes
milliseconds for a minute of video and gives the time of every frame. Where packets hide (edit lists), clocks start
again, or the first frames say otherwise, the file is decoded once instead. A key frame is where decoding may start,
and that is believed only when what comes out is a whole picture of that time; else frames are read in order.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from sam2long.errors import VideoError
from sam2long.video.source import FrameSource, Selection

# One packet of these is one picture, so counting packets counts frames. Others are decoded once to count.
PACKET_IS_FRAME = {"h264", "hevc", "av1", "vp9", "mjpeg", "mpeg2video", "mpeg4", "ffv1", "prores", "png", "gif"}
NOT_VIDEO = {"tty"}  # FFmpeg "plays" any text file
REVERSE_BYTES = 256 << 20  # decoded frames held at most while going backwards
TRUSTED = {"mov", "matroska"}  # containers whose packets are the frames, if the first ones are; others also at the end
SEAM = 8  # packets within which the clock must start again where files were joined
CHECKED = 32  # frames that are decoded to see whether the packets told the truth
SAME_RATE = 0.01  # header and measured frame rate may differ by this much and are the same


@dataclass(frozen=True, slots=True, eq=False)
class FileIndex:
    """Which frames a file has, in order of display."""

    times: np.ndarray  # [N] int64, in units of time_base; distinct, rising. Without a clock: 0, 1, 2, ...
    keys: np.ndarray  # [K] int64, times at which decoding can start; empty: only at the beginning
    time_base: Fraction
    rate: Fraction | None  # frames per second
    has_clock: bool  # False: frames are told apart by counting from the beginning
    damage: str | None  # where and why the file ends early
    by_packets: bool = False  # listed without decoding
    trusted: bool = True  # such a listing needs no look at its end

    def key_before(self, index: int) -> int:
        """Time of the last key frame at or before a frame; of the first frame where there is none."""
        at = int(np.searchsorted(self.keys, self.times[index], side="right")) - 1
        return int(self.keys[at]) if at >= 0 else int(self.times[0])

    def find(self, time: int | None) -> int | None:
        """Which frame has this time; None when it is not one of ours."""
        if time is None:
            return None
        at = int(np.searchsorted(self.times, time))
        return at if at < len(self.times) and self.times[at] == time else None


class VideoFileSource(FrameSource):
    """Frames of a video file.

    Rotation metadata is applied; pixels that are not square are left as they are. Each iteration has a
    decoder of its own, so several may run at once.
    """

    def __init__(self, path: Path, selection: Selection, prefetch: int) -> None:
        super().__init__(selection, prefetch)
        self.path = path
        if path.stat().st_size == 0:
            raise VideoError(f"{path} is empty; expected a video file")
        self.index = index_file(path)
        self._unlike = False  # whether pictures were missing although nothing was damaged
        self._coded_size: tuple[int, int] | None = None  # of the first picture; all others must have it too
        if self.index.by_packets and not self._is_as_listed():
            self.index = scan_file(path)
        first = next(self._decode(0), None)
        if first is None:
            raise VideoError(f"{path} has no frame that can be decoded; the file is damaged or not a video")
        first = first[1]
        self._check_not_empty(str(path))
        self.height, self.width = upright_rgb(first, VideoReformatter()).shape[:2]
        self.damage = self._damage_at_opening()
        self._lock = threading.Lock()
        self._cursor: Generator | None = None  # a decoder that stands before frame `_cursor_next`
        self._cursor_next = 0
        self._latest: tuple[int, np.ndarray] | None = None

    @property
    def available(self) -> int:
        return len(self.index.times)

    @property
    def native_fps(self) -> float | None:
        return None if self.index.rate is None else float(self.index.rate)

    @property
    def variable_rate(self) -> bool:
        """Whether frames are not evenly spaced in time."""
        if not self.index.has_clock or self.available < 3:
            return False
        steps = np.diff(self.index.times)
        # Containers round times to milliseconds or so; that alone is not a variable rate.
        rounding = max(1.0, 0.002 / float(self.index.time_base))
        return bool(steps.max() - steps.min() > rounding + 0.02 * np.median(steps))

    def _seconds(self, source_index: int) -> float | None:
        if not self.index.has_clock:
            return None if self.index.rate is None else float(source_index / self.index.rate)
        return float(int(self.index.times[source_index] - self.index.times[0]) * self.index.time_base)

    def close(self) -> None:
        with self._lock:
            if self._cursor is not None:
                self._cursor.close()
            self._cursor = self._latest = None

    def _is_as_listed(self) -> bool:
        """Whether the first frames, and in loose containers the last ones, are those that the packets announced."""
        last = self.available - 1
        looks = [(0, min(last, CHECKED))]
        if not self.index.trusted and self.index.damage is None:
            looks.append((self.index.find(self.index.key_before(last)) or 0, last))
        for first, end in looks:
            decoding = self._decode(first)
            next((at for at, _ in decoding if at == end), None)
            decoding.close()
        return not self._unlike

    # ---- reading ---------------------------------------------------------------------------------------------

    def _walk(self, first: int, step: int) -> Iterator[tuple[int, np.ndarray, float | None]]:
        self.damage = self._damage_at_opening()
        reformatter = VideoReformatter()
        frames = self._forward(first, step) if step > 0 else self._backward(first, -step)
        try:
            for at, frame in frames:
                yield at, upright_rgb(frame, reformatter), self._seconds(at)
        finally:
            frames.close()

    def _forward(self, first: int, step: int) -> Iterator[tuple[int, av.VideoFrame]]:
        decoding = self._decode(first)
        try:
            for at, frame in decoding:
                if (at - first) % step == 0:
                    yield at, frame
        finally:
            decoding.close()

    def _backward(self, first: int, step: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decode from a key frame up to where we are, keep the last part of it, hand that out backwards; again."""
        width, height = self._coded_size
        room = max(8, REVERSE_BYTES // (width * height * 3 // 2))
        last = first
        while last >= 0:
            begin = self.index.find(self.index.key_before(last)) or 0
            kept: deque[tuple[int, av.VideoFrame]] = deque(maxlen=room)
            decoding = self._decode(begin)
            try:
                for at, frame in decoding:
                    if (last - at) % step == 0:
                        kept.append((at, frame))
                    if at == last:
                        break
            finally:
                decoding.close()
            if not kept or kept[-1][0] != last:
                return  # damaged before we got there; `_decode` has said so
            lowest = kept[0][0]
            while kept:
                yield kept.pop()
            last = lowest - step

    def _read(self, source_index: int) -> np.ndarray:
        with self._lock:
            if self._latest is not None and self._latest[0] == source_index:
                return self._latest[1].copy()
            behind = self._cursor is None or self._cursor_next > source_index
            if behind or self.index.key_before(source_index) > self.index.times[self._cursor_next]:
                if self._cursor is not None:
                    self._cursor.close()
                self._cursor = self._decode(source_index)
            for at, frame in self._cursor:
                self._cursor_next = at + 1
                if at == source_index:
                    image = upright_rgb(frame, VideoReformatter())
                    if self._cursor_next == self.available:
                        self._cursor.close()
                        self._cursor = None
                    self._latest = at, image
                    return image.copy()
            self._cursor = None
            raise VideoError(f"{self.path} is damaged: {self.damage}; frame {source_index} cannot be read")

    def _decode(self, first: int) -> Generator[tuple[int, av.VideoFrame], None, None]:
        """(source index, frame) from `first` on without a gap. Where the file is damaged it ends and sets `damage`."""
        reason, seek_to = None, None
        expected = 0  # counted from the key frame on: a gap before `first` spoils `first` too
        if self.index.has_clock and self.index.key_before(first) > self.index.times[0]:
            seek_to = self.index.key_before(first)
            expected = self.index.find(seek_to)
        started = False
        with _open(self.path) as container:
            video = _video_stream(container, self.path)
            video.thread_type = "AUTO"
            lost: list[str] = []
            packets = _until_loss(_packets_from(container, video, seek_to), video, lost)
            count = 0
            while True:
                try:
                    packet = next(packets, None)
                    flushing = packet is None
                    frames = video.codec_context.decode(packet)
                except av.FFmpegError as error:
                    if reason is None:  # what the decoder still holds was there before the damage
                        reason = str(error.strerror or error)
                        packets = iter(())
                        continue
                    frames, flushing = [], True
                for frame in frames:
                    at = self.index.find(frame.pts) if self.index.has_clock else count
                    count += 1
                    if at is None or at < expected:
                        continue
                    if seek_to is not None and not started:
                        started = True
                        if at > expected or frame.pict_type in (PictureType.P, PictureType.B):
                            self.index = replace(self.index, keys=self.index.keys[:0])  # nowhere else to start from
                            yield from self._decode(first)
                            return
                    if at > expected:
                        flushing = True  # a picture is missing: damage, if there was any, has said so
                        break
                    self._coded_size = self._coded_size or (frame.width, frame.height)
                    if (frame.width, frame.height) != self._coded_size:
                        reason = f"the picture changes its size to {frame.width}x{frame.height}"
                        flushing = True
                        break
                    expected += 1
                    if at >= first:
                        yield at, frame
                if flushing or expected >= self.available:
                    break
        if expected < self.available:
            self._unlike |= reason is None and not lost
            reason = reason or next(iter(lost), "the decoder gave no picture")
            self.damage = f"video ends at frame {expected} of {self.available}: {reason}"

    def _damage_at_opening(self) -> str | None:
        stop = self.selection.stop
        return self.index.damage if stop is None or stop > self.available else None


def upright_rgb(frame: av.VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    """A decoded frame as players show it: [H, W, 3] uint8 RGB, turned and mirrored as its metadata says."""
    image = reformatter.reformat(frame, format="rgb24").to_ndarray()
    matrix = frame.side_data.get("DISPLAYMATRIX")
    return image if matrix is None else np.ascontiguousarray(oriented(image, np.frombuffer(matrix, np.int32)))


def oriented(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """One of the eight orientations of an image [H, W, ...].

    matrix: [9] int32, FFmpeg's display matrix; its a, b, c, d take a stored (x, y) to (a x + c y, b x + d y) on screen,
    y downwards. Angles between are taken as the nearest right one.
    """
    a, b, _, c, d = (int(value) for value in matrix[:5])
    if abs(b) + abs(c) > abs(a) + abs(d):  # columns become rows
        image, a, d = image.swapaxes(0, 1), c, b
    rows, columns = (slice(None, None, -1 if sign < 0 else 1) for sign in (d, a))
    return image[rows, columns]


def index_file(path: Path) -> FileIndex:
    """List a file's frames from its packets, without decoding.

    Raises:
        VideoError: not a video, or nothing in it.
    """
    with _open(path) as container:
        video = _video_stream(container, path)
        codec = video.codec_context.name
        listed, missing, expected_end = [], False, None
        unlike = False  # packets and pictures may not correspond
        lost: list[str] = []
        last_dts, end_seconds = None, 0.0
        try:
            streams = [stream for stream in container.streams if stream.type in ("video", "audio")]
            for packet in _until_loss(container.demux(streams), video, lost):
                if packet.size == 0:
                    continue
                if packet.pts is not None:
                    end_seconds = max(end_seconds, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                if packet.stream is not video:
                    continue
                unlike |= packet.is_discard or None not in (packet.dts, last_dts) and packet.dts < last_dts
                if listed or packet.is_keyframe:  # nothing can be made of what comes before the first key frame
                    listed.append((packet.pts, packet.is_keyframe))
                    last_dts = packet.dts
        except av.FFmpegError:
            missing = True
        missing |= bool(lost)
        if not listed:
            raise VideoError(f"{path} has no frames in it; the file is cut off or not a video")
        expected = _expected_packets(container, video)
        if container.format.name.startswith("matroska") and container.duration:
            expected_end = container.duration / av.time_base
        # AVI stores no times; FFmpeg's guess for reordered pictures changes after seeking.
        guessed = container.format.name == "avi" and codec in ("h264", "hevc")
        if unlike or guessed or codec not in PACKET_IS_FRAME or any(time is None for time, _ in listed):
            return scan_file(path, trust_times=not guessed)
        first_key = min(time for time, key in listed if key)
        times = np.array(sorted(time for time, _ in listed if time >= first_key), dtype=np.int64)
        if len(times) > 1 and (np.diff(times) == 0).any():
            return scan_file(path)
        keys = np.array(sorted(time for time, key in listed if key), dtype=np.int64)
        step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
        if expected is not None:
            missing |= len(listed) < expected
        elif expected_end is not None:
            missing |= expected_end - end_seconds > max(0.5, 5 * step * float(video.time_base))
        damage = None
        if missing:
            times = _before_damage(times, last_dts, step)
            keys = keys[keys <= times[-1]]
            of = f" of {expected}" if expected else ""
            damage = f"video ends at frame {len(times)}{of}: the file is cut off or incomplete"
        trusted = not TRUSTED.isdisjoint(container.format.name.split(","))
        return FileIndex(times, keys, video.time_base, _rate(video, times), True, damage, True, trusted)


def scan_file(path: Path, trust_times: bool = True) -> FileIndex:
    """List a file's frames by decoding it once: slow, for files whose packets do not tell."""
    times, keys, damage = [], [], None
    with _open(path) as container:
        video = _video_stream(container, path)
        video.thread_type = "AUTO"
        time_base = video.time_base
        lost: list[str] = []
        packets = _until_loss((packet for packet in container.demux(video) if packet.size), video, lost)
        while True:
            try:
                packet = next(packets, None)
                frames = video.codec_context.decode(packet)
            except av.FFmpegError as error:
                if damage is not None:
                    break
                damage = str(error.strerror or error)
                packets = iter(())  # what the decoder still holds was there before the damage
                continue
            for frame in frames:
                times.append(frame.pts)
                if frame.key_frame:
                    keys.append(frame.pts)
            if packet is None or packet.size == 0:
                break
        if not times:
            raise VideoError(f"{path} has no frame that can be decoded; the file is damaged or not a video")
        damage = damage or next(iter(lost), None)
        damage = damage and f"video ends at frame {len(times)}: {damage}"
        clocked = trust_times and None not in times and all(a < b for a, b in zip(times, times[1:], strict=False))
        if not clocked:
            rate = video.average_rate
            counted = np.arange(len(times), dtype=np.int64)
            return FileIndex(counted, counted[:0], time_base, rate and Fraction(rate), False, damage)
        known = np.array(times, dtype=np.int64)
        return FileIndex(known, np.array(keys, dtype=np.int64), time_base, _rate(video, known), True, damage)


def _before_damage(times: np.ndarray, last_dts: int | None, step: float) -> np.ndarray:
    """The times up to the first picture that is missing.

    Files store pictures in the order of decoding, so after a cut some later ones may be there without
    those between. What is missing is decoded after `last_dts` and shown later than that.
    """
    if last_dts is None:
        return times
    keep = max(1, int(np.searchsorted(times, last_dts, side="right")))
    while keep < len(times) and times[keep] - times[keep - 1] <= 1.5 * step:
        keep += 1
    return times[:keep]


def _expected_packets(container: av.container.InputContainer, video: av.VideoStream) -> int | None:
    """How many packets the file's own table of contents lists; None when there is no such table."""
    if "mp4" in container.format.name:
        return len(video.index_entries) or None  # edit lists applied, unlike the number in the header
    return video.frames or None if container.format.name == "avi" else None


def _rate(video: av.VideoStream, times: np.ndarray) -> Fraction | None:
    """Frames per second: the header's when the times agree with it, else measured."""
    header = Fraction(video.average_rate) if video.average_rate else None
    if len(times) < 2:
        return header
    measured = Fraction(len(times) - 1) / (int(times[-1] - times[0]) * video.time_base)
    if header is not None and abs(measured / header - 1) < SAME_RATE:
        return header
    return measured.limit_denominator(1001)


def _packets_from(
    container: av.container.InputContainer, video: av.VideoStream, seek_to: int | None
) -> Iterator[av.Packet]:
    """Packets from the key frame at `seek_to` or an earlier one on; from the beginning when seeking goes wrong."""
    for target in () if seek_to is None else (seek_to, max(seek_to - round(1 / video.time_base), 0)):
        container.seek(target, stream=video, backward=True)
        packets = (packet for packet in container.demux(video) if packet.size)
        for packet in packets:
            if packet.is_keyframe and packet.pts is not None:
                if packet.pts <= seek_to:
                    yield packet
                    yield from packets
                    return
                break
    if seek_to is not None:
        container.seek(video.start_time or 0, stream=video, backward=True)
    packets = (packet for packet in container.demux(video) if packet.size)
    started = False
    for packet in packets:
        started = started or packet.is_keyframe
        if started:
            yield packet


def _until_loss(packets: Iterator[av.Packet], video: av.VideoStream, lost: list[str]) -> Iterator[av.Packet]:
    """Packets up to one of the video that is cut; then the reason is put into `lost`.

    A packet that the container doubts is whole all the same where the clock starts again soon after it: two files were
    joined there, and the end of the first was not followed by what the container expects.
    """
    held: list[av.Packet] = []
    for packet in packets:
        if packet.stream is video and packet.size:
            if held and None not in (packet.dts, held[-1].dts) and packet.dts < held[-1].dts:
                yield from held
                held = []
            if held or packet.is_corrupt:
                held.append(packet)
                if len(held) > SEAM:
                    break
                continue
        yield packet
    if held:
        lost.append("the data is incomplete")


def _open(path: Path) -> av.container.InputContainer:
    try:
        container = av.open(f"file:{path}")  # or FFmpeg takes what stands before a colon for a protocol
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(
            f"{path} cannot be opened as a video ({getattr(error, 'strerror', None) or error}); "
            "it is not a video, or it is cut off before its table of contents"
        ) from None
    if container.format.name in NOT_VIDEO:
        container.close()
        raise VideoError(f"{path} is a text file; expected a video")
    return container


def _video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    """The first video stream that is not a cover picture."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            if stream.codec_context is None:
                raise VideoError(f"{path} is coded in a way that this FFmpeg cannot decode; convert it to H.264")
            return stream
    raise VideoError(f"{path} has no video in it; expected a file with a video track")
