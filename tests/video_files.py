"""Tiny videos made on the spot: every frame says its number, so a mix-up of frames shows."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def numbered_image(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A picture whose 8 blocks spell `number` in black and white; survives lossy coding."""
    image = np.full((height, width, 3), 90, dtype=np.uint8)
    for bit in range(8):
        top, left = (bit // 4) * height // 2, (bit % 4) * width // 4
        image[top : top + height // 2, left : left + width // 4] = 255 if number >> bit & 1 else 0
    return image


def read_number(image: np.ndarray) -> int:
    """What `numbered_image` wrote, read back from block centres."""
    height, width = image.shape[:2]
    number = 0
    for bit in range(8):
        y, x = (bit // 4) * height // 2 + height // 4, (bit % 4) * width // 4 + width // 8
        number |= int(image[y, x].mean() > 127) << bit
    return number


def write_video(
    path: Path,
    num_frames: int = 20,
    *,
    codec: str = "libx264",
    rate: Fraction | int = 25,
    height: int = 48,
    width: int = 64,
    gop: int = 8,
    b_frames: int | None = None,
    times: list[int] | None = None,
    rotation: int | None = None,
    mirrored: bool = False,
    x264: str = "",
    audio: str | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode frames 0.. with their numbers on them.

    Args:
        times: presentation times in milliseconds, for a variable frame rate.
        rotation: degrees, counterclockwise, as a phone would note them. mirrored: left and right after that.
        x264: more of its parameters.
        audio: codec of a 440 Hz tone as long as the video.
    """
    with av.open(f"file:{path}", "w", container_options=options or {}) as out:
        video = out.add_stream(codec, rate=rate)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.gop_size = gop
        if b_frames is not None:
            video.codec_context.max_b_frames = b_frames
        if codec == "libx264":
            video.options = {"preset": "veryfast", "crf": "18", "x264-params": f"scenecut=0{x264}"}
        video.codec_context.time_base = 1 / Fraction(rate) if times is None else Fraction(1, 1000)
        if rotation is not None:
            video.set_display_rotation(rotation, hflip=mirrored)
        sound = None
        if audio:
            sound = out.add_stream(audio, rate=48000 if "opus" in audio else 44100, layout="mono")
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(numbered_image(number, height, width), format="rgb24")
            frame.pts = number if times is None else times[number]
            frame.time_base = video.codec_context.time_base
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if sound:
            samples = int(num_frames / rate * sound.rate)
            size = sound.codec_context.frame_size or 1024
            wave = (0.3 * np.sin(2 * np.pi * 440 * np.arange(samples) / sound.rate)).astype(np.float32)
            resampler = av.AudioResampler(format=sound.format.name, layout="mono", rate=sound.rate, frame_size=size)
            for begin in range(0, samples, size):
                block = av.AudioFrame.from_ndarray(wave[None, begin : begin + size], format="flt", layout="mono")
                block.rate, block.pts, block.time_base = sound.rate, begin, Fraction(1, sound.rate)
                for part in resampler.resample(block):
                    out.mux(sound.encode(part))
            for part in resampler.resample(None):
                out.mux(sound.encode(part))
            out.mux(sound.encode(None))
    return path


def write_trimmed(path: Path, num_frames: int = 20, **options: int) -> Path:
    """The last frames of a longer video, cut out as phones and editors do: copied from the key frame before, and the
    pictures before the cut hidden by an edit list."""
    whole = write_video(path.with_stem("whole"), num_frames + 30, **options)
    with av.open(str(whole)) as source, av.open(str(path), "w") as out:
        video = source.streams.video[0]
        copy, begin = out.add_stream_from_template(video), round(Fraction(30, 25) / video.time_base)
        source.seek(begin, stream=video, backward=True)
        for packet in source.demux(video):
            if packet.dts is not None:
                packet.pts -= begin
                packet.dts -= begin
                packet.stream = copy
                out.mux(packet)
    return path


def write_joined(path: Path) -> Path:
    """Two videos of ten frames, one behind the other as `cat` does it: the clock starts again in the middle."""
    parts = [write_video(path.with_stem(f"{rate}"), 10, rate=rate).read_bytes() for rate in (25, 24)]
    path.write_bytes(b"".join(parts))
    return path


def write_all_keys(path: Path) -> Path:
    """A file whose table of key frames is gone, so that every picture counts as one."""
    path.write_bytes(write_video(path, b_frames=0).read_bytes().replace(b"stss", b"free"))
    return path
