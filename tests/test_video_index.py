"""Lists of frames that turn out to be wrong while the file is read, and files that are shorter than they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sam2long.errors import VideoError
from sam2long.video import file as video_file
from sam2long.video import open_source
from sam2long.video.chunks import is_cut_off
from tests.video_files import read_number, write_video


def foretold(monkeypatch, change):
    """Let packets foretell something else: `change` takes the list of times and returns another."""
    index_file = video_file.index_file

    def index(path):
        found = index_file(path)
        return replace(found, times=change(found.times))

    monkeypatch.setattr(video_file, "index_file", index)


@pytest.mark.parametrize(
    "change",
    [
        lambda times: np.insert(times, 40, (times[39] + times[40]) // 2),  # a picture that gives no frame
        lambda times: np.delete(times, 40),  # a frame that nobody foretold
        lambda times: np.append(times, times[-1] + 512),  # one too many at the end
        lambda times: times[:-1],  # one more at the end
        lambda times: np.insert(times, 1, times[0] + 1),  # wrong from the beginning on
    ],
)
def test_the_decoder_is_right_where_packets_are_not(tmp_path, monkeypatch, change):
    path = write_video(tmp_path / "clip.mp4", 60)
    frames = [frame.image for frame in open_source(path)]
    foretold(monkeypatch, change)
    source = open_source(path)
    assert [read_number(frame.image) for frame in source] == list(range(60))
    assert source.num_frames == 60 and source.damage is None
    np.testing.assert_array_equal(source.frame(50), frames[50])
    backwards = [frame.image for frame in source.iter_from(59, reverse=True)]
    np.testing.assert_array_equal(backwards, frames[::-1])


def test_more_frames_than_foretold_are_noted(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mp4", 60)
    foretold(monkeypatch, lambda times: np.delete(times, 40))
    source = open_source(path)
    assert source.notes == []
    list(source)
    assert "has 60 frames and its packets foretold 59" in source.notes[0]


def test_a_frame_that_is_not_there_after_all_is_refused(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mp4", 60)
    foretold(monkeypatch, lambda times: np.append(times, times[-1] + 512))
    with pytest.raises(VideoError, match="has 60 frames after all; frame 60 cannot be read"):
        open_source(path).frame(60)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mov", "clip.mkv", "clip.webm", "clip.avi"])
def test_files_say_how_long_they_are(tmp_path, name):
    path = write_video(tmp_path / name, 5, codec={"webm": "libvpx", "avi": "mpeg4"}.get(name[5:], "libx264"))
    assert not is_cut_off(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    assert is_cut_off(path)
    path.write_bytes(whole + bytes(1000))
    assert not is_cut_off(path), "what comes behind does no harm"


def test_a_complete_file_with_a_long_last_frame_is_not_called_damaged(tmp_path):
    path = write_video(tmp_path / "slides.mkv", 10, times=[*range(0, 360, 40), 9000])
    source = open_source(path)
    assert source.num_frames == 10 and source.damage is None
