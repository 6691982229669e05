"""Memory does not grow with the video."""

import gc

import psutil
import pytest
import torch

from sam2long import Sam2LongConfig
from tests.back_ends import back_end
from tests.fakes import MASK, OTHER, noise_video, reconfigured, run, tiny_predictor

FRAMES = 2000


def live_tensors():
    gc.collect()
    return sum(isinstance(one, torch.Tensor) for one in gc.get_objects())


@pytest.mark.slow
@pytest.mark.parametrize(
    "route, network",
    [("file", "sam2"), ("settled stream", "sam2"), ("online stream", "sam2"),
     ("settled stream", "transformers edgetam")],  # of transformers' the one that keeps its memories in another way
)  # fmt: skip
def test_2000_frames_take_the_memory_of_100(route, network, tmp_path):
    config = Sam2LongConfig(max_lag=32, emit="online" if "online" in route else "settled")
    predictor = back_end(network, sam2long=config)
    images = noise_video(50)
    process = psutil.Process()
    seen, memory, tensors = 0, {}, {}

    def note():
        nonlocal seen
        seen += 1
        if seen in (100, 1000, FRAMES - 50):
            tensors[seen], memory[seen] = live_tensors(), process.memory_info().rss

    if route == "file":
        from sam2long.video import VideoWriter

        with VideoWriter(tmp_path / "long.mp4", 30, 64, 64) as writer:
            for index in range(FRAMES):
                writer.write(images[index % 50])
        state = predictor.init_state(tmp_path / "long.mp4")
    else:
        state = predictor.init_stream(images[0])
    predictor.add_new_mask(state, 0, 1, MASK)
    predictor.add_new_mask(state, 0, 2, OTHER)
    if route == "file":
        for _ in predictor.propagate_in_video(state):
            note()
    else:
        for index in range(1, FRAMES):
            for _ in predictor.track(state, images[index % 50]):
                note()
    assert seen >= FRAMES - 40
    report = predictor.track_report(state)
    assert report.pathways.max() == 3
    first, middle, last = memory
    # What waits for agreement comes and goes; beyond that nothing is added.
    allowance = 2 * 3 * 40
    assert tensors[last] <= tensors[first] + allowance and tensors[last] <= tensors[middle] + allowance
    assert memory[last] <= memory[first] + (16 << 20)


def test_fifty_videos_in_a_row_leave_nothing_behind(tiny):
    """The state goes when the caller drops it; nothing of a video stays on the model."""
    video = noise_video(6)
    run(tiny, video, ((0, 1, MASK), (0, 2, OTHER)))
    before, cached = live_tensors(), set(vars(tiny))
    for _ in range(50):
        run(tiny, video, ((0, 1, MASK), (0, 2, OTHER)))
    assert live_tensors() <= before and set(vars(tiny)) == cached


def test_more_rows_than_the_budget_holds_are_split():
    predictor = reconfigured(tiny_predictor(presence=30.0), Sam2LongConfig(certainty_threshold=1e9))
    batches = []
    state = predictor.init_state(noise_video(12))
    attend = state.session.model.network.parts.attend
    predictor.row_budget = 1
    small = predictor.init_state(noise_video(12))

    def counting(*args):
        batches.append(len(args[2]))
        return attend(*args)

    object.__setattr__(small.session.model.network.parts, "attend", counting)
    for one in (state, small):
        predictor.add_new_mask(one, 0, 1, MASK)
        predictor.add_new_mask(one, 0, 2, OTHER)
    whole, split = ({f: m.clone() for f, _, m in predictor.propagate_in_video(one)} for one in (state, small))
    assert max(batches) == 1 and len(batches) == small.rows_read > 22
    assert all((whole[f] - split[f]).abs().max() < 1e-3 for f in whole)
