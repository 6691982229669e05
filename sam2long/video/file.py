"""Video files of any container that PyAV opens.

What the decoder hands out, in its order, are the frames; packets only foretell them. Where the decoder does not do as
foretold, the file is decoded once to list its frames. Where packets say that decoding may start, it is tried first:
the frames have to be those that come from further back. So going to a frame and reading up to it give the same pixels.
(Where packets are wrong about how many frames came earlier, that shows only when those are read.)
"""

from __future__ import annotations

import threading
import weakref
import zlib
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from sam2long.errors import VideoError
from sam2long.video.awake import forget, stays_awake
from sam2long.video.decoding import decode_file, open_container, video_stream
from sam2long.video.depth import Depth
from sam2long.video.index import index_file, scan_file
from sam2long.video.picture import Looks, deep_values, is_deep, upright_rgb
from sam2long.video.source import FrameSource, Selection
from sam2long.video.timecode import read_timecode

TRIED = 8  # frames that are compared before a place to start is believed
REVERSE_BYTES = 256 << 20  # decoded frames held at most while going backwards


class _OtherFrames(Exception):
    """The decoder does not hand out what the index says."""


Frames = Generator[tuple[int, av.VideoFrame], None, None]


class VideoFileSource(FrameSource):
    """Frames of a video file.

    The display matrix is applied, also where it mirrors; pixels that are not square are left as they are and noted.
    Each iteration has a decoder of its own, so several may run at once.
    """

    def __init__(self, path: Path, selection: Selection, prefetch: int) -> None:
        super().__init__(selection, prefetch)
        self.path = path
        if path.stat().st_size == 0:
            raise VideoError(f"{path} is empty; expected a video file")
        self.index = index_file(path)
        self._tried: set[int] = set()  # places to start that are believed
        self._coded_size: tuple[int, int] | None = None  # of the first picture; all others must have it too
        with closing(self._decode(0)) as frames:
            first = [frame for _, frame in islice(frames, TRIED)]
        if not first:
            raise VideoError(f"{path} has no frame that can be decoded; the file is damaged or not a video")
        self._check_not_empty(str(path))
        with open_container(path) as container:
            self.looks = Looks.of(video_stream(container, path), first[0])
            self.native_timecode = read_timecode(container, video_stream(container, path))
        self.height, self.width = upright_rgb(first[0], VideoReformatter()).shape[:2]
        depth = Depth.sample(self.available, lambda at: self._deep_values(at, first[0])) if is_deep(first[0]) else None
        self._depth = depth if depth is not None and depth.stretched else None
        self.damage = self._damage_at_opening()
        self._lock = threading.Lock()
        self._cursor: Generator | None = None  # a decoder that stands before frame `_cursor_next`
        self._cursor_next = 0
        self._latest: tuple[int, np.ndarray] | None = None

    @property
    def available(self) -> int:
        return len(self.index.times)

    @property
    def notes(self) -> Sequence[str]:  # type: ignore[override]
        stretched = self._depth.notes() if self._depth is not None else []
        return [*self.looks.notes(), *stretched, *([self.index.note] if self.index.note else [])]

    @property
    def native_fps(self) -> float | None:
        return None if self.index.rate is None else float(self.index.rate)

    @property
    def variable_rate(self) -> bool:  # type: ignore[override]
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
            self._let_go()

    def sleep(self) -> bool:
        """Let go of the decoder that waits for the next single frame; it is opened again when one is asked for."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            self._let_go()
        finally:
            self._lock.release()
        return True

    def _let_go(self) -> None:
        if self._cursor is not None:
            self._cursor.close()
        self._cursor = self._latest = None
        forget(self)

    # ---- reading ---------------------------------------------------------------------------------------------

    def _walk(self, first: int, step: int) -> Iterator[tuple[int, np.ndarray, float | None]]:
        self.damage = self._damage_at_opening()
        reformatter = VideoReformatter()
        with closing(self._forward(first, step) if step > 0 else self._backward(first, -step)) as frames:
            for at, frame in frames:
                yield at, upright_rgb(frame, reformatter, self._depth), self._seconds(at)

    def _forward(self, first: int, step: int) -> Frames:
        with closing(self._decode(first)) as decoding:
            for at, frame in decoding:
                if (at - first) % step == 0:
                    yield at, frame

    def _backward(self, first: int, step: int) -> Frames:
        """Decode from a key frame up to where we are, keep the last part of it, hand that out backwards; again."""
        assert self._coded_size is not None  # something has been decoded
        width, height = self._coded_size
        room = max(8, REVERSE_BYTES // (width * height * 3 // 2))
        last = first
        while last >= 0:
            kept: deque[tuple[int, av.VideoFrame]] = deque(maxlen=room)
            with closing(self._decode(self._start(last))) as decoding:
                for at, frame in decoding:
                    if (last - at) % step == 0:
                        kept.append((at, frame))
                    if at == last:
                        break
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
            if behind or self.index.start_before(source_index)[0] > self._cursor_next:
                if self._cursor is not None:
                    self._cursor.close()
                # The decoder must not keep its source alive: one that is dropped gives its file back at once.
                self._cursor = VideoFileSource._decode(weakref.proxy(self), source_index)
            for at, frame in self._cursor or ():
                self._cursor_next = at + 1
                if at == source_index:
                    image = upright_rgb(frame, VideoReformatter(), self._depth)
                    if self._cursor_next == self.available:
                        self._let_go()
                    else:
                        stays_awake(self)
                    self._latest = at, image
                    return image.copy()
            self._cursor = None
            why = f"is damaged: {self.damage}" if self.damage else f"has {self.available} frames after all"
            raise VideoError(f"{self.path} {why}; frame {source_index} cannot be read")

    def _decode(self, first: int) -> Generator[tuple[int, av.VideoFrame], None, None]:
        """(source index, frame) from `first` on without a gap. Where the file is damaged it ends and sets `damage`."""
        at = first
        while True:
            try:
                with closing(VideoFileSource._decode_from(self, self._start(at))) as frames:  # self: also a proxy
                    for found, frame in frames:
                        if found >= at:
                            at = found + 1
                            yield found, frame
                return
            except _OtherFrames:
                self._distrust()

    def _decode_from(self, start: int) -> Generator[tuple[int, av.VideoFrame], None, None]:
        """(source index, frame) from a place to start on, in order and without a gap.

        Raises:
            _OtherFrames: these are not the frames of the index.
        """
        index, at, broken = self.index, start, None
        seek_to = int(index.times[start]) if start else None
        with closing(decode_file(self.path, seek_to)) as decoding:
            for frame, broken in decoding:
                if frame is None:
                    break
                if seek_to is not None and frame.pts is not None and frame.pts < seek_to:
                    continue
                if at == len(index.times) and index.damage:
                    return  # what comes behind a gap does not count
                if at == len(index.times) or (index.has_clock and index.find(frame.pts) != at):
                    if broken:
                        break  # there is a gap before this one
                    raise _OtherFrames
                self._coded_size = self._coded_size or (frame.width, frame.height)
                if (frame.width, frame.height) != self._coded_size:
                    broken = f"the picture changes its size to {frame.width}x{frame.height}"
                    break
                yield at, frame
                at += 1
        if at < len(index.times):
            if broken is None and not index.decoded:
                raise _OtherFrames
            self.damage = f"video ends at frame {at} of {len(index.times)}: {broken or 'there is no more data'}"

    def _start(self, index: int) -> int:
        """Where decoding has to begin for a frame: at the key frame before it, if that can be believed."""
        start, before = self.index.start_before(index)
        if start == 0 or start in self._tried:
            return start
        if self._sums(start, start) == self._sums(before, start):
            self._tried.add(start)
            return start
        self._distrust()
        return self._start(index)

    def _sums(self, start: int, first: int) -> list[int]:
        """Checksums of some frames from `first` on when decoding begins at `start`; none when they do not come."""
        reformatter = VideoReformatter()
        try:
            with closing(self._decode_from(start)) as frames:
                chosen = (frame for at, frame in frames if at >= first)
                return [zlib.crc32(upright_rgb(frame, reformatter).data) for frame in islice(chosen, TRIED)]
        except _OtherFrames:
            return []

    def _distrust(self) -> None:
        """What packets say is not so: read in order, and if that does not help, list what the decoder hands out."""
        if len(self.index.starts) > 1:
            self.index = replace(self.index, starts=self.index.starts[:1])
        elif not self.index.decoded:
            told, found = self.available, scan_file(self.path)
            if len(found.times) > told:
                note = f"the video has {len(found.times)} frames and its packets foretold {told}; the others came late"
                found = replace(found, note=note)
            self.index = found
        else:
            raise VideoError(f"{self.path} gives other frames each time it is decoded; convert it to H.264 first")

    def _deep_values(self, index: int, otherwise: av.VideoFrame) -> np.ndarray:
        with closing(self._decode(index)) as frames:
            return deep_values(next((frame for _, frame in frames), otherwise))

    def _damage_at_opening(self) -> str | None:
        stop = self.selection.stop
        return self.index.damage if stop is None or stop > self.available else None
