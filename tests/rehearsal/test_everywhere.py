"""Everything that a predictor can be asked for, on a pretended device: the CPU's bits, and no hidden wait in a frame.

A scenario is a function of a predictor; it runs on the CPU, then on the device. Masks that wait, saving and loading:
test_transfers.py.
"""

from collections.abc import Callable
from unittest import mock

import numpy as np
import pytest
import torch

from sam2long import Sam2LongConfig, SAM2LongVideoPredictor
from sam2long.tracking.session import Session
from tests.fakes import MASK, OTHER, THIRD, noise_video, tiny_predictor
from tests.rehearsal.counting import on_gpu
from tests.rehearsal.ledger import places

pytestmark = pytest.mark.slow

VIDEO = noise_video(6)
SCENARIOS: dict[str, Callable] = {}


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


def tracked(predictor, state, **options):
    return [masks for _, _, masks in predictor.propagate_in_video(state, **options)]


def two_objects(predictor, **options):
    state = predictor.init_state(VIDEO, **options)
    predictor.add_new_mask(state, 0, 1, MASK)
    predictor.add_new_mask(state, 2, "late", OTHER)
    return state


@scenario
def clicks_and_boxes(predictor):
    state = predictor.init_state(VIDEO)
    out = [predictor.add_new_points_or_box(state, 0, 1, points=[[20, 30], [50, 8]], labels=[1, 0])[2]]
    out += [predictor.add_new_points_or_box(state, 0, 2, box=[5, 5, 40, 40])[2]]
    out += [predictor.add_new_points_or_box(state, 0, 2, points=[[30, 30]], labels=[1], clear_old_points=False)[2]]
    return out + tracked(predictor, state)


@scenario
def corrections(predictor):
    state = two_objects(predictor)
    out = tracked(predictor, state)
    out += [predictor.add_new_points_or_box(state, 3, 1, points=[[20, 30]], labels=[1])[2]]
    out += [predictor.add_new_mask(state, 4, "late", THIRD)[2]]
    return out + tracked(predictor, state, start_frame_idx=2)


@scenario
def removal_and_reset(predictor):
    state = two_objects(predictor)
    out = []
    for frame, _, masks in predictor.propagate_in_video(state):
        out.append(masks)
        if frame == 3:
            predictor.remove_object(state, "late")
    predictor.clear_all_prompts_in_frame(state, 0, 1)
    predictor.reset_state(state)
    predictor.add_new_mask(state, 2, 1, THIRD)
    return out + tracked(predictor, state)


@scenario
def reverse(predictor):
    state = predictor.init_state(VIDEO)
    predictor.add_new_mask(state, 3, 1, MASK)
    return tracked(predictor, state, start_frame_idx=3, reverse=True) + tracked(predictor, state, start_frame_idx=3)


@scenario
def memories_on_the_host(predictor):
    return tracked(predictor, two_objects(predictor, offload_state_to_cpu=True))


@scenario
def a_live_stream_and_shared_frames(predictor):
    states = [predictor.init_stream(VIDEO[0]) for _ in range(2)]
    predictor.add_new_mask(states[0], 0, 1, MASK)
    predictor.add_new_mask(states[1], 0, 1, OTHER)
    out = []
    for image in VIDEO[1:]:
        frame = predictor.encode_frame(image)
        out += [masks for state in states for _, _, masks in predictor.track(state, frame)]
    return out + [masks for state in states for _, _, masks in predictor.finish(state)]


@scenario
def sparse_memories(predictor):
    return with_settings(predictor, memory_tokens="sparse")


def with_settings(predictor, **settings):
    other = SAM2LongVideoPredictor.from_sam2(predictor, Sam2LongConfig(**settings), "float32")
    return tracked(other, two_objects(other))


@scenario
def rows_split_by_their_budget(predictor):
    return with_attribute(predictor, "row_budget", 1)


@scenario
def three_frames_a_pass(predictor):
    return with_attribute(predictor, "frames_per_pass", 3)


@scenario
def holes_filled(predictor):
    return with_attribute(predictor, "fill_hole_area", 8)


def with_attribute(predictor, name, value):
    with mock.patch.object(predictor, name, value):
        return tracked(predictor, two_objects(predictor))


@scenario
def two_states_of_one_predictor(predictor):
    states = [two_objects(predictor), predictor.init_state(noise_video(6, seed=5))]
    predictor.add_new_mask(states[1], 0, 1, THIRD)
    return [masks for pair in zip(*map(predictor.propagate_in_video, states), strict=True) for _, _, masks in pair]


def on_host(found):
    return [each.cpu() if isinstance(each, torch.Tensor) else torch.as_tensor(np.asarray(each)) for each in found]


def watched_steps(gpu):
    """Hidden waits and blocking copies within a frame's step."""
    strays, step = [], Session._step

    def watched(*args):
        waits, copies = len(gpu.ledger.waits), len(gpu.ledger.copies)
        step(*args)
        strays.extend(wait for wait in gpu.ledger.waits[waits:] if not wait.asked)
        strays.extend(each for each in gpu.ledger.copies[copies:] if each.blocking)

    return strays, mock.patch.object(Session, "_step", watched)


def the_same_on_the_device(predictor, run):
    expected = on_host(run(predictor))
    with on_gpu(predictor) as gpu:
        strays, watching = watched_steps(gpu)
        with watching:
            found = run(predictor)
        there = on_host(found)
    assert len(there) == len(expected) > 0
    assert all(torch.equal(*pair) for pair in zip(there, expected, strict=True))
    assert strays == [], places(strays)
    return found


