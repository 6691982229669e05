"""Writing H.264: frames in order, rates, odd sizes, sound, and nothing half-finished left behind."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from sam2long.errors import VideoError
from sam2long.video import VideoWriter, open_source
from tests.video_files import numbered_image, read_number, write_video


def write_numbers(path, count=10, fps=25, height=48, width=64, **options):
    with VideoWriter(path, fps, width, height, **options) as out:
        for number in range(count):
            out.write(numbered_image(number, height, width))
    return out


def audio_of(path):
    """(codec, first second, last second, samples of the sound) of a file."""
    with av.open(str(path)) as container:
        audio = container.streams.audio[0]
        frames = list(container.decode(audio))
        return audio.codec_context.name, frames[0].time, frames[-1].time, np.hstack([f.to_ndarray()[0] for f in frames])


def test_frames_come_back_in_order_from_a_file_that_players_open(tmp_path):
    write_numbers(tmp_path / "out.mp4", fps=29.97)
    source = open_source(tmp_path / "out.mp4")
    assert [read_number(frame.image) for frame in source] == list(range(10))
    data = (tmp_path / "out.mp4").read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")  # faststart
    with av.open(str(tmp_path / "out.mp4")) as container:
        video = container.streams.video[0]
        assert video.codec_context.name == "h264" and video.codec_context.pix_fmt == "yuv420p"
        assert video.average_rate == Fraction(2997, 100)


def test_the_same_frames_make_the_same_file(tmp_path):
    """At a width of 66, x264's assembly alone gave another file in every tenth attempt or so."""
    noise = np.random.default_rng(0).integers(0, 255, (50, 66, 3), dtype=np.uint8)
    files = set()
    for _ in range(30):
        with VideoWriter(tmp_path / "out.mp4", 25, 66, 50) as out:
            for step in range(20):
                out.write(np.roll(noise, step, axis=1))
        files.add((tmp_path / "out.mp4").read_bytes())
    assert len(files) == 1


@pytest.mark.parametrize(
    ("given", "stored"), [(30000 / 1001, Fraction(30000, 1001)), (24, 24), (12.5, Fraction(25, 2))]
)
def test_frame_rates_are_kept_as_fractions(tmp_path, given, stored):
    write_numbers(tmp_path / "out.mp4", fps=given)
    assert open_source(tmp_path / "out.mp4").index.rate == stored


def test_colours_survive(tmp_path):
    for size in (64, 720):  # small pictures are BT.601, large ones BT.709
        colours = np.zeros((size, 64, 3), np.uint8)
        colours[:, :32], colours[:, 32:] = (200, 30, 60), (20, 140, 220)
        with VideoWriter(tmp_path / "out.mp4", 25, 64, size) as out:
            out.write(colours)
        back = open_source(tmp_path / "out.mp4").frame(0)
        assert np.abs(back.astype(int) - colours)[:, 4:28].max() <= 6
        assert np.abs(back.astype(int) - colours)[:, 36:60].max() <= 6


def test_odd_sizes_get_their_last_row_and_column_twice(tmp_path):
    write_numbers(tmp_path / "out.mp4", height=47, width=63)
    source = open_source(tmp_path / "out.mp4")
    assert (source.height, source.width) == (48, 64)
    image = source.frame(6).astype(int)
    assert np.abs(image[:47, :63] - numbered_image(6, 47, 63)).mean() < 8
    assert np.abs(image[47] - image[46]).mean() < 4


def test_given_times_are_kept(tmp_path):
    times = [0.0, 0.1, 0.15, 0.9]
    with VideoWriter(tmp_path / "out.mp4", 25, 64, 48) as out:
        for number, time in enumerate(times):
            out.write(numbered_image(number), time)
    assert [frame.time for frame in open_source(tmp_path / "out.mp4")] == pytest.approx(times, abs=1e-4)


def test_nothing_appears_before_the_end_and_an_exception_leaves_no_trace(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"an older file")
    with pytest.raises(RuntimeError), VideoWriter(path, 25, 64, 48) as out:
        out.write(numbered_image(0))
        assert path.read_bytes() == b"an older file"
        raise RuntimeError("the network fell over")
    assert path.read_bytes() == b"an older file"
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    write_numbers(path)
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    assert open_source(path).num_frames == 10


@pytest.mark.parametrize(
    ("name", "codec", "sound", "how", "stored"),
    [
        ("in.mp4", "libx264", "aac", "copied", "aac"),
        ("in.webm", "libvpx-vp9", "libopus", "copied", "opus"),
        ("in.mkv", "libx264", "pcm_s16le", "encoded", "aac"),
    ],
)
def test_sound_is_kept(tmp_path, name, codec, sound, how, stored):
    source = open_source(write_video(tmp_path / name, 50, codec=codec, audio=sound))
    out = write_numbers(tmp_path / "out.mp4", 50, audio_from=source)
    assert (out.audio, out.audio_note) == (how, None)
    found, first, last, samples = audio_of(tmp_path / "out.mp4")
    assert found.removeprefix("lib") == stored and first < 0.06 and 1.9 < last < 2.05
    heard = samples[len(samples) // 3 : len(samples) // 3 + 8000]
    assert 0.2 < np.abs(heard).max() < 0.5  # the tone, not silence
    assert open_source(tmp_path / "out.mp4").num_frames == 50


def test_sound_is_cut_to_the_frames_and_dropped_when_frames_are_skipped(tmp_path):
    path = write_video(tmp_path / "in.mp4", 100, audio="aac")
    write_numbers(tmp_path / "out.mp4", 25, audio_from=open_source(path, start=50, stop=75))
    _, first, last, _ = audio_of(tmp_path / "out.mp4")
    assert first < 0.03 and 0.9 < last < 1.05
    skipping = write_numbers(tmp_path / "out.mp4", 25, audio_from=open_source(path, stride=2))
    assert skipping.audio is None and "every 2th frame" in skipping.audio_note
    assert not av.open(str(tmp_path / "out.mp4")).streams.audio
    silent = write_numbers(tmp_path / "out.mp4", 5, audio_from=write_video(tmp_path / "silent.mp4"))
    assert silent.audio is None and silent.audio_note is None
    assert write_numbers(tmp_path / "out.mp4", 5, audio_from=open_source([numbered_image(0)])).audio is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((0, 64, 48), "fps is 0"),
        ((float("nan"), 64, 48), "fps is nan"),
        ((25, 0, 48), "size is 0 x 48"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, arguments, says):
    with pytest.raises(VideoError, match=says):
        VideoWriter(tmp_path / "out.mp4", *arguments)
    with pytest.raises(VideoError, match="cannot write"):
        VideoWriter(tmp_path / "no_folder" / "out.mp4", 25, 64, 48)
    assert not list(tmp_path.iterdir())


def test_wrong_frames_are_refused(tmp_path):
    with pytest.raises(VideoError, match="no frames were written"), VideoWriter(tmp_path / "a.mp4", 25, 64, 48):
        pass
    with pytest.raises(VideoError, match="frame 0 is 48x64"), VideoWriter(tmp_path / "a.mp4", 25, 64, 48) as out:
        out.write(numbered_image(0, 64, 48))
    with pytest.raises(VideoError, match="times that rise"), VideoWriter(tmp_path / "a.mp4", 25, 64, 48) as out:
        out.write(numbered_image(0), 1.0)
        out.write(numbered_image(1), 1.0)
    assert not list(tmp_path.iterdir())
