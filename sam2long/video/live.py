"""Cameras and network streams: what comes, how it ends, and connecting again."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from sam2long.errors import VideoError
from sam2long.video.decoding import video_stream
from sam2long.video.picture import Looks, upright_rgb
from sam2long.video.source import Selection
from sam2long.video.stream import StreamSource

CAMERA_FORMATS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}
NETWORK_TIMEOUT = (20.0, 20.0)  # seconds to open, seconds to wait for a frame
PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 30.0, 30.0)  # seconds between tries to connect again


class CameraSource(StreamSource):
    """A camera by its number, or a network address that PyAV opens (rtsp, rtmp, udp, http).

    Args:
        reconnect: connect again when it breaks off, for two minutes; frames are then numbered on.
    Attributes:
        damage: how it broke off; None while it runs, and when it has ended by itself.
        lost: frames that are known to be missing: those that could not be decoded, and while there was no connection.
    """

    def __init__(self, address: str | int, selection: Selection, prefetch: int, *, reconnect: bool = False) -> None:
        self._name = f"camera {address}" if isinstance(address, int) else address
        self._address, self._reconnect = address, reconnect
        self.lost = 0
        self._told: list[str] = []
        self._size: tuple[int, int] | None = None  # (height, width) as displayed
        self._last_time: float | None = None
        self._last_moment = time.monotonic()
        container, video = self._connect()
        rate = video.average_rate
        super().__init__(
            self._frames(container), selection, prefetch, name=self._name, fps=float(rate) if rate else None
        )

    @property
    def notes(self) -> Sequence[str]:  # type: ignore[override]
        return self._told

    def _connect(self) -> tuple[av.container.InputContainer, av.VideoStream]:
        camera_format, pattern = CAMERA_FORMATS.get(sys.platform, CAMERA_FORMATS["linux"])
        try:
            if isinstance(self._address, int):
                container = av.open(pattern.format(self._address), format=camera_format)
            else:
                container = av.open(self._address, timeout=NETWORK_TIMEOUT, metadata_errors="replace")
        except (OSError, ValueError, av.FFmpegError) as error:
            raise VideoError(f"{self._name} cannot be opened ({getattr(error, 'strerror', None) or error})") from None
        try:
            return container, video_stream(container, self._name)
        except BaseException:
            container.close()
            raise

    def _frames(self, container: av.container.InputContainer) -> Iterator[tuple[np.ndarray, float | None]]:
        """(image, seconds) as long as there is a connection."""
        count = 0
        while True:
            with container:
                video = video_stream(container, self._name)
                for item in self._of_one_connection(container, video):
                    count += 1
                    yield item
                in_header = video.frames
            if self.damage is None:
                return
            self.damage = f"{self._name} broke off after {count} frames: {self.damage}"
            again = self._reconnect and not self._has_changed
            connected = self._connect_again() if again else None
            if connected is None:
                self.lost += max(in_header - count, 0)
                return
            container = connected
            gone = time.monotonic() - self._last_moment
            self.lost += round(gone * (self._fps or 0))
            self._told.append(f"{self.damage}; it was back after {gone:.1f} seconds")
            self.damage = None

    def _of_one_connection(
        self, container: av.container.InputContainer, video: av.VideoStream
    ) -> Iterator[tuple[np.ndarray, float | None]]:
        """Until it ends; sets `damage` to the reason if that is not the end of the video."""
        reformatter, begun, shift = VideoReformatter(), False, None
        packets = container.demux(video)
        self._has_changed = False
        while True:
            try:
                packet = next((packet for packet in packets if packet.size), None)
            except (av.FFmpegError, OSError) as error:
                self.damage, packet = str(error.strerror or error), None
            if packet is None and self._reconnect and container.size <= 0:
                self.damage = self.damage or "there was no more data"  # what has no known end has not come to it
            try:
                frames = video.codec_context.decode(packet)
            except av.FFmpegError:
                self.lost += begun  # before its first key frame a stream has nothing to lose
                frames = []
            for frame in frames:
                if self._size is None:
                    self.looks = Looks.of(video, frame)
                    self._told += self.looks.notes()
                image = upright_rgb(frame, reformatter)
                self._size = self._size or image.shape[:2]
                if image.shape[:2] != self._size:
                    self._has_changed = True
                    self.damage = (
                        f"the picture changes its size from {self._size[1]}x{self._size[0]} to "
                        f"{image.shape[1]}x{image.shape[0]} (width x height); start anew for the new size"
                    )
                    return
                begun = True
                # Not frame.time: what a decoder holds at the end has lost its time base.
                clock = None if frame.pts is None else float(frame.pts * (video.time_base or 0))
                shift = self._shift(clock) if shift is None else shift
                seconds = None if clock is None else clock + shift
                if seconds is not None and self._last_time is not None and seconds <= self._last_time:
                    shift = self._shift(clock)  # the stream's clock has started again
                    seconds = (clock or 0.0) + shift
                self._last_time, self._last_moment = seconds, time.monotonic()
                yield image, seconds
            if packet is None:
                return

    def _shift(self, clock: float | None) -> float:
        """What to add to a stream's clock, so that times begin at 0 and go on after a break as time went by."""
        if clock is None:
            return 0.0
        if self._last_time is None:
            return -clock
        gone = max(time.monotonic() - self._last_moment, 1 / (self._fps or 25.0))
        return self._last_time + gone - clock

    def _connect_again(self) -> av.container.InputContainer | None:
        for pause in PAUSES:
            time.sleep(pause)
            try:
                return self._connect()[0]
            except VideoError:
                continue
        return None
