"""The method at work: twins, switches, order of the masks."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import sam2long
from eval.trackers import as_sam2
from sam2long import Sam2LongConfig
from sam2long.method.memory import Reading
from sam2long.network.batched import Batched
from tests.fakes import (
    MASK,
    OTHER,
    THIRD,
    collect,
    jpeg_folder,
    noise_video,
    reconfigured,
    run,
    same,
    tiny_predictor,
)

VIDEO = noise_video(40)


def tracked(predictor, prompts=((0, 1, MASK),)):
    state = predictor.init_state(VIDEO)
    for frame, obj_id, mask in prompts:
        predictor.add_new_mask(state, frame, obj_id, mask)
    return state, collect(predictor, state)


def test_one_encoder_pass_per_frame_for_five_objects(tiny):
    prompts = [(0, i, mask) for i, mask in enumerate([MASK, OTHER, THIRD, MASK.T, OTHER.T])]
    state, _ = tracked(tiny, prompts)
    assert state.encoder_passes == len(VIDEO)


def test_a_frame_goes_through_eighteen_files(tiny):
    """docs/architecture.md names them; reading the video is not counted."""
    state = tiny.init_state(VIDEO)
    tiny.add_new_mask(state, 0, 1, MASK)
    frames, seen, ours = tiny.propagate_in_video(state), set(), Path(sam2long.__file__).parent

    def note(frame, event, _):
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(ours):
            seen.add(path.relative_to(ours).as_posix())

    for _ in range(17):
        next(frames)
    sys.setprofile(note)
    try:
        for _ in range(4):  # one of them leaves a checkpoint
            next(frames)
    finally:
        sys.setprofile(None)
    way = {path for path in seen if not path.startswith("video/")}
    assert {"method/tree.py", "tracking/packing.py"} <= way and len(way) <= 18, sorted(way)


def test_network_rows_are_the_unique_nodes():
    unsure = reconfigured(tiny_predictor(presence=30.0), Sam2LongConfig(certainty_threshold=1e9))
    state, _ = tracked(unsure)
    report = unsure.track_report(state)
    # The rows of a frame are the pathways that were different after the frame before it.
    assert state.rows_read == report.pathways[:-1].sum()
    assert report.pathways.max() == 3 and report.pathways.min() == 1


def test_pathways_that_remember_the_same_are_read_once():
    gone = reconfigured(tiny_predictor(presence=-30.0), Sam2LongConfig(certainty_threshold=1e9))
    state, _ = tracked(gone)
    report = gone.track_report(state)
    assert report.pathways[5:].min() == 3 and report.object_logit[1:].max() < 0
    assert state.rows_read == len(VIDEO) - 1


@pytest.mark.parametrize("storage", [False, True])
def test_sharing_rows_and_memories_changes_no_mask(fickle, monkeypatch, storage):
    def run_all():
        state = fickle.init_state(VIDEO, offload_state_to_cpu=storage)
        for obj_id, mask in enumerate((MASK, OTHER)):
            fickle.add_new_mask(state, 0, obj_id, mask)
        return collect(fickle, state), state.rows_read, fickle.track_report(state)

    shared, few, report = run_all()
    monkeypatch.setattr(Reading, "key", property(id))
    monkeypatch.setattr(Batched, "_content", lambda self, proposals, row, k: (row, k))
    apart, many, report_apart = run_all()
    assert few < many
    for frame in shared:  # other batches, other last bits
        assert torch.equal(shared[frame] > 0, apart[frame] > 0)
        assert torch.allclose(shared[frame], apart[frame], atol=1e-3)
    chosen = ["frame", "obj_id", "status", "pathways", "memory_frames"]
    assert report[chosen].equals(report_apart[chosen])


def test_a_sure_model_never_branches_and_costs_what_one_pathway_costs():
    sure = tiny_predictor(presence=30.0)
    state, _ = tracked(sure)
    assert state.rows_read == len(VIDEO) - 1
    assert set(sure.track_report(state).status) == {"visible"}


@pytest.fixture(scope="module")
def fickle():
    """A model whose best pathway changes: objects come and go. Also with the random weights of torch 2.5."""
    return tiny_predictor(presence=0.0)


def follow_the_best_leaf_back(predictor):
    """An online run's tree, read back from its best last node: each frame's rank among the kept candidates."""
    state = predictor.init_state(VIDEO)
    predictor.add_new_mask(state, 0, 1, MASK)
    nodes = {}
    for frame, _, _ in predictor.propagate_in_video(state):
        track = state.session.objects[1].tracks[1]
        nodes |= {leaf.node: (frame, leaf.rank, leaf.parent) for leaf in track.now.leaves()}
    node, path = track.now.pathways[0].node, {}
    while node is not None:
        frame, rank, node = nodes[node]
        path[frame] = rank
    return path


def test_settled_masks_are_those_of_the_best_pathway_at_the_end(fickle):
    """However long masks wait, what comes out is the pathway that is best at the end, read back."""
    patient = reconfigured(fickle, Sam2LongConfig(max_lag=None))
    state, masks = tracked(patient)
    log = state.session.objects[1].tracks[1].log
    path = follow_the_best_leaf_back(reconfigured(fickle, Sam2LongConfig(emit="online")))
    assert {frame: log.rank_at(frame) for frame in masks} == path
    assert any(path.values()), "the best pathway never changed: nothing was tested"


def test_online_differs_only_where_the_tree_changed_its_mind(fickle):
    _, settled = tracked(fickle)
    _, online = tracked(reconfigured(fickle, Sam2LongConfig(emit="online")))
    assert list(settled) == list(online)
    assert not same(settled, online)
    assert torch.equal(settled[len(VIDEO) - 1], online[len(VIDEO) - 1])


def test_no_lag_allowed_is_online(tiny):
    _, at_once = tracked(reconfigured(tiny, Sam2LongConfig(max_lag=0)))
    _, online = tracked(reconfigured(tiny, Sam2LongConfig(emit="online")))
    assert same(at_once, online)


def test_a_short_lag_bounds_the_frames_that_wait(tiny):
    hasty = reconfigured(tiny, Sam2LongConfig(max_lag=3))
    state = hasty.init_state(VIDEO)
    hasty.add_new_mask(state, 0, 1, MASK)
    waits = []
    for _ in hasty.propagate_in_video(state):
        waits.append(len(state.session.objects[1].tracks[1].now.waiting))
    assert 0 < max(waits) <= 3


@pytest.mark.parametrize(
    "change",
    [
        {"num_pathways": 1},
        {"num_pathways": 2},
        {"iou_threshold": 0.85},
        {"certainty_threshold": 0.2},
        {"modulation": (1.0, 1.0)},
        {"modulation": (0.5, 1.5)},
        {"object_aware_memory": False},
        {"twins": "merge"},
    ],
    ids=str,
)
def test_every_switch_changes_the_masks(tiny, change):
    _, masks = tracked(tiny)
    _, changed = tracked(reconfigured(tiny, Sam2LongConfig(**change)))
    assert not same(masks, changed)


@pytest.mark.parametrize("change", [{}, {"object_aware_memory": False}, {"max_lag": 3}], ids=str)
def test_backwards_is_forwards_on_the_mirrored_video(tiny, change):
    predictor, last = reconfigured(tiny, Sam2LongConfig(**change)), len(VIDEO) - 1
    prompts = [(0, 1, MASK), (12, 2, OTHER), (20, 1, THIRD)]
    state, forwards = tracked(predictor, prompts)
    mirrored = predictor.init_state(VIDEO[::-1].copy())
    for frame, obj_id, mask in prompts:
        predictor.add_new_mask(mirrored, last - frame, obj_id, mask)
    backwards = collect(predictor, mirrored, start_frame_idx=last, reverse=True)
    assert same({last - frame: masks for frame, masks in backwards.items()}, forwards)
    there, back = (predictor.track_report(one).sort_values(["frame", "obj_id"]) for one in (state, mirrored))
    back = back.assign(
        frame=last - back.frame,
        memory_frames=[tuple(last - frame for frame in frames) for frames in back.memory_frames],
    ).sort_values(["frame", "obj_id"])
    assert there.reset_index(drop=True).equals(back.reset_index(drop=True))


def test_merged_twins_part_from_the_first_frame_on():
    sure = tiny_predictor(presence=30.0)
    merged = reconfigured(sure, Sam2LongConfig(twins="merge"))
    state, _ = tracked(merged)
    assert list(merged.track_report(state).pathways[1:3]) == [3, 3]


def test_objects_do_not_influence_each_other(tiny):
    _, alone = tracked(tiny)
    _, together = tracked(tiny, [(0, 7, OTHER), (0, 1, MASK), (3, 9, THIRD)])
    for frame, masks in alone.items():
        assert (together[frame][1:2] - masks).abs().max() < 1e-3
        assert ((together[frame][1:2] > 0) == (masks > 0)).float().mean() > 0.999


def test_a_late_object_is_absent_before_its_first_prompt(tiny):
    prompts = [(0, 1, MASK), (12, 2, OTHER)]
    _, masks = tracked(tiny, prompts)
    assert all(bool((masks[frame][1] == -1024).all()) for frame in range(12))
    assert ((masks[12][1, 0] > 0).numpy() == OTHER).mean() > 0.95
    assert any(bool((masks[frame][1] > 0).any()) for frame in range(13, 40))


def test_the_report_has_a_row_per_frame_and_object(tiny):
    state, _ = tracked(tiny, [(0, 1, MASK), (5, 2, OTHER)])
    report = tiny.track_report(state)
    assert list(report.columns) == [
        "frame", "obj_id", "prompted", "iou", "object_logit", "status", "pathways", "margin", "memory_frames",
    ]  # fmt: skip
    assert len(report) == 40 + 35
    assert set(report.status) <= {"visible", "uncertain", "absent"}
    assert report[report.prompted][["frame", "obj_id"]].values.tolist() == [[0, 1], [5, 2]]
    first = report[(report.obj_id == 1) & (report.frame == 1)].iloc[0]
    assert first.memory_frames == (0,)
    assert np.isnan(report.iloc[0].iou)


def test_other_sizes_and_widths_work():
    """Nothing is written down for 1024 pixels, 64 channels or four tokens a pointer."""
    for overrides in (("++model.image_size=128",), ("++model.max_obj_ptrs_in_encoder=4",), ("++model.num_maskmem=3",)):
        predictor = tiny_predictor(overrides=overrides)
        masks = run(predictor, noise_video(8, side=48), [(0, 1, MASK[:48, :48])])
        assert masks[7].shape == (1, 1, 48, 48) and torch.isfinite(masks[7]).all()


@pytest.mark.parametrize(
    "overrides",
    [
        ("++model.multimask_output_for_tracking=false",),
        ("++model.use_multimask_token_for_obj_ptr=false",),
        ("++model.soft_no_obj_ptr=true",),
        ("++model.add_tpos_enc_to_obj_ptrs=false", "++model.proj_tpos_enc_in_obj_ptrs=false"),
        ("++model.use_high_res_features_in_sam=false",),
        (
            "++model.use_obj_ptrs_in_encoder=false", "++model.fixed_no_obj_ptr=false",
            "++model.add_tpos_enc_to_obj_ptrs=false", "++model.proj_tpos_enc_in_obj_ptrs=false",
            "++model.pred_obj_scores=false", "++model.pred_obj_scores_mlp=false",
        ),
    ],
    ids=lambda overrides: overrides[0].partition(".")[2],
)  # fmt: skip
def test_other_kinds_of_sam2_models_work_and_equal_sam2_with_everything_off(overrides, tmp_path):
    predictor = tiny_predictor(overrides=overrides)
    folder = jpeg_folder(tmp_path, noise_video(8))
    assert len(run(predictor, folder)) == 8
    if not predictor.use_obj_ptrs_in_encoder:
        return  # sam2 1.1.0 itself fails there: it feeds bfloat16 memories to float32 weights
    plain = reconfigured(predictor, Sam2LongConfig.sam2())
    assert same(run(plain, folder), run(as_sam2(predictor), str(folder)))
