"""What the decoder hands out of a video file, in its order."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import av

from sam2long.errors import VideoError, out_of_files

NOT_VIDEO = {"tty"}  # FFmpeg "plays" any text file
CORRUPT_IS_A_GUESS = {"mpegts"}  # a counter has jumped, as where two files were joined; the data may be whole


def decode_file(
    path: Path, seek_to: int | None = None
) -> Generator[tuple[av.VideoFrame | None, str | None], None, None]:
    """(frame, None) for all that the decoder hands out, in its order, as long as nothing is wrong.

    After that (frame, why it broke off) for what the decoder still holds, some of which may come after a gap, and
    at last (None, why it broke off).

    Args:
        seek_to: time of a key frame to begin at, in units of the stream; earlier frames may come first. None: begin
            at the beginning.
    """
    with open_container(path) as container:
        video = video_stream(container, path)
        video.thread_type = "AUTO"
        try:
            yield from _decode(container, video, seek_to)
        finally:
            # PyAV frees a decoder without letting go of Python, and one of its threads may wait for Python to log
            # something (torchvision up to 0.24 turns that on): for ever. After this they have nothing to do.
            video.codec_context.flush_buffers()


def _decode(
    container: av.container.InputContainer, video: av.VideoStream, seek_to: int | None
) -> Generator[tuple[av.VideoFrame | None, str | None], None, None]:
    reason, begun = None, False
    try:
        if seek_to is not None:
            container.seek(seek_to, stream=video, backward=True)
    except av.FFmpegError:
        return  # nothing from there: it is no place to start
    packets: Iterator[av.Packet] = (packet for packet in container.demux(video) if packet.size)
    packet: av.Packet | None
    while True:
        packet = None
        try:
            packet = next(packets, None)
            if packet is not None and packet.is_corrupt and container.format.name not in CORRUPT_IS_A_GUESS:
                packet, reason = None, reason or "the data is incomplete"
            frames = video.codec_context.decode(packet)
        except av.FFmpegError as error:
            if packet is not None and not begun:
                continue  # nothing can be made of what comes before the first key frame
            if reason is not None:
                break
            reason, packets = str(error.strerror or error), iter(())
            continue
        for frame in frames:
            begun = True
            yield frame, reason
        if packet is None:
            break
    if reason is not None:
        yield None, reason


def open_container(path: Path) -> av.container.InputContainer:
    try:
        # "file:", or FFmpeg takes what stands before a colon for a protocol
        container = av.open(f"file:{path}", metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        if (remedy := out_of_files(error)) is not None:
            raise VideoError(f"{path} cannot be opened: {remedy}") from None
        raise VideoError(
            f"{path} cannot be opened as a video ({getattr(error, 'strerror', None) or error}); "
            "it is not a video, or it is cut off before its table of contents"
        ) from None
    if container.format.name in NOT_VIDEO:
        container.close()
        raise VideoError(f"{path} is a text file; expected a video")
    return container


def video_stream(container: av.container.InputContainer, path: Path | str) -> av.VideoStream:
    """The first video stream that is not a cover picture."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            if stream.codec_context is None:
                raise VideoError(f"{path} is coded in a way that this FFmpeg cannot decode; convert it to H.264")
            return stream
    raise VideoError(f"{path} has no video in it; expected a file with a video track")
