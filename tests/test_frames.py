"""Frames on their way through the image encoder: several at a time, ahead of their turn, each once."""

import threading

import numpy as np
import pytest
import torch

from sam2long import Sam2LongConfig, SAM2LongVideoPredictor
from sam2long.errors import ConfigError, VideoError
from sam2long.network.batched import Batched
from sam2long.network.devices import Outgoing
from sam2long.network.sam2 import Sam2Network
from sam2long.tracking.frames import FrameReader
from sam2long.video import open_source
from tests.fakes import MASK, OTHER, collect, noise_video, run, same

VIDEO = noise_video(18)


@pytest.fixture
def passes(tiny, monkeypatch):
    """How many frames each pass of the image encoder took."""
    sizes, forward = [], tiny.forward_image
    monkeypatch.setattr(tiny, "forward_image", lambda images: sizes.append(len(images)) or forward(images))
    return sizes


def reader_of(predictor, **options):
    return FrameReader(open_source(VIDEO), Batched(Sam2Network(predictor.network), **options))


def features_of(reader, count):
    return {frame: features for frame, features, _ in reader.sequence(0, count, 1)}


def test_small_frames_go_through_the_encoder_together(tiny, passes):
    reader = reader_of(tiny, frames_per_pass=4)
    assert [frame for frame, _, _ in reader.sequence(2, 11, 1)] == list(range(2, 13))
    assert passes == [4, 4, 1, 1, 1]  # the rest one by one: two shapes for torch.compile
    assert reader.model.frames_encoded == 11


def test_backwards_and_no_further_than_asked(tiny, passes):
    reader = reader_of(tiny, frames_per_pass=4)
    assert [frame for frame, _, _ in reader.sequence(9, 7, -1)] == [9, 8, 7, 6, 5, 4, 3]
    assert sum(passes) == 7


def test_a_frame_that_was_prompted_is_not_encoded_again(tiny, passes):
    reader = reader_of(tiny, frames_per_pass=4)
    prompted = reader.features(0)
    frames = features_of(reader, 8)
    assert frames[0] is prompted
    assert sum(passes) == 8


def test_features_of_frames_encoded_together_are_those_of_each_alone(tiny):
    together = features_of(reader_of(tiny, frames_per_pass=4), 8)
    alone = reader_of(tiny, frames_per_pass=1)
    for frame, features in together.items():
        for one, other in zip(features.levels, alone.features(frame).levels, strict=True):
            assert torch.allclose(one, other, atol=1e-4)
        assert features.sizes == alone.features(frame).sizes


@pytest.mark.parametrize("exact", [True, False])
def test_by_default_together_only_where_that_gives_the_same_bits(tiny, monkeypatch, exact):
    sizes, forward = [], tiny.forward_image

    def encode(images):
        sizes.append(len(images))
        parts = [forward(image[None]) for image in images]
        out = {name: [torch.cat(maps) for maps in zip(*(p[name] for p in parts), strict=True)]
               for name in ("backbone_fpn", "vision_pos_enc")}  # fmt: skip
        if len(images) > 1 and not exact:
            out["backbone_fpn"] = [m * 1.0001 for m in out["backbone_fpn"]]
        return out

    monkeypatch.setattr(tiny, "forward_image", encode)
    reader = reader_of(tiny)
    size = reader.model.frames_per_pass
    assert size == 8
    frames = features_of(reader, 18)
    assert reader.model.frames_encoded == len(frames)
    assert reader.model.frames_per_pass == (size if exact else 1)
    for frame, features in frames.items():
        for one, other in zip(features.levels, reader_of(tiny).features(frame).levels, strict=True):
            assert torch.equal(one, other)


def test_masks_do_not_depend_on_how_many_are_encoded_together(tiny):
    # A last bit may differ between processors, so the tree is kept from branching on it.
    config = Sam2LongConfig.sam2()
    one, many = (SAM2LongVideoPredictor.from_sam2(tiny, config) for _ in range(2))
    one.frames_per_pass, many.frames_per_pass = 1, 5
    for frame, masks in run(one, VIDEO).items():
        assert ((run(many, VIDEO)[frame] > 0) == (masks > 0)).float().mean() > 0.99


@pytest.mark.parametrize("number", [0, -2, 1.5, "4"])
def test_numbers_of_frames_that_make_no_sense_are_refused(tiny, number):
    predictor = SAM2LongVideoPredictor.from_sam2(tiny)
    predictor.frames_per_pass = number
    with pytest.raises(ConfigError, match="whole number of 1 or more"):
        predictor.init_state(VIDEO)


