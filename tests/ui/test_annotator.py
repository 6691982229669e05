"""What a user does to a project, and what is left of it after a kill."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from sam2long.cli import main
from sam2long.errors import DataError, PromptError, StateError
from sam2long.export.masks import MaskReader, MaskWriter, decode_mask, encode_mask
from sam2long.runs.settings import RunSettings
from sam2long.ui.annotator import Annotator
from sam2long.ui.project import Project
from sam2long.video import open_source
from tests.fakes import SIDE, noise_video
from tests.ui.conftest import FRAMES, OBJECTS, inside, overlap


def prompted(annotator, truth, frame=0):
    for obj_id in OBJECTS:
        annotator.new_object(label=f"class {obj_id}")
        annotator.click(obj_id, frame, *inside(truth, frame, obj_id), True)
    return annotator


def masks_of(annotator, frames=range(FRAMES)):
    return {(frame, obj): rle for frame in frames for obj, rle in annotator.project.store.masks(frame).items()}


def track(annotator, *args, **kwargs):
    return annotator.tracker.propagate(*args, **kwargs)


def test_clicks_find_the_objects_and_tracking_follows_them(opened, truth):
    annotator = prompted(opened(), truth)
    assert track(annotator, "forward", 0) == FRAMES
    for obj_id in OBJECTS:
        found = [decode_mask(annotator.project.store.mask(frame, obj_id)) for frame in range(FRAMES)]
        scores = [overlap(mask, truth[frame] == obj_id) for frame, mask in enumerate(found)]
        assert np.mean(scores) > 0.5, scores


def test_a_correction_changes_what_follows_and_nothing_before(opened, truth):
    annotator = prompted(opened(), truth)
    track(annotator, "forward", 0)
    before = masks_of(annotator)
    annotator.box(1, 8, (5, 5, 40, 40))
    assert annotator.project.stale[1] == set(range(9, FRAMES)) and not annotator.project.stale[2]
    assert track(annotator, "forward", 8) == FRAMES - 8
    after = masks_of(annotator)
    assert all(after[frame, obj] == before[frame, obj] for frame in range(8) for obj in OBJECTS)
    assert after[8, 1] != before[8, 1] and after[12, 1] != before[12, 1]
    assert not annotator.project.stale[1]


def test_a_good_mask_makes_nothing_out_of_date_beyond_the_neighbouring_prompts(opened, truth):
    annotator = prompted(opened(), truth)
    track(annotator, "forward", 0)
    annotator.lock(1, 10)
    track(annotator, "both", 10)
    meets = min((frame for frame in range(1, 10) if annotator.project.store.row(frame, 1).backward), default=10)
    annotator.lock(1, 3 if meets > 5 else 7)  # where the two passes meet nothing would be out of date
    stale = annotator.project.stale[1]
    assert stale and all(0 < frame < 10 for frame in stale), "what follows from frame 10 stays as it is"


def test_only_the_chosen_object_is_replaced(opened, truth):
    annotator = prompted(opened(), truth)
    track(annotator, "forward", 0)
    before = masks_of(annotator)
    for obj_id in OBJECTS:
        annotator.box(obj_id, 8, (5, 5, 40, 40))
    track(annotator, "forward", 8, only=[2])
    after = masks_of(annotator)
    assert all(after[frame, 1] == before[frame, 1] for frame in range(9, FRAMES))
    assert after[12, 2] != before[12, 2]
    assert annotator.project.stale[1] == set(range(9, FRAMES))


@pytest.mark.parametrize(("direction", "start", "end", "frames"), [
    ("forward", 6, 9, range(6, 10)),
    ("backward", 6, 3, range(3, 7)),
    ("backward", 6, None, range(7)),
    ("both", 6, None, range(FRAMES)),
])  # fmt: skip
def test_a_range_is_tracked_and_no_more(opened, truth, direction, start, end, frames):
    annotator = prompted(opened(), truth, frame=6)
    assert track(annotator, direction, start, end) == len(frames), "the frame where both ways begin counts once"
    assert annotator.project.store.frames() == list(frames)


def test_cancelling_keeps_what_was_done_and_the_rest_can_follow(opened, truth):
    whole = prompted(opened("whole"), truth)
    track(whole, "forward", 0)
    annotator = prompted(opened("broken off"), truth)
    asked = []

    def cancelled():
        asked.append(None)
        return len(asked) > 8

    done = track(annotator, "forward", 0, cancelled=cancelled)
    assert 0 < done < FRAMES
    assert annotator.project.store.frames() == list(range(done))
    track(annotator, "forward", done)
    assert masks_of(annotator) == masks_of(whole)


def test_undo_goes_back_step_by_step_to_the_bit(opened, truth):
    annotator = prompted(opened(), truth)
    track(annotator, "forward", 0)
    steps = [masks_of(annotator)]
    annotator.click(1, 10, *inside(truth, 12, 1), True)
    steps.append(masks_of(annotator))
    annotator.click(1, 10, 3.0, 3.0, False)
    steps.append(masks_of(annotator))
    annotator.lock(2, 5)
    steps.append(masks_of(annotator))
    annotator.clear(1, 10)
    for expected in reversed(steps):
        annotator.undo()
        assert masks_of(annotator) == expected
    assert annotator.project.prompt(1, 10) is None and not annotator.project.stale[1]
    # The tracker, too, is where it was: the same clicks give the same masks.
    annotator.click(1, 10, *inside(truth, 12, 1), True)
    assert masks_of(annotator) == steps[1]


def test_undoing_an_objects_only_prompt_leaves_the_others_to_be_tracked(opened, truth):
    annotator = prompted(opened(), truth)
    annotator.undo()
    assert list(annotator.project.objects) == list(OBJECTS)
    assert track(annotator, "forward", 0) == FRAMES
    assert {obj for _, obj in masks_of(annotator)} == {1}


def test_clearing_a_correction_brings_back_what_the_tracker_had(opened, truth):
    annotator = prompted(opened(), truth)
    track(annotator, "forward", 0)
    tracked = annotator.project.store.mask(9, 1)
    annotator.box(1, 9, (5, 5, 40, 40))
    assert annotator.project.store.mask(9, 1) != tracked
    annotator.clear(1, 9)
    assert annotator.project.store.mask(9, 1) == tracked


def test_a_locked_frame_is_a_prompt_and_stays_as_it_was(opened, truth):
    annotator = prompted(opened(), truth)
    track(annotator, "forward", 0)
    good = decode_mask(annotator.project.store.mask(7, 1))
    annotator.lock(1, 7)
    assert annotator.project.store.row(7, 1).prompted
    assert np.array_equal(decode_mask(annotator.project.store.mask(7, 1)), good)
    track(annotator, "forward", 0)
    assert np.array_equal(decode_mask(annotator.project.store.mask(7, 1)), good)


def test_removing_and_resetting_leave_the_other_object_alone(opened, truth):
    annotator = prompted(opened(), truth)
    track(annotator, "forward", 0)
    of_two = {key: rle for key, rle in masks_of(annotator).items() if key[1] == 2}
    annotator.remove_object(1)
    assert masks_of(annotator) == of_two
    annotator.reset(keep_masks=True)
    assert masks_of(annotator) == of_two and annotator.project.objects[2].label == "class 2"
    with pytest.raises(StateError, match="nothing to track"):
        track(annotator, "forward", 0)
    annotator.lock(2, 4)  # goes on from a mask that was kept
    annotator.reset()
    assert not masks_of(annotator)
    assert annotator.new_object().id == 3  # an id is never used twice


def test_a_project_is_as_it_was_after_a_kill(opened, truth, clip, nano, tmp_path):
    annotator = prompted(opened(), truth)
    annotator.change_object(1, name="Rex", colour="#102030")
    track(annotator, "forward", 0)
    annotator.click(2, 11, *inside(truth, 11, 2), True)  # after the state was saved
    killed = tmp_path / "killed"
    shutil.copytree(annotator.project.folder.path, killed)  # the files of a program that is killed now
    with (killed / "masks.jsonl").open("a") as file:
        file.write('{"frame": 3, "obj')
    again = opened("killed")
    for name in ("objects", "prompts", "stale", "next_id", "revision"):
        assert getattr(again.project, name) == getattr(annotator.project, name), name
    assert masks_of(again) == masks_of(annotator)
    assert str(again.project.store.rows(1)) == str(annotator.project.store.rows(1))  # as text: NaN is not NaN
    assert track(again, "forward", 9) == FRAMES - 9


def test_a_saved_state_goes_on_as_if_nothing_had_happened(opened, truth, tmp_path):
    annotator = prompted(opened(), truth)
    track(annotator, "forward", 0, 9)
    annotator.close()
    shutil.copytree(annotator.project.folder.path, tmp_path / "later")
    track(annotator, "forward", 10)
    later = opened("later")
    track(later, "forward", 10)
    assert masks_of(later) == masks_of(annotator)


def test_a_project_is_a_run_and_its_prompts_are_prompts(opened, truth, clip, tmp_path):
    annotator = prompted(opened(), truth)
    track(annotator, "forward", 0)
    annotator.lock(1, 6)
    annotator.project.finish_files()
    folder = annotator.project.folder
    with MaskReader(folder.masks) as masks:
        assert masks.frames == list(range(FRAMES)) and masks.header["objects"] == {"1": "class 1", "2": "class 2"}
    assert json.loads(folder.info.read_text())["objects"]["1"] == {"first": 0, "last": 6, "label": "class 1"}
    assert folder.report.read_text().count("\n") == 1 + 2 * FRAMES
    out = tmp_path / "tracked"
    prompts = str(annotator.project.prompts_file)
    assert main(["track", str(clip), "--prompts", prompts, "--out", str(out), "--quiet", "--device", "cpu"]) == 0
    with MaskReader(out / "masks.jsonl") as masks:
        assert overlap(masks.masks(0)[2], decode_mask(annotator.project.store.mask(0, 2))) > 0.95


def test_a_run_of_track_can_be_corrected(opened, truth, clip, tmp_path):
    mask = np.zeros(truth[0].shape, bool)
    mask[truth[0] == 2] = True
    prompts = tmp_path / "p.json"
    x, y = inside(truth, 0, 1)
    prompts.write_text(
        json.dumps(
            [
                {"frame": 0, "object": 1, "label": "ball", "points": [[x, y]]},
                {"frame": 0, "object": 2, "mask": encode_mask(mask)},
            ]
        )
    )
    out = tmp_path / "run"
    assert main(["track", str(clip), "--prompts", str(prompts), "--out", str(out), "--quiet", "--device", "cpu"]) == 0
    with MaskReader(out / "masks.jsonl") as masks:
        tracked = masks.masks(9)
    annotator = opened("run")
    assert annotator.project.objects[1].label == "ball"
    assert (decode_mask(annotator.project.store.mask(9, 1)) == tracked[1]).all()
    assert annotator.project.store.row(9, 1).iou > 0 and annotator.project.store.row(0, 1).prompted
    assert annotator.project.prompt(1, 0).points == ((x, y),) and annotator.project.prompt(2, 0).mask is not None
    annotator.box(1, 9, (5, 5, 40, 40))
    assert track(annotator, "forward", 9) == FRAMES - 9


def test_what_cannot_be_done_is_refused_and_changes_nothing(opened, truth):
    annotator = prompted(opened(), truth)
    before = masks_of(annotator), dict(annotator.project.prompts[1]), annotator.undo_steps
    refusals = [
        (PromptError, "outside the video", lambda: annotator.click(1, 0, 500, 3, True)),
        (PromptError, "say first what the object is", lambda: annotator.click(1, 4, 5, 5, False)),
        (PromptError, "out of range", lambda: annotator.click(1, FRAMES, 5, 5, True)),
        (PromptError, "no mask on frame 4", lambda: annotator.lock(1, 4)),
        (PromptError, "nothing to clear", lambda: annotator.clear(1, 4)),
        (PromptError, "no area", lambda: annotator.box(1, 0, (9, 9, 9, 20))),
        (PromptError, "other direction", lambda: track(annotator, "forward", 9, 3)),
        (StateError, "no object 7", lambda: annotator.click(7, 0, 5, 5, True)),
        (StateError, "no object 7", lambda: track(annotator, "forward", 0, only=[7])),
    ]
    for kind, words, action in refusals:
        with pytest.raises(kind, match=words):
            action()
    assert (masks_of(annotator), dict(annotator.project.prompts[1]), annotator.undo_steps) == before


def test_a_project_is_open_once_and_belongs_to_one_video(opened, truth, nano, clip, tmp_path):
    annotator = prompted(opened(), truth)
    project = annotator.project
    with pytest.raises(StateError, match="another sam2long command"):
        Project(project.folder.path, project.source, project.settings)
    annotator.close()
    copy = shutil.copytree(project.folder.path, tmp_path / "copy")
    content = json.loads((copy / "prompts.json").read_text())
    content["video"]["num_frames"] = 7
    (copy / "prompts.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="7 frames; this one has 14"):
        opened("copy")
    (copy / "prompts.json").write_text('{"format": "sam2long-project", "version": 1, "video"')
    with pytest.raises(DataError, match="damaged"):
        opened("copy")


def test_the_annotator_tells_what_has_changed(opened, truth):
    told = []
    annotator = opened()
    annotator = Annotator(annotator.project, annotator.tracker.predictor, lambda frame, ids: told.append((frame, ids)))
    prompted(annotator, truth)
    assert told == [(0, [1]), (0, [2])]
    track(annotator, "forward", 0, 2)
    assert told[2:] == [(frame, [1, 2]) for frame in range(3)]


def test_a_run_of_a_longer_video_is_refused_and_stays_as_it_is(tmp_path):
    header = {"height": SIDE, "width": SIDE, "fps": 25.0, "num_frames": 40, "start": 0, "stride": 1, "objects": {}}
    masks = MaskWriter(tmp_path / "masks.jsonl", header)
    for frame in (0, 30):
        masks.write(frame, frame, None, {1: np.ones((SIDE, SIDE), bool)})
    masks.close()
    before = (tmp_path / "masks.jsonl").read_bytes()
    with pytest.raises(DataError, match="masks up to frame 30, but this video has 20 frames"):
        Project(tmp_path, open_source(noise_video(20)), RunSettings(video="clip.mp4"))
    assert (tmp_path / "masks.jsonl").read_bytes() == before