@pytest.fixture(scope="module")
def predictor():
    return tiny_predictor(dtype="float32")


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_cpus_bits_and_nothing_hidden(name, predictor):
    found = the_same_on_the_device(predictor, SCENARIOS[name])
    assert {masks.device.type for masks in found} == {"cuda"}


def test_an_object_that_is_away():
    the_same_on_the_device(tiny_predictor(presence=-1.0, dtype="float32"), SCENARIOS["corrections"])


@pytest.mark.parametrize("kind", ["sam2", "edgetam", "sam3"])
def test_transformers_networks(kind):
    pytest.importorskip("transformers")
    from tests.transformers_models import predictor_of

    the_same_on_the_device(predictor_of(kind, None, dtype="float32"), SCENARIOS["corrections"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_runs_with_cudas_rules(dtype, predictor):
    exact = [masks > 0 for masks in tracked(predictor, two_objects(predictor))]
    half = SAM2LongVideoPredictor.from_sam2(predictor, Sam2LongConfig(), dtype)
    with on_gpu(half):
        rough = [masks.cpu() for masks in tracked(half, two_objects(half))]
    assert all(masks.dtype == torch.float32 and torch.isfinite(masks).all() for masks in rough)
    alike = [((ours > 0) == theirs).float().mean() for ours, theirs in zip(rough, exact, strict=True)]
    assert min(alike[:3]) > 0.9


def test_two_devices_in_one_process(predictor):
    expected = [masks.clone() for masks in tracked(predictor, two_objects(predictor))]
    other = tiny_predictor(dtype="float32")
    with on_gpu(predictor, devices=2) as gpu:
        other.to("cuda:1")
        runs = [each.propagate_in_video(two_objects(each)) for each in (predictor, other)]
        pairs = [[masks for _, _, masks in pair] for pair in zip(*runs, strict=True)]
        assert {str(masks.device) for masks in pairs[0]} == {"cuda:0", "cuda:1"}
        assert all(torch.equal(masks.cpu(), own) for pair, own in zip(pairs, expected, strict=True) for masks in pair)
        assert gpu.ledger.in_use > 0
        other.to("cpu")


def test_automatic_masks(predictor):
    from sam2long.network.sam2 import automatic_mask_generator

    def found():
        made = automatic_mask_generator(
            predictor.network, points_per_side=3, pred_iou_thresh=0.0, stability_score_thresh=0.0
        )
        return [each["segmentation"] for each in made.generate(VIDEO[0])]

    expected = found()
    with on_gpu(predictor):
        there = found()
    assert len(there) == len(expected) > 0 and all(map(np.array_equal, there, expected))


def test_eval_run_and_sweep(predictor, tmp_path):
    from eval import datasets
    from eval.sweep_tracker import Sweep
    from eval.trackers import Sam2Long, TrackerSpec
    from tests.eval import trees

    dataset = datasets.open_dataset("lvos-v2", trees.lvos(tmp_path / "data"))
    video = dataset.video("vid_a")
    prompts = dataset.prompts(video)

    def tracker():
        made = Sam2Long.__new__(Sam2Long)
        made.spec, made._cuda, made.predictor = TrackerSpec(dtype="float32"), predictor.device.type == "cuda", predictor
        return made

    def found(folder):
        one = [logits for _, logits in tracker().track(folder, video, prompts)]
        sweep = Sweep.__new__(Sweep)
        sweep._tracker, sweep._settings, sweep._objects = tracker(), {}, []
        settings = {"default": Sam2LongConfig(), "unsure": Sam2LongConfig(certainty_threshold=100.0)}
        many = [sweep.logits(masks, video.size) for _, _, masks in sweep.track(folder, video, prompts, settings)]
        return one, many, tracker().peak_memory()

    with dataset.frames_folder(video, tmp_path) as folder:
        one, many, _ = found(folder)
        with on_gpu(predictor) as gpu:
            one_there, many_there, peak = found(folder)
            assert 0 < peak <= gpu.ledger.peak + 1
    assert len(one) == len(one_there) > 0 and all(map(np.array_equal, one_there, one))
    assert len(many) == len(many_there) > 0
    assert all(np.allclose(*pair, atol=1e-4) for pair in zip(many_there, many, strict=True))  # batches differ in size


def test_the_pages_annotator(predictor, tmp_path):
    pytest.importorskip("fastapi")
    pytest.importorskip("cv2")
    from sam2long.runs.settings import RunSettings
    from sam2long.ui.annotator import Annotator
    from sam2long.ui.project import Project
    from sam2long.video import open_source
    from tests.fakes import jpeg_folder

    video = str(jpeg_folder(tmp_path / "video", VIDEO))

    def found(folder):
        project = Project(tmp_path / folder, open_source(video), RunSettings(video=video))
        annotator = Annotator(project, predictor)
        for obj_id, (x, y) in {1: (30.0, 20.0), 2: (12.0, 40.0)}.items():
            annotator.new_object(label=f"class {obj_id}")
            annotator.click(obj_id, 0, x, y, True)
        annotator.tracker.propagate("forward", 0)
        annotator.box(1, 4, (5, 5, 40, 40))
        annotator.tracker.propagate("forward", 4)
        annotator.undo()
        masks = [project.store.masks(frame) for frame in range(len(VIDEO))]
        project.close()
        return masks

    expected = found("cpu")
    with on_gpu(predictor):
        assert found("gpu") == expected
    assert any(expected)
