"""Video files: which frames there are, in which order, with which pixels, and what happens to damaged ones."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import av
import numpy as np
import pytest

from sam2long.errors import VideoError
from sam2long.video import file as video_file
from sam2long.video import open_source
from tests.video_files import read_number, write_all_keys, write_joined, write_trimmed, write_video

REAL = sorted((Path(__file__).parents[2] / "shared/data/videos").glob("*.mp4"))

CONTAINERS = {
    "clip.mp4": {},
    "clip.mov": {},
    "clip.mkv": {},
    "clip.ts": {},
    "h264.avi": {},
    "clip.avi": {"codec": "mpeg4"},
    "reordered.avi": {"codec": "mpeg4", "b_frames": 2},
    "clip.webm": {"codec": "libvpx-vp9"},
    "vp8.webm": {"codec": "libvpx"},
    "clip.mpg": {"codec": "mpeg1video"},
    "reordered.mpg": {"codec": "mpeg2video", "b_frames": 2},
    "sound.mp4": {"audio": "aac"},
    "open_groups.ts": {"x264": ":open-gop=1:bframes=3"},
    "no_key_frames.mp4": {"x264": ":intra-refresh=1:keyint=8:bframes=0", "height": 240, "width": 320},
    "all_keys.mp4": {"write": write_all_keys},
    "trimmed.mp4": {"write": write_trimmed, "first": 30},
    "trimmed_reordered.mov": {"write": write_trimmed, "first": 30, "gop": 1000, "b_frames": 2},
    "joined.ts": {"write": write_joined, "numbers": [*range(10), *range(10)]},
}


@pytest.fixture
def clip(tmp_path):
    return write_video(tmp_path / "clip.mp4")


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_gives_every_frame_once_in_both_directions_and_at_random(tmp_path, name):
    made = {"write": write_video, "first": 0, "codec": "libx264"} | CONTAINERS[name]
    write, first, encoder = made.pop("write"), made.pop("first"), made["codec"]
    if encoder not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {encoder}")
    numbers = made.pop("numbers", list(range(first, first + 20)))
    path = write(tmp_path / name, **{key: value for key, value in made.items() if key in CONTAINERS[name]})
    with open_source(path) as source:
        assert source.num_frames == 20
        assert (source.height, source.width) == (made.get("height", 48), made.get("width", 64))
        assert source.fps == pytest.approx(25, rel=0.05)
        at_once = {index: open_source(path).frame(index) for index in (13, 17)}
        frames = list(source)
        assert [frame.index for frame in frames] == list(range(20))
        assert [read_number(frame.image) for frame in frames] == numbers
        backwards = list(source.iter_from(19, reverse=True))
        assert [frame.index for frame in backwards] == list(range(19, -1, -1))
        for frame in [*backwards, *source.iter_from(13)]:
            np.testing.assert_array_equal(frame.image, frames[frame.index].image)
        for index in (13, 0, 7, 8, 19, 18, 18):
            np.testing.assert_array_equal(source.frame(index), frames[index].image)
        for index, image in at_once.items():
            np.testing.assert_array_equal(image, frames[index].image)
        assert source.damage is None and source.notes == []


def test_start_stop_and_stride_select_frames_and_count_them_from_zero(clip):
    source = open_source(clip, start=3, stop=16, stride=4)
    assert source.num_frames == 4
    assert source.fps == pytest.approx(25 / 4)
    assert [(f.index, read_number(f.image)) for f in source] == [(0, 3), (1, 7), (2, 11), (3, 15)]
    assert [read_number(f.image) for f in source.iter_from(2, reverse=True)] == [11, 7, 3]
    assert read_number(source.frame(2)) == 11
    assert source.source_index(2) == 11


def test_times_are_seconds_since_the_first_frame(clip):
    assert [frame.time for frame in open_source(clip, start=5, stop=8)] == pytest.approx([0.20, 0.24, 0.28])


def test_variable_frame_rate_keeps_every_frame_and_its_time(tmp_path):
    times = [40 * n + 3 * n * n for n in range(20)]  # milliseconds; slows down steadily
    source = open_source(write_video(tmp_path / "vfr.mkv", times=times))
    frames = list(source)
    assert source.variable_rate
    assert source.num_frames == len(frames) == 20
    assert [frame.time for frame in frames] == pytest.approx([t / 1000 for t in times])
    assert source.fps == pytest.approx(19 / (times[-1] / 1000), rel=1e-3)
    assert read_number(source.frame(15)) == 15


def test_steady_video_in_a_container_of_milliseconds_is_not_variable(tmp_path):
    assert not open_source(write_video(tmp_path / "clip.mkv", rate=30)).variable_rate


def test_a_file_cut_off_gives_the_frames_before_the_cut_and_says_where(tmp_path):
    whole = write_video(tmp_path / "whole.mp4", 60, options={"movflags": "+faststart"})
    with av.open(str(whole)) as container:
        positions = [packet.pos for packet in container.demux(video=0) if packet.size]
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: positions[35] + 3])
    source = open_source(cut)
    numbers = [read_number(frame.image) for frame in source]
    assert 30 < len(numbers) <= 35  # of 35 stored pictures the last may be shown after one that is missing
    assert numbers == list(range(len(numbers))) and source.num_frames == len(numbers)
    assert f"frame {len(numbers)} of 60" in source.damage
    whole_frames = list(open_source(whole))
    for frame in source:
        np.testing.assert_array_equal(frame.image, whole_frames[frame.index].image)
    assert open_source(cut, stop=5).damage is None


@pytest.mark.parametrize(
    ("name", "codec", "part"),
    [("clip.mkv", "libx264", 0.5), ("clip.webm", "libvpx-vp9", 0.5), ("clip.avi", "mpeg4", 0.8)],
)
def test_other_containers_cut_off_are_reported_too(tmp_path, name, codec, part):
    whole = write_video(tmp_path / f"whole_{name}", 60, codec=codec)
    cut = tmp_path / name
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * part)])
    source = open_source(cut)
    numbers = [read_number(frame.image) for frame in source]
    assert 3 < len(numbers) < 60 and numbers == list(range(len(numbers)))
    assert source.damage is not None


def test_garbage_in_the_middle_ends_the_iteration_there(tmp_path):
    whole = write_video(tmp_path / "whole.mp4", 60, gop=60, b_frames=0, options={"movflags": "+faststart"})
    with av.open(str(whole)) as container:
        positions = [packet.pos for packet in container.demux(video=0) if packet.size]
    data = bytearray(whole.read_bytes())
    begin, end = positions[30], positions[31]
    data[begin:end] = b"\xff" * (end - begin)
    (tmp_path / "bad.mp4").write_bytes(data)
    source = open_source(tmp_path / "bad.mp4")
    numbers = [read_number(frame.image) for frame in source]
    assert numbers == list(range(30))
    assert "frame 30 of 60" in source.damage
    with pytest.raises(VideoError, match="frame 40 cannot be read"):
        source.frame(40)
    assert read_number(source.frame(12)) == 12


def test_going_backwards_holds_only_part_of_a_long_group_of_pictures(tmp_path, monkeypatch):
    path = write_video(tmp_path / "one_key.mp4", 60, gop=1000)
    monkeypatch.setattr(video_file, "REVERSE_BYTES", 10 * 48 * 64 * 3 // 2)
    source = open_source(path, prefetch=0)
    begun = []
    decode = source._decode
    monkeypatch.setattr(source, "_decode", lambda first: begun.append(first) or decode(first))
    assert [read_number(f.image) for f in source.iter_from(59, reverse=True)] == list(range(59, -1, -1))
    assert begun == [0] * 6  # room for ten frames, so the one group is decoded six times


def test_decoding_runs_ahead_by_a_bounded_number_of_frames_and_its_thread_ends(clip):
    before = threading.active_count()
    source = open_source(clip, prefetch=2)
    frames = iter(source)
    assert next(frames).index == 0
    assert threading.active_count() == before + 1
    frames.close()
    assert threading.active_count() == before
    frames = source.iter_from(10, reverse=True)
    next(frames)
    del frames  # dropped, not closed
    assert threading.active_count() == before
    list(source)
    assert threading.active_count() == before


def test_two_iterations_of_one_source_do_not_disturb_each_other(clip):
    source = open_source(clip)
    both = zip(source, source.iter_from(19, reverse=True), strict=True)
    assert [(read_number(a.image), read_number(b.image)) for a, b in both] == [(n, 19 - n) for n in range(20)]


def _not_a_video(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 40)


def _headless(path: Path) -> None:
    write_video(path)
    path.write_bytes(path.read_bytes()[:-400])  # the table of contents is at the end


def _only_sound(path: Path) -> None:
    with av.open(str(path), "w") as out:
        sound = out.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        out.mux(sound.encode(frame))
        out.mux(sound.encode(None))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.touch(), "is empty"),
        (lambda path: path.write_text("hello\n" * 100), "not a video|text file"),
        (_not_a_video, "not a video"),
        (_headless, "cut off"),
        (_only_sound, "no video in it"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_sentence(tmp_path, make, says):
    path = tmp_path / "bad.mp4"
    make(path)
    with pytest.raises(VideoError, match=says) as caught:
        open_source(path)
    assert "bad.mp4" in str(caught.value) and "\n" not in str(caught.value)


def test_frames_out_of_range_and_impossible_selections_are_refused(clip):
    source = open_source(clip)
    with pytest.raises(VideoError, match="frame 20 is out of range.*0 to 19"):
        source.frame(20)
    with pytest.raises(VideoError, match="frame -1"):
        source.iter_from(-1)
    for selection, says in [
        ({"start": 20}, "smaller start"),
        ({"start": -1}, "start is -1"),
        ({"stride": 0}, "stride is 0"),
        ({"start": 4, "stop": 4}, "stop is 4"),
        ({"stride": 1.5}, "stride is 1.5"),
    ]:
        with pytest.raises(VideoError, match=says):
            open_source(clip, **selection)


@pytest.mark.parametrize("path", REAL, ids=[path.stem for path in REAL])
def test_real_videos_forwards_backwards_and_at_random(path):
    source = open_source(path, stride=7)
    digests = [hashlib.md5(frame.image.tobytes()).digest() for frame in source]
    assert len(digests) == source.num_frames and source.damage is None
    middle = source.num_frames // 2
    assert hashlib.md5(source.frame(middle).tobytes()).digest() == digests[middle]
    backwards = source.iter_from(5, reverse=True)
    assert [hashlib.md5(frame.image.tobytes()).digest() for frame in backwards] == digests[5::-1]


# ---- read the same every way ------------------------------------------------------------------------


def reads_the_same_every_way(path, expected):
    """In order, at random and backwards, undamaged."""
    source = open_source(path)
    images = [frame.image for frame in source]
    assert [read_number(image) for image in images] == list(expected) and source.damage is None
    for index in random.Random(0).sample(range(len(images)), len(images)):
        assert (source.frame(index) == images[index]).all()
    backwards = [frame.image for frame in source.iter_from(len(images) - 1, reverse=True)]
    assert all((a == b).all() for a, b in zip(backwards, images[::-1], strict=True))


def test_a_file_with_a_colon_in_its_name_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("take 1: dog.mp4", "a:b.mp4"):
        write_video(tmp_path / name, 4)
        reads_the_same_every_way(name, range(4))


GIVE_UP_EARLY = """
import sys
from pathlib import Path

import av

from sam2long.video.decoding import decode_file

av.logging.set_level(av.logging.ERROR)  # as torchvision did up to 0.24
for number in range(100):
    decoding = decode_file(Path(sys.argv[1]))
    for _ in range(number % 6 + 1):
        next(decoding, None)
    decoding.close()
"""


def test_a_damaged_file_that_is_closed_while_its_decoder_complains(tmp_path):
    path = write_video(tmp_path / "hurt.mp4", 60, width=320, height=240)
    data = bytearray(path.read_bytes())
    begin, rng = data.find(b"mdat") + 1500, np.random.default_rng(0)
    for at in rng.integers(begin, len(data) - 4000, 40):
        data[at] ^= 0x55
    path.write_bytes(data)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, "-c", GIVE_UP_EARLY, str(path)], env=env, check=True, timeout=120)
