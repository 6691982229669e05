"""Each promise broken on purpose: the rehearsal says so, and where."""

import pytest
import torch

from sam2long import Sam2LongConfig
from sam2long.errors import StateError
from sam2long.network import bank, devices
from sam2long.network.batched import Batched
from sam2long.tracking import frames
from tests.fakes import MASK, noise_video, run, same, tiny_predictor
from tests.rehearsal import runtime
from tests.rehearsal.counting import counted, on_gpu
from tests.rehearsal.ledger import places
from tests.rehearsal.traffic import Race

VIDEO = noise_video(8)


@pytest.fixture(scope="module")
def predictor():
    made = tiny_predictor(sam2long=Sam2LongConfig(emit="online"), dtype="float32")
    made.frames_per_pass = 1
    return made


def few(predictor):
    """Counts of two frames: what is done wrong on every frame shows on these."""
    with on_gpu(predictor) as gpu:
        state = predictor.init_state(VIDEO)
        predictor.add_new_mask(state, 0, 1, torch.from_numpy(MASK))
        return counted(gpu, predictor.propagate_in_video(state), skip=2, count=2)


def on_every_frame(monkeypatch, also):
    """Something more where features are made."""
    encode = frames.FrameReader.encode

    def encoded(self, *args):
        found = encode(self, *args)
        also(found[0].levels[-1])
        return found

    monkeypatch.setattr(frames.FrameReader, "encode", encoded)


def test_unbroken_it_waits_for_nothing_unasked(predictor):
    counts = few(predictor)
    assert counts.hidden == [] and counts.blocking == [], counts.told()


@pytest.mark.parametrize(
    "look", [lambda x: x.sum().item(), lambda x: x.max() > 0 and None, lambda x: x[x > 0], lambda x: torch.equal(x, x)]
)
def test_an_item_is_a_hidden_wait(look, predictor, monkeypatch):
    on_every_frame(monkeypatch, look)
    hidden = few(predictor).hidden
    assert len(hidden) == 2 and all(place.startswith("sam2long/tracking/frames.py:") for place in places(hidden))


def test_a_tensor_left_on_the_host_is_refused_with_its_place(predictor, monkeypatch):
    monkeypatch.setattr(bank, "moved_together", lambda tensors, device: tensors)
    with pytest.raises(RuntimeError, match=r"on the same device.* at sam2long/network/\w+\.py:\d+"):
        few(predictor)


def test_a_copy_from_pageable_memory_is_a_blocking_one(predictor, monkeypatch):
    monkeypatch.setattr(frames, "moved", lambda tensor, device: tensor.to(device, non_blocking=True))
    blocking = few(predictor).blocking
    assert blocking and all(place.startswith("sam2long/tracking/frames.py:") for place in places(blocking))


def test_a_copy_that_does_not_say_non_blocking_is_a_hidden_wait(predictor, monkeypatch):
    monkeypatch.setattr(frames, "moved", lambda tensor, device: tensor.pin_memory().to(device))
    counts = few(predictor)
    assert counts.blocking and [wait.what for wait in counts.hidden] == ["blocking copy"] * len(counts.blocking)


def test_a_second_settling_is_a_second_wait(predictor, monkeypatch):
    before = few(predictor)
    remember = Batched.remember

    def settled(self, *args):
        found = remember(self, *args)
        devices.settle(self.network.device)
        return found

    monkeypatch.setattr(Batched, "remember", settled)
    assert few(predictor).most_waits == before.most_waits + 1


def test_many_small_copies_are_too_many(predictor, monkeypatch):
    before = few(predictor)
    on_every_frame(monkeypatch, lambda x: [devices.moved(torch.ones(1), x.device) for _ in range(4)])
    after = few(predictor)
    assert after.most_copies == before.most_copies + 4 and after.blocking == []


def test_numbers_that_are_read_before_they_have_arrived_are_rubbish(predictor, monkeypatch):
    monkeypatch.setattr(runtime.Event, "synchronize", lambda event: None)
    monkeypatch.setattr(runtime.Stream, "synchronize", lambda stream: None)
    with pytest.raises(StateError, match="not finite"):
        few(predictor)


def test_a_pinned_buffer_that_is_filled_again_too_early_is_a_race(predictor, monkeypatch):
    buffer = []

    def reused(tensor, device):
        if not buffer:
            with torch.inference_mode(False):  # or it could only be filled within
                buffer.append(torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True))
        return buffer[0].copy_(tensor).to(device, non_blocking=True)

    monkeypatch.setattr(frames, "moved", reused)
    with pytest.raises(Race, match="before its copy to the device was over"):
        few(predictor)


def test_another_result_is_seen(predictor, monkeypatch):
    prompts = ((0, 1, torch.from_numpy(MASK)),)
    expected = run(predictor, VIDEO, prompts)

    def disturbed(features):
        with torch.inference_mode():
            features.add_(1e-3)

    on_every_frame(monkeypatch, disturbed)
    with on_gpu(predictor):
        there = {frame: masks.cpu() for frame, masks in run(predictor, VIDEO, prompts).items()}
    assert not same(there, expected)
