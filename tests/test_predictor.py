"""The drop-in as a user meets it: corrections, late objects, coming and going, refusals, saving."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch

from sam2long import Sam2LongConfig, Sam2LongError
from sam2long.errors import ConfigError, ModelError, PromptError, StateError
from sam2long.network.bank import key_weights
from sam2long.predictor import SAM2LongVideoPredictor
from tests.back_ends import BACK_ENDS, CLOSE_UP, back_end, name_of, opened
from tests.fakes import MASK, OTHER, THIRD, collect, noise_video, reconfigured, run, same, tiny_predictor

VIDEO = noise_video(50)


@pytest.fixture(scope="module", params=BACK_ENDS)
def looks_at_all(request):
    return back_end(request.param)


@pytest.fixture(scope="module", params=[*BACK_ENDS, CLOSE_UP])
def tiny(request):
    with opened(request.param) as predictor:
        yield predictor


def started(predictor, prompts=((0, 1, MASK),)):
    state = predictor.init_state(VIDEO)
    for frame, obj_id, mask in prompts:
        predictor.add_new_mask(state, frame, obj_id, mask)
    return state


# ---- corrections -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("from_the_start", [True, False])
@pytest.mark.parametrize("at", [1, 23, 49])
def test_a_correction_sticks_and_the_past_stays(tiny, at, from_the_start):
    state = started(tiny)
    before = collect(tiny, state)
    _, _, corrected = tiny.add_new_mask(state, at, 1, OTHER)
    after = collect(tiny, state, start_frame_idx=None if from_the_start else at)
    assert list(after) == list(range(0 if from_the_start else at, 50))
    assert torch.equal(after[at], corrected)
    assert ((corrected[0, 0] > 0).numpy() == OTHER).mean() > 0.95
    assert all(torch.equal(after[frame], before[frame]) for frame in after if frame < at)
    if at < 49:
        assert not torch.equal(after[at + 1], before[at + 1])


def test_a_correction_is_the_same_from_the_start_and_from_its_frame(tiny):
    results = []
    for options in ({}, {"start_frame_idx": 20}):
        state = started(tiny)
        collect(tiny, state)
        tiny.add_new_mask(state, 20, 1, OTHER)
        results.append(collect(tiny, state, **options))
    assert same({f: m for f, m in results[0].items() if f >= 20}, results[1])


def test_a_click_corrects_with_memory_and_further_clicks_refine_it(tiny):
    state = started(tiny)
    before = collect(tiny, state)
    report = tiny.track_report(state)
    at = int(report[(report.object_logit > 1) & (report.frame > 25)].frame.iloc[0])  # an absent object stays absent
    _, _, once = tiny.add_new_points_or_box(state, at, 1, points=[[20, 20]], labels=[1])
    assert not torch.equal(once, before[at])
    _, _, twice = tiny.add_new_points_or_box(state, at, 1, points=[[40, 40]], labels=[0], clear_old_points=False)
    assert not torch.equal(twice, once)
    after = collect(tiny, state, start_frame_idx=at)
    assert torch.equal(after[at], twice)


def test_clicking_twice_the_same_gives_the_same_as_in_a_fresh_state(tiny):
    """What a correction reads is replayed, not left over from earlier calls."""
    results = []
    for detour in (False, True):
        state = started(tiny)
        collect(tiny, state)
        if detour:  # other frames are looked at, and other objects come and go
            tiny.add_new_mask(state, 10, 2, THIRD)
            tiny.remove_object(state, 2)
            collect(tiny, state, start_frame_idx=5, max_frame_num_to_track=3)
        results.append(tiny.add_new_points_or_box(state, 30, 1, points=[[40, 40]], labels=[1])[2])
    assert torch.equal(*results)


def test_a_correction_of_one_object_leaves_the_others_as_they_were(tiny):
    state = started(tiny, [(0, 1, MASK), (0, 2, OTHER)])
    before = collect(tiny, state)
    tiny.add_new_mask(state, 25, 2, THIRD)
    after = collect(tiny, state)
    for frame in range(50):
        assert (after[frame][0] - before[frame][0]).abs().max() < 1e-3
    assert not torch.equal(after[30][1], before[30][1])


def test_taking_a_correction_back_gives_the_first_masks_again(tiny):
    state = started(tiny)
    before = collect(tiny, state)
    tiny.add_new_mask(state, 20, 1, OTHER)
    collect(tiny, state)
    tiny.clear_all_prompts_in_frame(state, 20, 1)
    after = collect(tiny, state)
    assert all(torch.equal(after[frame], before[frame]) for frame in range(20))
    assert not torch.equal(after[20], torch.from_numpy(OTHER))
    assert len(after) == 50


def visible_frames(tiny, start):
    """Frames with the object in sight, from `start` on."""
    masks = collect(tiny, started(tiny))
    return [frame for frame in range(start, 40) if 0.05 < float((masks[frame] > 0).float().mean()) < 0.95]


def test_a_second_correction_still_corrects_what_was_tracked(looks_at_all):
    """Without a pass in between: with its memory and its mask, not like the first click on an object."""
    first, *_, second = visible_frames(looks_at_all, 8)
    results = []
    for early in (False, True):
        state = started(looks_at_all)
        collect(looks_at_all, state)
        if early:
            looks_at_all.add_new_points_or_box(state, first, 1, points=[[40, 40]], labels=[1])
        results.append(looks_at_all.add_new_points_or_box(state, second, 1, points=[[5, 5]], labels=[0])[2])
        prompt = state.session.objects[1].prompts[second]
        assert prompt.corrects == 1 and prompt.tracked is not None
    assert torch.equal(*results)
    assert len(collect(looks_at_all, state)) == 50
    assert not state.session.objects[1].is_stale


def test_after_taking_everything_back_a_click_begins_anew(tiny):
    second = visible_frames(tiny, 8)[-1]
    results = []
    for tracked in (False, True):
        state = started(tiny)
        if tracked:
            collect(tiny, state)
        tiny.clear_all_prompts_in_frame(state, 0, 1)
        results.append(tiny.add_new_points_or_box(state, second, 1, points=[[40, 40]], labels=[1])[2])
        assert state.session.objects[1].prompts[second].corrects is None
    assert torch.equal(*results)


def test_a_correction_that_contradicts_is_not_followed_by_corrections_of_the_old_track(tiny):
    first, *_, second = visible_frames(tiny, 8)
    state = started(tiny)
    tracked = collect(tiny, state)[first][0, 0] > 0
    tiny.add_new_mask(state, first, 1, ~tracked)
    tiny.add_new_points_or_box(state, second, 1, points=[[40, 40]], labels=[1])
    assert state.session.objects[1].prompts[second].corrects is None


def readings_after_correcting(tiny, at, mask):
    state = started(tiny)
    masks = collect(tiny, state)
    tiny.add_new_mask(state, at, 1, masks[at][0, 0] > 0 if mask is None else mask)
    collect(tiny, state, start_frame_idx=at)
    return state, tiny.track_report(state).set_index("frame").memory_frames


def test_a_correction_that_contradicts_the_track_starts_afresh(tiny):
    """The newest correction wins: the old prompt and what was remembered of it are not read after it."""
    at = visible_frames(tiny, 15)[0]
    state = started(tiny)
    tracked = collect(tiny, state)[at][0, 0] > 0
    other = ~tracked
    _, read = readings_after_correcting(tiny, at, other)
    assert read[at + 1] == (at,)
    assert all(min(read[frame]) >= at for frame in range(at + 1, 50))
    assert all(0 in read[frame] for frame in range(1, at))


def test_a_correction_that_agrees_keeps_the_old_prompt_and_outweighs_it(tiny):
    at = visible_frames(tiny, 15)[0]
    state, read = readings_after_correcting(tiny, at, None)
    assert read[at + 1][:2] == (0, at) and len(read[at + 1]) > 2
    reading = state.session.objects[1].tracks[1].readings(45)[0]
    weights = key_weights([reading])[0][0]
    assert reading.times[:2] == (0, at)
    assert weights[1] > weights[0] and weights[1] == weights.max()


def test_many_corrections_read_a_bounded_number_of_prompted_frames(tiny):
    capped = reconfigured(tiny, Sam2LongConfig(max_prompted_frames=3))
    state = started(capped, [(frame, 1, MASK) for frame in range(0, 40, 4)])
    collect(capped, state)
    report = capped.track_report(state).set_index("frame")
    assert report.loc[45].memory_frames[:3] == (0, 32, 36)
    assert report.loc[17].memory_frames[:3] == (0, 16, 20)
    assert max(len(frames) for frames in report.memory_frames) <= 3 + 6


def test_prompting_in_the_middle_of_a_pass_goes_on_from_there(tiny):
    state = started(tiny)
    seen = []
    for frame, ids, masks in tiny.propagate_in_video(state):
        seen.append(frame)
        if frame == 15:
            tiny.add_new_mask(state, 20, 2, OTHER)
        if frame == 20:
            assert ids == [1, 2]
            assert ((masks[1, 0] > 0).numpy() == OTHER).mean() > 0.95
    assert seen == list(range(50))


def test_removing_in_the_middle_of_a_pass_does_not_disturb_the_rest(tiny):
    alone = run(tiny, VIDEO)
    state = started(tiny, [(0, 2, OTHER), (0, 1, MASK)])
    for frame, ids, masks in tiny.propagate_in_video(state):
        if frame == 10:
            tiny.remove_object(state, 2)
        if frame > 10:
            assert ids == [1]
            assert (masks - alone[frame]).abs().max() < 1e-3


# ---- directions and ranges -------------------------------------------------------------------------------------


def test_backwards_is_forwards_on_the_mirrored_video(tiny):
    forwards = run(tiny, VIDEO[::-1].copy(), [(0, 1, MASK)])
    backwards = run(tiny, VIDEO, [(49, 1, MASK)], reverse=True)
    assert list(backwards) == list(range(49, -1, -1))
    # The first frames: the network's input is the same; time runs the other way.
    assert all(torch.equal(backwards[49 - frame], forwards[frame]) for frame in forwards)


def test_both_directions_from_the_middle(tiny):
    state = started(tiny, [(20, 1, MASK)])
    ahead = collect(tiny, state)
    back = collect(tiny, state, reverse=True)
    assert list(ahead) == list(range(20, 50)) and list(back) == list(range(20, -1, -1))
    report = tiny.track_report(state)
    assert sorted(report.frame) == list(range(50))


def test_a_frame_shows_and_corrects_the_mask_that_was_seen_last(tiny, tmp_path):
    """Gone through both ways; that a later pass went somewhere else changes nothing here."""
    state = tiny.init_state(VIDEO)
    tiny.add_new_mask(state, 0, 1, MASK)
    tiny.add_new_mask(state, 12, 1, OTHER)
    forwards = collect(tiny, state)
    backwards = collect(tiny, state, start_frame_idx=12, reverse=True)
    seen = [frame for frame in range(1, 12) if not torch.equal(forwards[frame], backwards[frame])]
    assert len(seen) > 5
    collect(tiny, state, start_frame_idx=20)
    tiny.save_state(state, tmp_path / "state")
    for again in (state, tiny.load_state(tmp_path / "state", VIDEO)):
        tiny.clear_all_prompts_in_frame(again, 15, 1)  # nothing there: it only shows
        for frame in seen:
            assert torch.equal(tiny.clear_all_prompts_in_frame(again, frame, 1)[2], backwards[frame])
        tiny.add_new_points_or_box(again, seen[0], 1, points=[[40, 40]], labels=[1])
        assert again.session.objects[1].prompts[seen[0]].corrects == -1


def test_backwards_from_the_first_frame_is_empty_as_in_sam2(tiny):
    assert collect(tiny, started(tiny), reverse=True) == {}


def test_a_pass_in_pieces_gives_the_frames_of_the_whole(tiny):
    online = reconfigured(tiny, Sam2LongConfig(emit="online"))
    whole = run(online, VIDEO)
    state = started(online)
    pieces = collect(online, state, max_frame_num_to_track=9)
    for start in (10, 25, 40):
        pieces |= collect(online, state, start_frame_idx=start, max_frame_num_to_track=14)
    assert same(pieces, whole)


def test_leaving_off_and_going_on_is_the_unbroken_pass(tiny):
    whole = run(tiny, VIDEO)
    state = started(tiny)
    pieces, start = {}, None
    for stop in (3, 17, 18, 40, 60):
        for frame, _, masks in tiny.propagate_in_video(state, start_frame_idx=start):
            pieces[frame] = masks.clone()
            if frame == stop:
                break
        start = max(pieces) + 1
        if start == 50:
            break
    assert same(pieces, whole)


def test_a_second_pass_gives_the_masks_of_the_first(tiny):
    state = started(tiny)
    assert same(collect(tiny, state), collect(tiny, state))


def test_a_pass_can_start_behind_the_prompt(tiny):
    masks = collect(tiny, started(tiny), start_frame_idx=30)
    assert list(masks) == list(range(30, 50))
    assert any(bool((mask > 0).any()) for mask in masks.values())


# ---- state -----------------------------------------------------------------------------------------------------


def test_the_state_reads_like_sam2s(tiny):
    state = started(tiny, [(0, 4, MASK), (0, "cat", OTHER)])
    assert (state["num_frames"], state["video_height"], state["video_width"]) == (50, 64, 64)
    assert state["obj_ids"] == [4, "cat"]
    assert "num_frames" in state and state.get("nothing") is None


def test_removing_and_resetting(tiny):
    state = started(tiny, [(0, 1, MASK), (0, 2, OTHER)])
    ids, updated = tiny.remove_object(state, 1)
    assert ids == [2] and [frame for frame, _ in updated] == [0] and updated[0][1].shape == (1, 1, 64, 64)
    assert tiny.remove_object(state, 99) == ([2], [])
    with pytest.raises(StateError, match="99"):
        tiny.remove_object(state, 99, strict=True)
    tiny.reset_state(state)
    assert state["obj_ids"] == []
    tiny.add_new_mask(state, 0, 1, MASK)
    assert same(collect(tiny, state), run(tiny, VIDEO))


def test_two_sessions_side_by_side_equal_two_alone(tiny):
    other_video = noise_video(50, seed=8)
    expected = run(tiny, VIDEO), run(tiny, other_video, [(0, 1, OTHER)])
    first, second = started(tiny), tiny.init_state(other_video)
    tiny.add_new_mask(second, 0, 1, OTHER)
    got = {}, {}
    for (f, _, a), (g, _, b) in zip(tiny.propagate_in_video(first), tiny.propagate_in_video(second), strict=True):
        got[0][f], got[1][g] = a, b
    assert same(got[0], expected[0]) and same(got[1], expected[1])


@pytest.mark.parametrize("emit", ["settled", "online"])
@pytest.mark.parametrize("stop", [4, 27])
def test_a_saved_and_loaded_run_equals_the_unbroken_one(tiny, tmp_path, emit, stop):
    predictor = reconfigured(tiny, Sam2LongConfig(emit=emit))
    prompts = [(0, 1, MASK), (8, "late", OTHER)]
    whole_state = started(predictor, prompts)
    whole = collect(predictor, whole_state)
    state, pieces = started(predictor, prompts), {}
    for frame, _, masks in predictor.propagate_in_video(state):
        pieces[frame] = masks.clone()
        if frame == stop:
            break
    predictor.save_state(state, tmp_path / "state.safetensors")
    fresh = reconfigured(back_end(name_of(tiny)), Sam2LongConfig(emit=emit))
    loaded = fresh.load_state(tmp_path / "state.safetensors", VIDEO)
    pieces |= collect(fresh, loaded, start_frame_idx=stop + 1)
    assert same(pieces, whole)
    pd.testing.assert_frame_equal(fresh.track_report(loaded), predictor.track_report(whole_state))


def test_a_correction_after_loading_equals_one_without(tiny, tmp_path):
    state = started(tiny)
    collect(tiny, state)
    tiny.save_state(state, tmp_path / "state")
    loaded = tiny.load_state(tmp_path / "state", VIDEO)
    for one in (state, loaded):
        tiny.add_new_points_or_box(one, 33, 1, points=[[40, 40]], labels=[1])
    assert same(collect(tiny, state), collect(tiny, loaded))


def test_a_second_correction_after_loading_still_corrects_what_was_tracked(looks_at_all, tmp_path):
    first, *_, second = visible_frames(looks_at_all, 8)
    state = started(looks_at_all)
    collect(looks_at_all, state)
    looks_at_all.add_new_points_or_box(state, first, 1, points=[[40, 40]], labels=[1])
    looks_at_all.clear_all_prompts_in_frame(state, 0, 1)  # what the last pass read is no prompt of the object any more
    looks_at_all.save_state(state, tmp_path / "state")
    loaded = looks_at_all.load_state(tmp_path / "state", VIDEO)
    masks = [looks_at_all.add_new_points_or_box(s, second, 1, points=[[5, 5]], labels=[0])[2] for s in (state, loaded)]
    assert [s.session.objects[1].prompts[second].corrects for s in (state, loaded)] == [1, 1]
    assert torch.equal(*masks)
    assert same(collect(looks_at_all, state), collect(looks_at_all, loaded))


def test_a_state_of_something_else_is_refused(tiny, tmp_path):
    path = tmp_path / "state"
    tiny.save_state(started(tiny), path)
    with pytest.raises(StateError, match="another video"):
        tiny.load_state(path, VIDEO[:20])
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StateError, match="not a state"):
        tiny.load_state(path, VIDEO)
    with pytest.raises(StateError, match="cannot read"):
        tiny.load_state(tmp_path / "nothing", VIDEO)
    with pytest.raises(StateError, match="cannot write"):
        tiny.save_state(started(tiny), tmp_path / "no" / "folder")
    assert not list(tmp_path.glob("*.partial"))


def test_an_error_in_the_middle_leaves_a_state_that_goes_on(tiny, monkeypatch):
    whole = run(tiny, VIDEO)
    state, pieces = started(tiny), {}
    encoder = getattr(tiny, "model", tiny).memory_encoder
    original = encoder.forward
    calls = []

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == 20:
            raise MemoryError("no memory left")
        return original(*args, **kwargs)

    monkeypatch.setattr(encoder, "forward", failing)
    with pytest.raises(MemoryError):
        for frame, _, masks in tiny.propagate_in_video(state):
            pieces[frame] = masks.clone()
    pieces |= collect(tiny, state, start_frame_idx=max(pieces) + 1)
    assert same(pieces, whole)


def test_a_pass_that_skipped_frames_leaves_nothing_behind(tiny):
    """Snapshots of a pass whose frames have been replaced are no way back."""
    detour = started(tiny)
    collect(tiny, detour, start_frame_idx=10)
    straight = started(tiny)
    assert same(collect(tiny, detour, start_frame_idx=0), collect(tiny, straight, start_frame_idx=0))
    click = {"points": [[30, 30]], "labels": [1]}
    corrected = [tiny.add_new_points_or_box(state, 14, 1, **click)[2] for state in (detour, straight)]
    assert torch.equal(*corrected)
    assert same(*(collect(tiny, state, start_frame_idx=14) for state in (detour, straight)))


def test_a_pass_that_breaks_off_before_its_first_frame_spoils_nothing(tiny, monkeypatch):
    whole = run(tiny, VIDEO)
    state = started(tiny)
    for frame, _, _ in tiny.propagate_in_video(state):
        if frame == 8:
            break
    with monkeypatch.context() as broken:
        broken.setattr(type(state["images"]), "iter_from", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            list(tiny.propagate_in_video(state, start_frame_idx=3))
    after = collect(tiny, state, start_frame_idx=9)
    assert same(after, {frame: masks for frame, masks in whole.items() if frame >= 9})


def test_passes_that_cross_are_refused(tiny):
    state = started(tiny)
    first = tiny.propagate_in_video(state)
    for _ in first:
        if state.session.objects[1].tracks[1].ready:
            break  # the next frame is ready: not even the source has to be asked for it
    list(tiny.propagate_in_video(state, start_frame_idx=0, max_frame_num_to_track=0))
    with pytest.raises(StateError, match="another pass"):
        next(first)


def test_a_loaded_state_keeps_the_settings_that_it_was_saved_with(tiny, tmp_path):
    whole = run(tiny, VIDEO)
    state = started(tiny)
    next(tiny.propagate_in_video(state))
    tiny.save_state(state, tmp_path / "state")
    others = reconfigured(tiny, Sam2LongConfig(num_pathways=1, modulation=(0.5, 1.5)))
    loaded = others.load_state(tmp_path / "state", VIDEO)
    after = collect(others, loaded, start_frame_idx=1)
    assert same(after, {frame: masks for frame, masks in whole.items() if frame >= 1})
    with pytest.raises(StateError, match="another video or model"):
        back_end(name_of(tiny), seed=77).load_state(tmp_path / "state", VIDEO)


@pytest.mark.parametrize(
    "mask",
    [MASK[::-1, ::-1], MASK.astype(np.uint16) * 300, MASK.astype(">f4"), MASK.astype(object), MASK.tolist()],
    ids=["flipped", "uint16", "big-endian", "object", "list"],
)
def test_any_array_of_numbers_is_a_mask(tiny, mask):
    state = started(tiny, [(0, 1, mask)])
    expected = started(tiny, [(0, 1, np.ascontiguousarray(np.asarray(mask) != 0))])
    assert torch.equal(state.session.masks_on(0).masks[0], expected.session.masks_on(0).masks[0])


def test_swapped_columns_are_points(tiny):
    yx = np.array([[40, 30]])
    states = started(tiny, []), started(tiny, [])
    swapped = tiny.add_new_points_or_box(states[0], 0, 1, points=yx[:, ::-1], labels=[1])[2]
    assert torch.equal(swapped, tiny.add_new_points_or_box(states[1], 0, 1, points=[[30, 40]], labels=[1])[2])


@pytest.mark.parametrize("count", [-1, 2.5, "3", True])
def test_bad_counts_are_refused(tiny, count):
    with pytest.raises(PromptError, match="max_frame_num_to_track"):
        next(tiny.propagate_in_video(started(tiny), max_frame_num_to_track=count))


def test_memories_on_the_host_give_the_same_masks(tiny):
    state = tiny.init_state(VIDEO, offload_state_to_cpu=True)
    tiny.add_new_mask(state, 0, 1, MASK)
    assert same(collect(tiny, state), run(tiny, VIDEO))


def test_small_holes_are_filled_only_when_asked(looks_at_all):
    holed = MASK.copy()
    holed[24:32, 32:40] = False  # two by two pixels of the low-resolution mask
    filling = reconfigured(looks_at_all, Sam2LongConfig())
    filling.fill_hole_area = 8
    for predictor, filled in ((looks_at_all, False), (filling, True)):
        state = predictor.init_state(VIDEO)
        predictor.add_new_mask(state, 0, 1, holed)
        low = state.session.objects[1].prompts[0].output.mask
        hole = low[0, 0, 6:8, 8:10]
        assert bool((hole > 0).all()) is filled


# ---- refusals --------------------------------------------------------------------------------------------------

BAD_POINTS = {
    "no prompt": ({}, "no prompt"),
    "points without labels": ({"points": [[1, 1]]}, "without labels"),
    "labels without points": ({"labels": [1], "box": [1, 1, 9, 9]}, "without points"),
    "count": ({"points": [[1, 1], [2, 2]], "labels": [1]}, "2 points but 1 labels"),
    "empty": ({"points": [], "labels": []}, "empty"),
    "shape": ({"points": [[1, 2, 3]], "labels": [1]}, "shape"),
    "not numbers": ({"points": [["a", "b"]], "labels": [1]}, "points"),
    "ragged": ({"points": [[1, 2], [3]], "labels": [1, 1]}, "points"),
    "two boxes": ({"box": [[1, 1, 5, 5], [6, 6, 9, 9]]}, "two boxes"),
    "three numbers": ({"box": [1, 2, 3]}, "four numbers"),
    "box onto points": ({"box": [1, 1, 9, 9], "clear_old_points": False}, "clear_old_points"),
}


@pytest.mark.parametrize(("said", "complaint"), BAD_POINTS.values(), ids=BAD_POINTS)
def test_bad_points_and_boxes_are_refused_and_change_nothing(tiny, said, complaint):
    state = started(tiny)
    list(tiny.propagate_in_video(state, max_frame_num_to_track=5))
    with pytest.raises(PromptError, match=complaint):
        tiny.add_new_points_or_box(state, 3, 7, **said)
    assert state["obj_ids"] == [1]
    assert list(state.session.objects[1].prompts) == [0]


BAD_MASKS = {
    "shape": (np.ones((64, 64, 3)), "shape"),
    "nothing": (np.ones((0, 64)), "shape"),
    "none": (None, "mask"),
}


@pytest.mark.parametrize(("mask", "complaint"), BAD_MASKS.values(), ids=BAD_MASKS)
def test_bad_masks_are_refused_and_change_nothing(tiny, mask, complaint):
    state = started(tiny)
    with pytest.raises(PromptError, match=complaint):
        tiny.add_new_mask(state, 0, 7, mask)
    assert state["obj_ids"] == [1]


@pytest.mark.parametrize("frame", [-1, 50, 1.5, "0", True, None])
def test_frames_out_of_range_are_refused(tiny, frame):
    state = started(tiny)
    with pytest.raises(PromptError, match="frame index"):
        tiny.add_new_mask(state, frame, 2, MASK)
    assert state["obj_ids"] == [1]


def test_tracking_nothing_is_refused(tiny):
    state = tiny.init_state(VIDEO)
    with pytest.raises(StateError, match="nothing to track"):
        next(tiny.propagate_in_video(state))
    tiny.add_new_mask(state, 0, 1, MASK)
    tiny.clear_all_prompts_in_frame(state, 0, 1)
    with pytest.raises(RuntimeError, match="no prompt left"):  # sam2 raises a RuntimeError too
        next(tiny.propagate_in_video(state))
    with pytest.raises(StateError, match="no object 9"):
        tiny.clear_all_prompts_in_frame(state, 0, 9)


def test_every_refusal_has_one_base_class():
    assert all(issubclass(error, Sam2LongError) for error in (PromptError, StateError, ConfigError, ModelError))


def test_wrapping_something_else_is_refused():
    with pytest.raises(ModelError, match="SAM2VideoPredictor"):
        SAM2LongVideoPredictor.from_sam2(torch.nn.Linear(1, 1))


def test_wrapping_a_model_in_training_mode_is_refused():
    model = tiny_predictor()
    model.train()
    with pytest.raises(ModelError, match="eval"):
        SAM2LongVideoPredictor.from_sam2(model)
    assert model.training


def test_an_unknown_dtype_is_refused(tiny_on_sam2):
    with pytest.raises(ConfigError, match="float8"):
        SAM2LongVideoPredictor.from_sam2(tiny_on_sam2, dtype="float8")


def test_bfloat16_on_the_cpu_tracks_about_the_same(tiny_on_sam2):
    half = SAM2LongVideoPredictor.from_sam2(tiny_on_sam2, Sam2LongConfig(num_pathways=1), dtype="bfloat16")
    full = reconfigured(tiny_on_sam2, Sam2LongConfig(num_pathways=1))
    a, b = run(half, VIDEO[:6]), run(full, VIDEO[:6])
    assert a[5].dtype == torch.float32
    assert not torch.equal(a[1], b[1])
    agree = np.mean([float(((a[frame] > 0) == (b[frame] > 0)).float().mean()) for frame in (0, 1)])
    assert agree > 0.9


def test_the_callers_autocast_does_not_reach_us(tiny):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = run(tiny, VIDEO[:8])
    assert same(inside, run(tiny, VIDEO[:8]))


def test_modules_that_sam2_compiled_in_place_are_taken_without_their_graphs(tiny_on_sam2):
    def graph(*args, **kwargs):
        raise AssertionError("the next call overwrites what this gives")

    theirs = copy.copy(tiny_on_sam2.network)
    theirs._modules = dict(theirs._modules)
    for name in ("memory_encoder", "sam_mask_decoder", "sam_prompt_encoder"):  # as SAM2VideoPredictorVOS does
        theirs._modules[name] = copy.copy(theirs._modules[name])
        theirs._modules[name].forward = graph
    ours = SAM2LongVideoPredictor.from_sam2(theirs)
    assert same(run(ours, VIDEO[:8]), run(tiny_on_sam2, VIDEO[:8]))
    assert vars(theirs.memory_encoder)["forward"] is graph, "theirs stays as it is"


def test_an_image_encoder_that_reuses_its_outputs_is_no_trouble(tiny_on_sam2):
    """CUDA graphs do; a correction replays other frames between encoding its own and reading it."""
    encoder, buffers = copy.copy(tiny_on_sam2.image_encoder), {}

    def graph(image):
        out = tiny_on_sam2.image_encoder(image)
        for name in ("backbone_fpn", "vision_pos_enc"):
            for level, tensor in enumerate(out[name]):
                out[name][level] = buffers.setdefault((name, level), torch.empty_like(tensor)).copy_(tensor)
        return out

    encoder.forward = graph
    network = copy.copy(tiny_on_sam2.network)
    network._modules = network._modules | {"image_encoder": encoder}
    reusing = SAM2LongVideoPredictor.from_sam2(network)
    found = []
    for predictor in (reusing, tiny_on_sam2):
        state = predictor.init_state(VIDEO)
        predictor.add_new_mask(state, 0, 1, MASK)
        collect(predictor, state)
        predictor.add_new_points_or_box(state, 13, 1, points=[[30.0, 30.0]], labels=[1])
        found.append(collect(predictor, state, start_frame_idx=13))
    assert same(*found)
