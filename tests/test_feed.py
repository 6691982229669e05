"""Frames through a thread: none lost in order, the latest first when asked for, and an end at any time."""

from __future__ import annotations

import time

import numpy as np
import pytest

from sam2long.errors import VideoError
from sam2long.video import open_source
from sam2long.video.feed import FrameFeed
from tests.video_files import read_number, write_video


def stream(count, pause=0.0, broken_at=None):
    """A source that has no length."""

    def frames():
        for number in range(count):
            time.sleep(pause)
            if number == broken_at:
                raise VideoError("the camera was pulled out")
            yield np.full((8, 8, 3), number, np.uint8)

    return open_source(frames(), prefetch=0)


def numbers(feed, pause=0.0):
    found = []
    for frame in feed:
        found.append(frame.index)
        assert frame.image[0, 0, 0] == frame.index
        time.sleep(pause)
    return found


def test_in_order_nothing_is_lost_however_slow_the_consumer():
    feed = FrameFeed(stream(12))
    assert numbers(feed, pause=0.01) == list(range(12)) and feed.dropped == 0


def test_the_latest_frame_comes_next_and_the_last_one_always():
    feed = FrameFeed(stream(40, pause=0.01), latest=True)
    found = numbers(feed, pause=0.08)
    assert found == sorted(set(found)) and found[-1] == 39
    assert len(found) + feed.dropped == 40 and 3 <= len(found) <= 15


def test_a_consumer_that_keeps_up_gets_everything():
    feed = FrameFeed(stream(10, pause=0.03), latest=True)
    assert numbers(feed) == list(range(10)) and feed.dropped == 0


def test_an_error_comes_after_the_frames_before_it():
    feed = FrameFeed(stream(9, broken_at=4))
    found = []
    with pytest.raises(VideoError, match="pulled out"):
        for frame in feed:
            found.append(frame.index)
    assert found == [0, 1, 2, 3]


def test_stopping_ends_the_iteration_and_the_thread():
    feed = FrameFeed(stream(10_000, pause=0.001))
    found = []
    for frame in feed:
        found.append(frame.index)
        if len(found) == 5:
            feed.stop()
    feed.close()
    assert len(found) == 5 and not feed._thread.is_alive()


def test_a_file_in_real_time_takes_as_long_as_it_plays(tmp_path):
    path = write_video(tmp_path / "clip.mp4", 20, rate=25)
    begun = time.monotonic()
    found = [(frame.index, read_number(frame.image)) for frame in FrameFeed(open_source(path), realtime=True)]
    assert found == [(number, number) for number in range(20)]
    assert 0.7 <= time.monotonic() - begun <= 2.5, "19 gaps of 40 ms"


def test_real_time_needs_a_clock():
    with pytest.raises(VideoError, match="clock"):
        FrameFeed(stream(3), realtime=True)
