"""Write an H.264 file that plays everywhere, all or nothing, with the sound of another file."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from sam2long.errors import VideoError
from sam2long.video.file import VideoFileSource
from sam2long.video.model_input import check_image
from sam2long.video.picture import BT2020, ORDINARY, Looks, usual_matrix
from sam2long.video.source import FrameSource, Selection

COPIED = {  # sound that a container takes as it is; other kinds are coded again, as AAC
    "mp4": {"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"},
    "mov": {"aac", "mp3", "ac3", "eac3", "alac"},
    "webm": {"opus", "vorbis"},
}
AAC_FRAME = 1024  # samples that an AAC encoder takes at a time
LIMITED = 1  # 16 to 235, as players expect
FINE_CLOCK = Fraction(1, 90_000)  # for frames that bring their own times


class VideoWriter:
    """Writes frames to an H.264 mp4 (yuv420p, index first), which appears at `path` on `close` or not at all.

    H.264 in yuv420p needs even sides: an odd one gets its last row or column twice.

        with VideoWriter("overlay.mp4", source.fps, source.width, source.height, audio_from=source) as out:
            out.write(image)

    Args:
        path: of the file; replaced when it exists.
        fps: frames per second; 29.97 and the like become the fractions they stand for.
        width, height: of the frames.
        audio_from: a video file (path) or a source opened from one. The sound of the selected range is kept;
            with a stride above 1 there is none. Anything without sound, an array say, gives none.
        looks: of the video that the frames are from: the shape of its pixels, and that it is HDR.
        timecode: SMPTE timecode of the first frame, "01:00:00:00"; None for none.
        crf: x264's quality, 0 (lossless) to 51.
        preset: x264's speed.
    Attributes:
        audio: "copied", "encoded" or None.
        audio_note: why sound that there is was left out; else None.
    """

    longest_side: int | None = 16384  # x264's
    container_format = "mp4"
    container_options = {"movflags": "+faststart"}
    keeps_pixel_aspect = True
    even_sides = True

    def __init__(
        self,
        path: str | os.PathLike,
        fps: float | Fraction,
        width: int,
        height: int,
        *,
        audio_from: str | os.PathLike | FrameSource | None = None,
        looks: Looks = ORDINARY,
        timecode: str | None = None,
        crf: int = 20,
        preset: str = "veryfast",
    ) -> None:
        self.path = Path(path)
        self.width, self.height = width, height
        self.frames_written = 0
        self._looks = looks
        if not (isinstance(fps, (int, float, Fraction)) and math.isfinite(fps) and fps > 0):
            raise VideoError(f"fps is {fps!r}; expected a number above 0")
        if not all(isinstance(side, (int, np.integer)) and side > 0 for side in (width, height)):
            raise VideoError(f"size is {width!r} x {height!r}; expected positive integers")
        if max(width, height) > (self.longest_side or math.inf):
            raise VideoError(
                f"{self.path.name} cannot hold pictures of {width} x {height}: its codec takes {self.longest_side} "
                "pixels a side at most"
            )
        self._rate = Fraction(fps).limit_denominator(1001)
        # Absolute: FFmpeg takes a:b.mp4 for an address.
        self._partial = Path(os.path.abspath(path)).with_name(f".{self.path.name}.{os.getpid()}.partial")
        self._reformatter = VideoReformatter()
        self._last_pts = -1
        self._container: av.container.OutputContainer | None = None
        try:
            self._partial.touch()  # a folder that is missing or closed shows now, and not with the first frame
            self._container = av.open(
                str(self._partial), "w", format=self.container_format, container_options=self.container_options
            )
            self._video = self._add_video(crf, preset)
            if timecode is not None:
                self._video.metadata["timecode"] = timecode
            self._say_looks(self._video.codec_context)
            self._sound = _Sound.find(audio_from, self._container)
        except (av.FFmpegError, OSError) as error:
            self.abort()
            raise VideoError(f"cannot write {self.path}: {getattr(error, 'strerror', None) or error}") from None
        except BaseException:
            self.abort()
            raise

    @property
    def _out(self) -> av.container.OutputContainer:
        """While the file is open."""
        assert self._container is not None
        return self._container

    @property
    def audio(self) -> str | None:
        return self._sound.how

    @property
    def audio_note(self) -> str | None:
        return self._sound.note

    def write(self, image: np.ndarray, time: float | None = None) -> None:
        """Add a frame.

        Args:
            image: [H, W, 3] uint8 RGB, of the size given at the start.
            time: seconds after the first frame, for a variable frame rate; pass it for all frames or for none.
        """
        if self._container is None:
            raise VideoError(f"{self.path} is closed; frames cannot be added")
        self._check(image, f"frame {self.frames_written}")
        if image.shape[:2] != (self.height, self.width):
            raise VideoError(
                f"frame {self.frames_written} is {image.shape[1]}x{image.shape[0]}; "
                f"expected {self.width}x{self.height} (width x height), as at the start"
            )
        frame = self._picture(image)
        context = self._video.codec_context
        if self.frames_written == 0:
            context.time_base = 1 / self._rate if time is None else FINE_CLOCK
        pts = self.frames_written if time is None else round(time / FINE_CLOCK)
        if pts <= self._last_pts:
            raise VideoError(f"frame {self.frames_written} has time {time}; expected times that rise")
        self._last_pts = pts
        frame.pts, frame.time_base = pts, context.time_base
        self._guarded(lambda: self._out.mux(self._video.encode(frame)))
        self.frames_written += 1
        # Sound goes in as far as the pictures have come; the muxer sorts the two.
        self._guarded(lambda: self._sound.write(float((pts + 1) * context.time_base)))

    def close(self) -> None:
        """Finish the file and put it in its place. Closing twice does nothing."""
        if self._container is None:
            return
        if self.frames_written == 0:
            self.abort()
            raise VideoError(f"no frames were written to {self.path}; there is no file")
        self._guarded(self._finish)
        self._container = None

    def abort(self) -> None:
        """Give up: nothing stays behind, and a file that was at `path` stays as it was."""
        if self._container is not None:
            # An unfinished file may refuse to be finished; it goes anyway.
            with contextlib.suppress(av.FFmpegError, OSError, ValueError):
                self._container.close()
            self._container = None
        if getattr(self, "_sound", None) is not None:
            self._sound.close()
        self._partial.unlink(missing_ok=True)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type | None, *exc: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _check(self, image: np.ndarray, name: str) -> None:
        check_image(image, name)

    def _picture(self, image: np.ndarray) -> av.VideoFrame:
        """An image as the encoder takes it."""
        pad = self.height % 2, self.width % 2
        if any(pad):
            image = np.pad(image, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="edge")
        return self._coded(image, "rgb24", "yuv420p")

    def _coded(self, image: np.ndarray, layout: str, pixel_format: str) -> av.VideoFrame:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=layout)
        # The same before and after, or swscale takes HDR for something to convert.
        frame.color_primaries, frame.color_trc = self._primaries, self._transfer  # type: ignore[assignment]
        frame.colorspace = self._matrix  # PyAV 17 takes dst_colorspace=BT2020 for BT.601; RGB itself has no matrix
        return self._reformatter.reformat(frame, format=pixel_format)

    def _add_video(self, crf: int, preset: str) -> av.VideoStream:
        codec = "libx264" if "libx264" in av.codecs_available else "h264"
        video: Any = self._out.add_stream(codec, rate=self._rate)
        video.width, video.height = self.width + self.width % 2, self.height + self.height % 2
        video.pix_fmt = "yuv420p"
        if codec == "libx264":
            # Without this, x264's own assembly writes now and then another file from the same frames.
            video.options = {"crf": str(crf), "preset": preset, "x264-params": "cpu-independent=1"}
        return video

    def _say_looks(self, context: av.VideoCodecContext) -> None:
        looks = self._looks
        self._matrix = usual_matrix(self.width, self.height) if looks.transfer is None else BT2020
        self._primaries = self._matrix if looks.transfer is None else looks.primaries
        self._transfer = self._matrix if looks.transfer is None else looks.transfer
        context.colorspace, context.color_range = self._matrix, LIMITED
        context.color_primaries, context.color_trc = self._primaries, self._transfer  # type: ignore[assignment]
        context.sample_aspect_ratio = self._looks.pixel_aspect

    def _finish(self) -> None:
        self._out.mux(self._video.encode(None))
        end = float((self._last_pts + 1) * self._video.codec_context.time_base)
        if self._video.codec_context.time_base == FINE_CLOCK:
            end += float(1 / self._rate)
        self._sound.write(end, last=True)
        self._out.close()
        os.replace(self._partial, self.path)

    def _guarded(self, action) -> None:
        try:
            action()
        except (av.FFmpegError, OSError) as error:
            self.abort()
            raise VideoError(f"writing {self.path} failed: {getattr(error, 'strerror', None) or error}") from None
        except BaseException:
            self.abort()
            raise


class _Sound:
    """The sound of a stretch of a file, in packets for another one.

    Attributes:
        how: "copied", "encoded" or None.
        note: why sound that there is was left out.
    """

    def __init__(self, how: str | None = None, note: str | None = None) -> None:
        self.how = how
        self.note = note
        self._packets: Iterator[tuple[float, list[av.Packet]]] = iter(())
        self._next: tuple[float, list[av.Packet]] | None = None
        self._out: av.container.OutputContainer | None = None
        self._source: av.container.InputContainer | None = None

    @classmethod
    def find(cls, origin: str | os.PathLike | FrameSource | None, out: av.container.OutputContainer) -> _Sound:
        """Add a sound track to `out` if there is sound for it; must come before the first packet."""
        if origin is None:
            return cls()
        selection, file = Selection(), None
        if isinstance(origin, FrameSource):
            selection = origin.selection
            file = origin if isinstance(origin, VideoFileSource) else None
            if file is None:
                return cls()
        where = os.path.abspath(file.path if file else str(origin))
        container = av.open(where, metadata_errors="replace")
        try:
            if not container.streams.audio or container.streams.audio[0].codec_context is None:
                container.close()
                return cls()
            codec = _codec(container.streams.audio[0])
            if out.format.name == "webm" and codec not in COPIED["webm"]:
                container.close()
                return cls(note=f"WebM takes Opus and Vorbis, and the video has {codec}")
            if selection.stride != 1:
                container.close()
                return cls(note=f"with every {selection.stride}th frame the pictures run faster than the sound")
            return cls._start(container, file, selection, out)
        except BaseException:
            container.close()
            raise

    @classmethod
    def _start(
        cls,
        container: av.container.InputContainer,
        file: VideoFileSource | None,
        selection: Selection,
        out: av.container.OutputContainer,
    ) -> _Sound:
        audio = container.streams.audio[0]
        begin = 0.0
        if file is not None and file.index.has_clock:
            begin = float(int(file.index.times[selection.start]) * file.index.time_base)
        elif container.start_time is not None:
            begin = container.start_time / av.time_base
        sound = cls()
        sound._out, sound._source = out, container
        if _codec(audio) in COPIED[out.format.name]:
            track = out.add_stream_from_template(audio)
            sound.how = "copied"
            sound._packets = _copied(container, audio, track, begin)
        else:
            rate = audio.codec_context.sample_rate
            track = out.add_stream("aac", rate=rate, layout="mono" if audio.channels == 1 else "stereo")
            sound.how = "encoded"
            sound._packets = _encoded(container, audio, track, begin)
        return sound

    def write(self, until: float, last: bool = False) -> None:
        """Pass on what sounds before `until` seconds; `last` lets go of the file."""
        if self._source is None:
            return
        try:
            while True:
                self._next = self._next or next(self._packets, None)
                if self._next is None or self._next[0] >= until:
                    break
                for packet in self._next[1]:
                    if self._out is not None:
                        self._out.mux_one(packet)
                self._next = None
        except av.FFmpegError as error:
            # Damaged sound is no reason to lose the pictures.
            self.note = f"the sound breaks off: {error.strerror or error}"
            warnings.warn(self.note, stacklevel=3)
            self.close()
        if last:
            self.close()

    def close(self) -> None:
        if self._source is not None:
            close = getattr(self._packets, "close", None)
            if close is not None:
                close()
            self._source.close()
            self._source = None


def _codec(audio: av.AudioStream) -> str:
    """The codec without the name of the library that decodes it: opus, mp3, ..."""
    return audio.codec_context.name.removeprefix("lib").split("_")[0]


def _copied(
    container: av.container.InputContainer, audio: av.AudioStream, track: av.AudioStream, begin: float
) -> Iterator[tuple[float, list[av.Packet]]]:
    """(seconds, packets) from `begin` on, as they are in the file."""
    _seek(container, begin)
    offset = round(begin / (audio.time_base or 1))
    for packet in container.demux(audio):
        if packet.size == 0 or packet.pts is None or packet.pts < offset or packet.is_corrupt:
            continue
        packet.pts -= offset
        packet.dts = packet.pts
        packet.stream = track
        yield float(packet.pts * packet.time_base), [packet]


def _encoded(
    container: av.container.InputContainer, audio: av.AudioStream, track: av.AudioStream, begin: float
) -> Iterator[tuple[float, list[av.Packet]]]:
    """(seconds, packets) from `begin` on, decoded and coded again."""
    _seek(container, begin)
    rate = audio.codec_context.sample_rate
    resampler = av.AudioResampler(format="fltp", layout=track.layout.name, rate=rate, frame_size=AAC_FRAME)
    samples: int | None = None  # position of the next sample since `begin`: counted, for some files round their times
    for frame in itertools.chain(container.decode(audio), [None]):
        if frame is not None and frame.time is not None and frame.time < begin:
            continue
        if samples is None and frame is not None:
            samples = round(((frame.time or begin) - begin) * rate)
        for part in resampler.resample(frame):
            samples = samples or 0
            part.pts, part.time_base = samples, Fraction(1, rate)
            yield samples / rate, track.encode(part)
            samples += part.samples
    yield (samples or 0) / rate, track.encode(None)


def _seek(container: av.container.InputContainer, begin: float) -> None:
    start = (container.start_time or 0) / av.time_base
    if begin > start + 1.0:
        container.seek(int((begin - 1.0) * av.time_base), backward=True)
