"""A program that lives long: what is dropped gives its files back, what is kept needs few of them."""

from __future__ import annotations

import errno
import gc
import os
import weakref

import numpy as np
import pytest
from PIL import Image

from sam2long.errors import VideoError
from sam2long.video import awake, open_source
from tests.fakes import tiny_predictor
from tests.video_files import read_number, write_video

resource = pytest.importorskip("resource", reason="Windows counts handles otherwise")

KEPT = 300
LIMIT = 128  # open files, of which the test run itself has some


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4", 8)


@pytest.fixture
def few_files():
    """This process may have few files open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(open_files() + LIMIT, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def no_collector():
    """What goes, goes at once, and not when the collector comes round."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def open_files():
    return len(os.listdir("/dev/fd"))


def prompted(predictor, clip):
    state = predictor.init_state(str(clip))
    predictor.add_new_points_or_box(state, 1, 1, box=[5, 5, 40, 40])
    return state


def test_hundreds_of_states_are_kept_alive_with_few_files_open(clip, few_files):
    predictor = tiny_predictor()
    before = open_files()
    states = [prompted(predictor, clip) for _ in range(KEPT)]
    assert open_files() - before <= awake.MOST_AWAKE + 8
    for number, state in enumerate(states[::50]):
        assert read_number(state.session.source.frame(number % 8)) == number % 8, "those that slept wake up"
    assert len(list(predictor.propagate_in_video(states[0], 1, 3))) == 4
    states.clear()
    gc.collect()
    assert open_files() <= before + 8


def test_a_state_that_is_dropped_gives_back_everything_at_once(clip, no_collector):
    predictor = tiny_predictor()
    prompted(predictor, clip)
    before = open_files()
    for _ in range(5):
        state = prompted(predictor, clip)
        next(predictor.propagate_in_video(state))
        gone = [weakref.ref(thing) for thing in (state.session, state.session.source)]
        del state
        assert [thing() for thing in gone] == [None, None]
        assert open_files() <= before


@pytest.mark.parametrize("kind", ["video", "pages"])
def test_sources_that_sleep_give_the_same_frames(tmp_path, clip, kind, few_files):
    path = clip
    if kind == "pages":
        path = tmp_path / "pages.tif"
        pages = [Image.fromarray(np.full((8, 8, 3), 9 * number, np.uint8)) for number in range(8)]
        pages[0].save(path, save_all=True, append_images=pages[1:])
    with open_source(str(path)) as source:
        expected = [frame.image for frame in source]
    before = open_files()
    sources = [open_source(str(path)) for _ in range(KEPT)]
    for number in (3, 1, 6):
        for source in sources[:: 1 if number == 3 else 7]:
            assert np.array_equal(source.frame(number), expected[number])
    assert open_files() - before <= awake.MOST_AWAKE + 2
    for source in sources:
        source.close()
    assert open_files() <= before
    assert np.array_equal(sources[0].frame(2), expected[2]), "one that was closed can be read again"


def test_a_reader_in_use_is_not_put_to_sleep(clip):
    with open_source(str(clip)) as busy:
        busy.frame(1)
        with busy._lock:
            others = [open_source(str(clip)) for _ in range(awake.MOST_AWAKE + 3)]
            for other in others:
                other.frame(1)
            assert busy._cursor is not None
        for other in others:
            other.close()


@pytest.mark.parametrize("kind", ["video", "image"])
def test_at_the_limit_there_is_a_sentence(tmp_path, clip, kind, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    if kind == "video":
        monkeypatch.setattr("av.open", full)
    else:
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "0.png")
        monkeypatch.setattr("PIL.Image.open", full)
    with pytest.raises(VideoError, match=r"as many files open as the system allows.*ulimit"):
        open_source(str(clip if kind == "video" else tmp_path))


def test_at_the_real_limit_there_is_a_sentence(clip):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + 20, before[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            while True:
                held.append(os.open(clip, os.O_RDONLY))
        with pytest.raises(VideoError, match="as many files open"):
            open_source(str(clip))
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
