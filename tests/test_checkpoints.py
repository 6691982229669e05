"""Places to go back to: how many there are, where they lie, and what happens when there is no room."""

import dataclasses
import tempfile

import numpy as np
import pytest
import torch

from sam2long.network.devices import Outgoing
from sam2long.tracking import checkpoints as module
from sam2long.tracking.checkpoints import Checkpoints
from tests.fakes import MASK, noise_video, tiny_predictor


@pytest.fixture(scope="module")
def track():
    """A track that stands on frame 3."""
    predictor = tiny_predictor()
    state = predictor.init_state(noise_video(8))
    predictor.add_new_mask(state, 0, 1, MASK)
    for _ in predictor.propagate_in_video(state, max_frame_num_to_track=3):
        pass
    return next(iter(next(iter(state.session.objects.values())).tracks.values()))


def offered(kept, track, times):
    for time in times:
        kept.offer(dataclasses.replace(track.now, time=time), Outgoing())


def latest(kept, time):
    return kept.latest(time, torch.device("cpu"), None)


@pytest.mark.parametrize("length", [10, 1000, 20_000])
def test_their_number_is_bounded_and_they_lie_evenly(track, length):
    kept = Checkpoints(limit=16)
    offered(kept, track, range(length))
    assert len(kept.times) <= 16 and (length < 100 or len(kept.times) >= 8)
    assert set(np.diff(kept.times)) == {kept.spacing} and length - kept.times[-1] <= kept.spacing


def test_what_comes_out_is_what_went_in_also_from_the_file(track, monkeypatch):
    monkeypatch.setattr(module, "IN_MEMORY", 1000)
    kept = Checkpoints(limit=8)
    offered(kept, track, range(400))
    assert kept._file._rolled, "a file holds them"
    found = latest(kept, kept.times[3] + 1)
    assert found.time == kept.times[3]
    for ours, theirs in zip(found.pathways, track.now.pathways, strict=True):
        for mine, other in zip(ours.memories, theirs.memories, strict=True):
            assert torch.equal(mine.mask_features, other.mask_features)


def test_bytes_are_bounded_too(track):
    kept = Checkpoints()
    offered(kept, track, [0])
    size = len(kept.data(0))
    kept = Checkpoints(budget=5 * size + size // 2)
    offered(kept, track, range(2000))
    assert 2 <= len(kept.times) <= 5
    for _ in range(50):  # a correction again and again: what was dropped makes room
        kept.drop_after(kept.times[0])
        offered(kept, track, range(kept.times[0], 2000))
    assert kept._end <= max(2 * kept.budget, module.IN_MEMORY)
    assert latest(kept, 1999).time == kept.times[-1]


def test_a_full_disk_costs_time_and_no_mask(track, monkeypatch):
    kept = Checkpoints()
    offered(kept, track, range(20))
    with monkeypatch.context() as patch:

        def full(data):
            raise OSError(28, "No space left on device")

        patch.setattr(kept._file, "write", full)
        with pytest.warns(UserWarning, match=r"no room for checkpoints in .*No space left"):
            offered(kept, track, [30])
    assert kept.times == [] and latest(kept, 30) is None
    offered(kept, track, range(31, 60))
    assert latest(kept, 60).time == kept.times[-1]


def test_few_are_spread_over_all(track):
    kept = Checkpoints()
    assert kept.few(8) == []
    offered(kept, track, range(0, 120, 4))
    assert kept.few(8) == kept.times[::4] and len(kept.few(100)) == 30


def test_nothing_is_left_behind(track, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "IN_MEMORY", 10)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kept = Checkpoints()
    offered(kept, track, range(40))
    assert kept._file._rolled and list(tmp_path.iterdir()) == []
