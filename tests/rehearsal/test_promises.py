"""The way of a frame on a GPU, rehearsed: the CPU's masks, one wait, no blocking copy, few copies.

Frames are counted once the banks are full, one by one, over two checkpoints at least.
"""

import pytest
import torch

from eval.trackers import as_sam2
from sam2long import Sam2LongConfig
from tests.fakes import MASK, OTHER, THIRD, box_mask, noise_video, run, same, tiny_predictor
from tests.rehearsal.counting import counted, counted_plain, on_gpu

VIDEO = noise_video(40)
BOXES = [MASK, OTHER, THIRD, box_mask(30, 30, 20, 30), box_mask(6, 40, 20, 20)]
ONLINE, OFFLINE = Sam2LongConfig(emit="online"), Sam2LongConfig()


def prompts(objects: int) -> list:
    return [(0, obj_id, mask) for obj_id, mask in enumerate(BOXES[:objects], start=1)]


def counts_of(config, objects, **options):
    """(counts, predictor's state) of a video on the pretended device."""
    predictor = tiny_predictor(sam2long=config, dtype="float32")
    with on_gpu(predictor) as gpu:
        state = predictor.init_state(VIDEO, **options)
        for frame, obj_id, mask in prompts(objects):
            predictor.add_new_mask(state, frame, obj_id, mask)
        return counted(gpu, predictor.propagate_in_video(state))


@pytest.fixture(
    scope="module", params=[(ONLINE, 1), (ONLINE, 3), (OFFLINE, 1), (OFFLINE, 3)], ids=lambda p: f"{p[0].emit} {p[1]}"
)
def counts(request):
    return counts_of(*request.param)


def test_nothing_waits_unasked(counts):
    assert counts.hidden == [], counts.told()


def test_no_copy_blocks(counts):
    assert counts.blocking == [], counts.told()


def test_the_host_waits_once_a_frame(counts):
    assert counts.most_waits == 1, counts.told()


def test_at_most_four_copies_a_frame(counts):
    assert counts.most_copies <= 4, counts.told()


def test_where_it_looks_next_is_no_wait_of_its_own():
    predictor = tiny_predictor(sam2long=Sam2LongConfig(emit="online", close_up=True), dtype="float32")
    with on_gpu(predictor) as gpu:
        state = predictor.init_state(VIDEO[:10])
        for frame, obj_id, mask in prompts(2):
            predictor.add_new_mask(state, frame, obj_id, mask)
        counts = counted(gpu, predictor.propagate_in_video(state), skip=2, count=3)
    assert counts.hidden == [] and counts.blocking == [] and counts.most_waits == 1, counts.told()
    assert counts.most_copies <= 4, counts.told()


def test_memories_kept_on_the_host_add_one_copy_each_and_no_wait():
    """Seven are read and one is written; packed they would be copied once more, on the host."""
    single = Sam2LongConfig(num_pathways=1, object_aware_memory=False, emit="online")
    counts = counts_of(single, 2, offload_state_to_cpu=True)
    assert counts.hidden == [] and counts.blocking == [] and counts.most_waits == 1, counts.told()
    assert 2 * (7 + 1) < counts.most_copies <= 2 * (7 + 1) + 4, counts.told()


@pytest.mark.parametrize("config", [ONLINE, OFFLINE], ids=["online", "offline"])
def test_masks_are_the_cpus_to_the_bit(config):
    predictor = tiny_predictor(sam2long=config, dtype="float32")
    expected = run(predictor, VIDEO[:24], [*prompts(2), (5, 3, THIRD)])
    with on_gpu(predictor):
        there = run(predictor, VIDEO[:24], [*prompts(2), (5, 3, THIRD)])
        assert {masks.device.type for masks in there.values()} == {"cuda"}
        assert same({frame: masks.cpu() for frame, masks in there.items()}, expected)


@pytest.mark.slow
def test_fewer_kernels_than_sam2_for_several_objects(tmp_path):
    from tests.fakes import jpeg_folder

    folder = str(jpeg_folder(tmp_path / "video", VIDEO))
    launched = {}
    for name in ("ours", "sam2"):
        predictor = tiny_predictor(sam2long=ONLINE)
        predictor = predictor if name == "ours" else as_sam2(predictor)
        with on_gpu(predictor) as gpu:
            state = predictor.init_state(folder)
            for frame, obj_id, mask in prompts(5):
                predictor.add_new_mask(state, frame, obj_id, torch.from_numpy(mask))
            count = counted if name == "ours" else counted_plain
            launched[name] = count(gpu, predictor.propagate_in_video(state), skip=8, count=3).mean("launched")
    assert launched["ours"] < 0.5 * launched["sam2"]
