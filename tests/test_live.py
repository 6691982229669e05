"""Streams: the same masks as from a file, prompts on the latest frame, nothing kept."""

import numpy as np
import pytest
import torch

from sam2long import Sam2LongConfig
from sam2long.camera import SAM2LongCameraPredictor
from sam2long.errors import PromptError, StateError
from tests.back_ends import BACK_ENDS, CLOSE_UP, opened
from tests.fakes import MASK, OTHER, THIRD, noise_video, reconfigured, run, same

VIDEO = noise_video(40)


@pytest.fixture(scope="module", params=[*BACK_ENDS, CLOSE_UP])
def tiny(request):
    with opened(request.param) as predictor:
        yield predictor


@pytest.mark.parametrize("emit", ["settled", "online"])
def test_feeding_frames_equals_giving_the_file(tiny, emit):
    predictor = reconfigured(tiny, Sam2LongConfig(emit=emit))
    expected = run(predictor, VIDEO, [(0, 1, MASK), (0, 2, OTHER)])
    state = predictor.init_stream(VIDEO[0])
    predictor.add_new_mask(state, 0, 1, MASK)
    predictor.add_new_mask(state, 0, 2, OTHER)
    out = [masks for image in VIDEO[1:] for masks in predictor.track(state, image)] + predictor.finish(state)
    assert same({frame: masks for frame, _, masks in out}, expected)
    if state.session.close_up is None:
        assert state.encoder_passes == len(VIDEO)


def test_streams_share_what_the_image_encoder_says_of_a_frame(tiny):
    predictor = reconfigured(tiny, Sam2LongConfig(emit="online"))
    whole = reconfigured(tiny, Sam2LongConfig(emit="online", close_up=False))  # there is nothing nearer to look at
    alone = [run(whole, VIDEO, [(0, 1, mask)]) for mask in (MASK, OTHER)]
    encoded = [predictor.encode_frame(image) for image in VIDEO[:8]]
    states = [predictor.init_stream(encoded[0]) for _ in alone]
    for state, mask in zip(states, (MASK, OTHER), strict=True):
        predictor.add_new_mask(state, 0, 1, mask)
    for index, frame in enumerate(encoded[1:], start=1):
        for state, expected in zip(states, alone, strict=True):
            masks = predictor.track(state, frame)[-1][2]
            assert torch.equal(masks, expected[index])
    assert [state.encoder_passes for state in states] == [0, 0]
    with pytest.raises(StateError, match="32 x 48"):
        predictor.track(states[0], predictor.encode_frame(np.zeros((48, 32, 3), np.uint8)))


def camera(tiny):
    return SAM2LongCameraPredictor(reconfigured(tiny, Sam2LongConfig(emit="online")))


def test_the_camera_interface_equals_online_propagation(tiny):
    expected = run(reconfigured(tiny, Sam2LongConfig(emit="online")), VIDEO)
    predictor = camera(tiny)
    predictor.load_first_frame(VIDEO[0])
    _, ids, first = predictor.add_new_mask(0, 1, MASK)
    got = {0: first}
    for index, image in enumerate(VIDEO[1:], start=1):
        ids, got[index] = predictor.track(image)
        assert ids == [1] and predictor.frame_idx == index
    assert same(got, expected)


def test_prompts_and_objects_come_and_go_at_any_frame(tiny):
    predictor = camera(tiny)
    predictor.load_first_frame(VIDEO[0])
    predictor.add_new_prompt(0, 1, bbox=[[20, 10], [50, 40]])
    for image in VIDEO[1:10]:
        predictor.track(image)
    _, ids, corrected = predictor.add_new_mask(9, 1, OTHER)
    assert ((corrected[0, 0] > 0).numpy() == OTHER).mean() > 0.95
    _, ids, _ = predictor.add_new_points(9, 2, [[40, 50]], [1])
    assert ids == [1, 2]
    ids, masks = predictor.track(VIDEO[10])
    assert ids == [1, 2] and masks.shape == (2, 1, 64, 64)
    assert predictor.remove_object(1) == [2]
    ids, masks = predictor.track(VIDEO[11])
    assert ids == [2] and masks.shape == (1, 1, 64, 64)
    predictor.reset_state()
    with pytest.raises(PromptError, match="load_first_frame"):
        predictor.track(VIDEO[12])


