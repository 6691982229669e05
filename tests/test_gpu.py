"""The same promises on a CUDA device. Skipped without one; failing with REQUIRE_GPU=1."""

import copy
import warnings

import pytest
import torch

from sam2long import Sam2LongConfig, SAM2LongVideoPredictor
from sam2long.network.devices import fast_bfloat16
from tests.fakes import MASK, OTHER, THIRD, collect, noise_video, run, same, tiny_predictor

pytestmark = pytest.mark.gpu

VIDEO = noise_video(40)
PROMPTS = [(0, 1, MASK), (0, 2, OTHER), (5, 3, THIRD)]


@pytest.fixture(scope="module")
def on_gpu():
    return tiny_predictor(dtype="float32").to("cuda")


def test_float32_masks_are_about_the_cpus(on_gpu):
    config = Sam2LongConfig.sam2()
    here = run(SAM2LongVideoPredictor.from_sam2(on_gpu, config, dtype="float32"), VIDEO[:4])
    there = run(SAM2LongVideoPredictor.from_sam2(tiny_predictor(), config), VIDEO[:4])
    for frame, masks in there.items():
        assert here[frame].device.type == "cuda"
        assert ((here[frame].cpu() > 0) == (masks > 0)).float().mean() > 0.98


def test_auto_is_bfloat16_where_the_device_has_it(on_gpu):
    auto = SAM2LongVideoPredictor.from_sam2(on_gpu)
    expected = torch.bfloat16 if fast_bfloat16(on_gpu.device) else torch.float32
    assert auto.compute_dtype() is expected
    masks = run(auto, VIDEO, PROMPTS)
    assert all(torch.isfinite(mask).all() and mask.dtype == torch.float32 for mask in masks.values())


def test_streaming_and_leaving_off_equal_the_file(on_gpu):
    whole = run(on_gpu, VIDEO)
    state = on_gpu.init_stream(VIDEO[0])
    on_gpu.add_new_mask(state, 0, 1, MASK)
    out = [masks for image in VIDEO[1:] for masks in on_gpu.track(state, image)] + on_gpu.finish(state)
    assert same({frame: masks for frame, _, masks in out}, whole)


def test_saved_states_move_between_devices(on_gpu, tmp_path):
    state = on_gpu.init_state(VIDEO)
    on_gpu.add_new_mask(state, 0, 1, MASK)
    for frame, _, _ in on_gpu.propagate_in_video(state):
        if frame == 10:
            break
    on_gpu.save_state(state, tmp_path / "state")
    on_cpu = tiny_predictor()
    assert list(collect(on_cpu, on_cpu.load_state(tmp_path / "state", VIDEO), start_frame_idx=11)) == list(
        range(11, 40)
    )


def test_device_memory_does_not_grow(on_gpu):
    state = on_gpu.init_state(noise_video(600))
    on_gpu.add_new_mask(state, 0, 1, MASK)
    on_gpu.add_new_mask(state, 0, 2, OTHER)
    memory = {}
    for frame, _, _ in on_gpu.propagate_in_video(state):
        memory[frame] = torch.cuda.memory_allocated()
    assert memory[550] <= memory[100] + (1 << 20)


def test_memories_can_live_on_the_host(on_gpu):
    state = on_gpu.init_state(VIDEO, offload_state_to_cpu=True)
    on_gpu.add_new_mask(state, 0, 1, MASK)
    assert same(collect(on_gpu, state), run(on_gpu, VIDEO))
    bank = state.session.objects[1].tracks[1].now.pathways[0].memories
    assert {memory.mask_features.device.type for memory in bank if memory.mask_features is not None} == {"cpu"}


def test_the_host_waits_for_the_device_once_a_frame(on_gpu, monkeypatch):
    online = SAM2LongVideoPredictor.from_sam2(on_gpu, Sam2LongConfig(emit="online"), dtype="float32")
    state = online.init_state(VIDEO)
    for frame, obj_id, mask in PROMPTS:
        online.add_new_mask(state, frame, obj_id, mask)
    frames = online.propagate_in_video(state)
    for _ in range(16):  # the banks are full; 16 is a checkpoint, and its copy is 17's
        next(frames)
    asked, wait = [], torch.cuda.Event.synchronize
    monkeypatch.setattr(torch.cuda.Event, "synchronize", lambda event: asked.append(event) or wait(event))
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as unasked:
            warnings.simplefilter("always")
            for _ in range(4):
                next(frames)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(asked) == 4
    assert not [each.message for each in unasked if "synchroniz" in str(each.message)]


def test_the_next_frame_is_under_way_while_the_host_decides(on_gpu):
    plain = SAM2LongVideoPredictor.from_sam2(on_gpu, Sam2LongConfig(emit="online"), dtype="float32")
    ahead = SAM2LongVideoPredictor.from_sam2(on_gpu, Sam2LongConfig(emit="online"), dtype="float32")
    plain.frames_per_pass = ahead.frames_per_pass = 1
    state = ahead.init_state(VIDEO)
    ahead.add_new_mask(state, 0, 1, MASK)
    out = {}
    for frame, _, masks in ahead.propagate_in_video(state):
        out[frame] = masks
        assert state.encoder_passes == min(frame + 1 + (frame > 0), len(VIDEO))
    stream = plain.init_stream(VIDEO[0])  # has nothing to look ahead to
    plain.add_new_mask(stream, 0, 1, MASK)
    for image in VIDEO[1:]:
        for frame, _, masks in plain.track(stream, image):
            assert torch.equal(out[frame], masks)


def test_checkpoints_hold_memories_that_were_on_their_way_to_the_host(on_gpu):
    """Nothing is reliable here, so the newest memory is the first that a checkpoint packs."""
    config = Sam2LongConfig(iou_threshold=1.0)
    there = SAM2LongVideoPredictor.from_sam2(on_gpu, config, dtype="float32")
    masks = []
    for offload in (True, False):
        state = there.init_state(VIDEO, offload_state_to_cpu=offload)
        there.add_new_mask(state, 0, 1, MASK)
        collect(there, state)
        there.add_new_mask(state, 14, 1, OTHER)
        masks.append(collect(there, state, start_frame_idx=14))
    assert same(*masks)


def test_compiled_parts_replay_as_cuda_graphs_and_give_eagers_masks(on_gpu):
    """Long enough for steady banks, whose memory attention is then a graph too; a graph overwrites its own results."""
    compiled = SAM2LongVideoPredictor.from_sam2(on_gpu, dtype="float32")
    compiled.compile_model()
    assert compiled._parts.decode.replayed
    masks = run(compiled, VIDEO, PROMPTS)
    eager = run(SAM2LongVideoPredictor.from_sam2(on_gpu, dtype="float32"), VIDEO, PROMPTS)
    assert masks.keys() == eager.keys()
    assert all(((masks[frame] > 0) == (eager[frame] > 0)).float().mean() > 0.99 for frame in eager)


def test_a_vos_optimized_predictor_of_sam2_can_be_wrapped(on_gpu):
    theirs = copy.copy(on_gpu.network)
    theirs._modules = dict(theirs._modules)
    for name in ("memory_encoder", "sam_mask_decoder", "sam_prompt_encoder"):
        module = copy.copy(getattr(theirs, name))
        module.forward = torch.compile(module.forward, mode="max-autotune", dynamic=False)
        theirs._modules[name] = module
    assert same(run(SAM2LongVideoPredictor.from_sam2(theirs, dtype="float32"), VIDEO[:8]), run(on_gpu, VIDEO[:8]))