def test_a_correction_between_two_frames_that_were_encoded_together(tiny):
    predictor = SAM2LongVideoPredictor.from_sam2(tiny, Sam2LongConfig(emit="online"))
    predictor.frames_per_pass = 4
    state = predictor.init_state(VIDEO)
    predictor.add_new_mask(state, 0, 1, MASK)
    out = {}
    for frame, _, masks in predictor.propagate_in_video(state):
        out[frame] = masks
        if frame == 5:
            predictor.add_new_mask(state, 5, 1, OTHER)
    again = predictor.init_state(VIDEO)
    predictor.add_new_mask(again, 0, 1, MASK)
    collect(predictor, again, max_frame_num_to_track=5)
    predictor.add_new_mask(again, 5, 1, OTHER)
    later = collect(predictor, again, start_frame_idx=6)
    assert same({frame: out[frame] for frame in later}, later)


def test_before_frame_is_told_of_each_frame_in_its_turn_and_can_end_the_pass(tiny):
    predictor = SAM2LongVideoPredictor.from_sam2(tiny, Sam2LongConfig(emit="online"))
    predictor.frames_per_pass = 8
    state = predictor.init_state(VIDEO)
    predictor.add_new_mask(state, 0, 1, MASK)
    told, seen = [], {}

    def before_frame(frame):
        assert list(seen) == list(range(frame))  # everything before it is done, and nothing of it
        told.append(frame)
        if frame == 11 and told.count(11) == 1:
            raise InterruptedError

    with state.session.calling(before_frame):
        with pytest.raises(InterruptedError):
            for frame, _, masks in predictor.propagate_in_video(state):
                seen[frame] = masks
        assert not [thread for thread in threading.enumerate() if thread.name == "sam2long-prefetch"]
        for frame, _, masks in predictor.propagate_in_video(state, start_frame_idx=11):
            seen[frame] = masks
    told_in_all = [*range(12), *range(11, len(VIDEO))]
    assert told == told_in_all
    assert len(collect(predictor, state)) == len(VIDEO) and told == told_in_all  # not any more
    whole = predictor.init_state(VIDEO)
    predictor.add_new_mask(whole, 0, 1, MASK)
    whole = collect(predictor, whole)
    assert whole.keys() == seen.keys()
    for frame, masks in whole.items():
        assert torch.allclose(seen[frame], masks, atol=1e-3)


class Breaks:
    """Frames whose source gives up at one of them."""

    def __init__(self, at):
        self.inner, self.at = open_source(VIDEO), at
        self.num_frames, self.height, self.width = self.inner.num_frames, self.inner.height, self.inner.width

    def frame(self, index):
        return self.inner.frame(index)

    def iter_from(self, index, reverse=False, prepare=None):
        for frame in self.inner.iter_from(index, reverse, prepare):
            if frame.index == self.at:
                raise VideoError(f"frame {self.at} cannot be read")
            yield frame


def test_what_goes_wrong_ahead_is_said_in_its_turn(tiny):
    reader = FrameReader(Breaks(4), Batched(Sam2Network(tiny.network), frames_per_pass=1))
    seen = []
    with pytest.raises(VideoError, match="frame 4 cannot be read"):
        for frame, _, encode_next in reader.sequence(0, 10, 1):
            with reader.model.running():  # as on a GPU: while the host waits for the numbers of `frame`
                encode_next()
                encode_next()
            seen.append(frame)
    assert seen == [0, 1, 2, 3]


def test_each_pass_looks_ahead_for_itself(tiny, passes):
    reader = reader_of(tiny, frames_per_pass=1)
    first, second = reader.sequence(0, 10, 1), reader.sequence(5, 5, 1)
    next(first)
    *_, encode_next = next(second)
    first.close()
    encode_next()
    assert len(passes) == 3
    assert next(second)[0] == 6 and len(passes) == 3


def test_numbers_of_a_cpu_are_read_at_once():
    called = []
    assert Outgoing().read_out(torch.tensor([[1.0, 2.0]]), lambda: called.append(1)) == [[1.0, 2.0]]
    assert called == [], "there is nothing to wait for"


def test_pixels_are_normalised_as_sam2_does(tiny):
    seen = []
    reader = reader_of(tiny, frames_per_pass=2)
    reader.model.encode = lambda images: seen.append(images) or [None] * len(images)
    frames = [np.full((tiny.image_size, tiny.image_size, 3), value, np.uint8) for value in (0, 255)]
    reader.encode(frames)
    assert seen[0].shape == (2, 3, tiny.image_size, tiny.image_size)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(seen[0][1, :, 0, 0], (1 - mean) / std)
    assert torch.allclose(seen[0][0, :, 5, 7], -mean / std)
