"""Frames of a source through a thread: in order, or always the latest one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from sam2long.errors import VideoError
from sam2long.video.source import Frame, FrameSource

PATIENCE = 0.1  # seconds between looks at whether to stop
GOODBYE = 2.0  # seconds to wait for the thread


class FrameFeed:
    """Reads a source in a thread that holds one frame.

    The thread does not wait for the network, a camera or a decoder, so the consumer can be stopped at any time.

    Args:
        source: opened without prefetch; closed at the end.
        latest: a frame that nobody has taken when the next one comes is dropped: the consumer never falls behind.
            Otherwise the source waits for the consumer, and no frame is left out.
        realtime: hand frames of a file out at the times at which a player would show them, as a camera does.
    Attributes:
        dropped: how many frames were dropped.
    Raises:
        VideoError: realtime with a source that has neither times nor a frame rate.
    """

    def __init__(self, source: FrameSource, *, latest: bool = False, realtime: bool = False) -> None:
        if realtime and source.fps is None and source.time(0) is None:
            raise VideoError("this source has no clock, so it cannot be played in real time; leave --realtime out")
        self._source = source
        self._latest = latest
        self._realtime = realtime
        self.dropped = 0
        self._change = threading.Condition()
        self._slot: Frame | None = None
        self._ended = False
        self._stopped = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="frame feed", daemon=True)

    def stop(self) -> None:
        """End the iteration after the frame that was taken last. May be called from anywhere, also twice."""
        self._stopped = True

    def close(self) -> None:
        """Stop, and let the thread let go of the source; one that waits for the network is left behind."""
        self.stop()
        if self._thread.is_alive():
            self._thread.join(GOODBYE)
        elif not self._ended:
            self._source.close()

    def __iter__(self) -> Iterator[Frame]:
        self._thread.start()
        try:
            while (frame := self._take()) is not None:
                yield frame
        finally:
            self.stop()

    def _take(self) -> Frame | None:
        with self._change:
            while self._slot is None and not self._ended and not self._stopped:
                self._change.wait(PATIENCE)
            if self._stopped:
                return None
            if self._slot is None:
                if self._error is not None:
                    raise self._error
                return None
            frame, self._slot = self._slot, None
            self._change.notify_all()
            return frame

    def _read(self) -> None:
        begin = None
        frames = self._source.iter_from(0)
        try:
            for frame in frames:
                begin = time.monotonic() if begin is None else begin
                if self._realtime:
                    self._wait_for(begin + self._due(frame))
                with self._change:
                    while not self._latest and self._slot is not None and not self._stopped:
                        self._change.wait(PATIENCE)
                    if self._stopped:
                        return
                    self.dropped += self._slot is not None
                    self._slot = frame
                    self._change.notify_all()
        except Exception as error:  # passed on to the consumer
            self._error = error
        finally:
            frames.close()
            self._source.close()
            with self._change:
                self._ended = True
                self._change.notify_all()

    def _due(self, frame: Frame) -> float:
        """Seconds after the first frame."""
        if frame.time is not None:
            return frame.time - (self._source.time(0) or 0.0)
        return frame.index / (self._source.fps or 1.0)

    def _wait_for(self, moment: float) -> None:
        while not self._stopped and (left := moment - time.monotonic()) > 0:
            time.sleep(min(left, PATIENCE))