@pytest.mark.parametrize("emit", ["settled", "online"])
def test_a_correction_on_the_latest_frame_equals_one_offline(tiny, emit):
    """Where the leading pathway is the one that an offline pass would have handed out."""
    predictor = reconfigured(tiny, Sam2LongConfig(emit=emit, num_pathways=1))
    state = predictor.init_state(VIDEO)
    predictor.add_new_mask(state, 0, 1, MASK)
    list(predictor.propagate_in_video(state, max_frame_num_to_track=12))
    _, _, offline = predictor.add_new_points_or_box(state, 12, 1, points=[[40, 40]], labels=[1])
    expected = {frame: masks for frame, _, masks in predictor.propagate_in_video(state, start_frame_idx=13)}

    state = predictor.init_stream(VIDEO[0])
    predictor.add_new_mask(state, 0, 1, MASK)
    for image in VIDEO[1:13]:
        predictor.track(state, image)
    _, _, live = predictor.add_new_points_or_box(state, 12, 1, points=[[40, 40]], labels=[1])
    # The stream has no length, a short video has; both have sixteen pointers here.
    assert torch.equal(live, offline)
    out = [masks for image in VIDEO[13:] for masks in predictor.track(state, image)] + predictor.finish(state)
    assert same({frame: masks for frame, _, masks in out}, expected)


def test_masks_that_wait_survive_a_correction(tiny):
    state = tiny.init_stream(VIDEO[0])
    tiny.add_new_mask(state, 0, 1, MASK)
    out = []
    for index, image in enumerate(VIDEO[1:], start=1):
        out += tiny.track(state, image)
        if index in (7, 8, 20):
            tiny.add_new_mask(state, index, 1, OTHER)
        if index == 15:
            tiny.add_new_mask(state, index, 2, THIRD)
    out += tiny.finish(state)
    assert [frame for frame, _, _ in out] == list(range(40)), "each frame once, in order"


@pytest.mark.parametrize("part", ["memory_attention", "image_encoder", "memory_encoder"])
def test_a_frame_that_failed_is_tried_again(tiny, part, monkeypatch):
    expected = run(tiny, VIDEO)
    state = tiny.init_stream(VIDEO[0])
    tiny.add_new_mask(state, 0, 1, MASK)
    out, index = [], 1
    names = {
        "memory_attention": ["memory_attention.norm", "memory_attention.layer_norm"],
        "image_encoder": ["image_encoder", "vision_encoder"],
        "memory_encoder": ["memory_encoder"],
    }[part]
    broken_part = next(m for name, m in tiny.network.named_modules() if name in names)
    while index < len(VIDEO):
        with monkeypatch.context() as broken:
            if index == 6 and part:
                broken.setattr(broken_part, "forward", lambda *_, **__: (_ for _ in ()).throw(MemoryError))
            try:
                out += tiny.track(state, VIDEO[index])
                index += 1
            except MemoryError:
                # A frame that could not be encoded was not taken in; one that was is tracked with the next.
                index += part != "image_encoder"
                part = None
    out += tiny.finish(state)
    assert part is None
    assert same({frame: masks for frame, _, masks in out}, expected)


def test_frames_before_any_prompt_are_no_trouble(tiny):
    state = tiny.init_stream(VIDEO[0])
    assert [frame for image in VIDEO[1:5] for frame, _, _ in tiny.track(state, image)] == []
    tiny.add_new_mask(state, 4, 1, MASK)
    out = [frame for image in VIDEO[5:12] for frame, _, _ in tiny.track(state, image)]
    out += [frame for frame, _, _ in tiny.finish(state)]
    assert out[-8:] == list(range(4, 12)) or out == list(range(5, 12))


def test_what_a_stream_cannot_do_is_said(tiny):
    state = tiny.init_stream(VIDEO[0])
    tiny.add_new_mask(state, 0, 1, MASK)
    tiny.track(state, VIDEO[1])
    with pytest.raises(StateError, match="latest frame"):
        tiny.add_new_mask(state, 0, 1, OTHER)
    with pytest.raises(StateError, match="track\\(\\)"):
        next(tiny.propagate_in_video(state))
    with pytest.raises(StateError, match="cannot be saved"):
        tiny.save_state(state, "anywhere")
    with pytest.raises(StateError, match="32 x 64"):
        tiny.track(state, VIDEO[2][:, :32])
    with pytest.raises(StateError, match="uint8"):
        tiny.track(state, VIDEO[2].astype(np.float32))
    offline = tiny.init_state(VIDEO)
    with pytest.raises(StateError, match="init_stream"):
        tiny.track(offline, VIDEO[1])


def test_many_live_corrections_keep_a_bounded_number_of_prompts(tiny):
    predictor = reconfigured(tiny, Sam2LongConfig(emit="online", max_prompted_frames=3))
    state = predictor.init_stream(VIDEO[0])
    predictor.add_new_mask(state, 0, 1, MASK)
    for index, image in enumerate(VIDEO[1:20], start=1):
        predictor.track(state, image)
        predictor.add_new_mask(state, index, 1, OTHER)
    assert sorted(state.session.objects[1].prompts) == [0, 18, 19]
