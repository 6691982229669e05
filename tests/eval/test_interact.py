"""The simulated annotator, the rules, where passes meet, and a small run through the command line."""

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from eval.cli import main
from eval.interact import annotator, tables
from eval.interact.corrected import Corrected
from eval.interact.rules import RULES, looked_at
from sam2long.known import Row


def square(x, size=4, shape=(12, 20)):
    mask = np.zeros(shape, bool)
    mask[4 : 4 + size, x : x + size] = True
    return mask


def rows_of(statuses):
    return [Row(status=status, iou=0.9) for status in statuses]


class Video(SimpleNamespace):
    """Enough of a `Corrected` for a rule."""

    def score(self, frame):
        return self.scores[frame]

    def iou(self, frame):
        return self.scores[frame]


def video(prompts=(0,), scores=None, count=17):
    return Video(
        prompts=dict.fromkeys(prompts, "mask"),
        masks=[square(3)] * count,
        seen=rows_of(["visible"] * count),
        scores=scores or [90.0] * count,
    )


def chosen(rule, of, frames=None):
    frames = [t for t in range(len(of.masks)) if t not in of.prompts] if frames is None else frames
    return RULES[rule](of, frames, random.Random(0))


def test_a_click_goes_to_the_middle_of_the_largest_error():
    truth, mask = square(3, 5), square(3, 5)
    mask[4:9, 5:8] = False  # 3 wide is missing
    mask[0:2, 15:17] = True  # 2 wide is too much
    (x, y), label = annotator.on_error(truth, mask)
    assert label == 1 and 5 < x < 8 and 4 < y < 9
    mask[4:9, 5:8] = True
    assert annotator.on_error(truth, mask)[1] == 0
    assert annotator.on_error(truth, truth) is None


def test_a_box_is_drawn_where_the_mask_is_far_off():
    said = []

    class Answers:
        def add_new_points_or_box(self, state, frame, obj_id, **prompt):
            said.append(prompt)
            return frame, [obj_id], torch.from_numpy(np.where(square(3), 1.0, -1.0))[None, None]

    def corrected(seen):
        said.clear()
        return annotator.correct(Answers(), None, 0, 1, square(3), seen, "boxes")[1]

    assert corrected(square(12)) == 2 and said == [{"box": [3, 4, 7, 8]}], "its two corners"
    assert corrected(square(4)) == 1 and said[0]["labels"] in ([0], [1])


def test_even_halves_the_video_and_then_the_halves():
    frames, done = [], [0]
    for _ in range(5):
        frames.append(chosen("even", video(done)))
        done.append(frames[-1])
    assert frames == [8, 4, 12, 2, 10]


def test_middle_goes_into_the_longest_stretch():
    assert chosen("middle", video([0, 4])) == 10
    assert chosen("middle", video([0, 12])) == 6
    assert chosen("middle", video([0]), frames=[3, 15]) == 3, "the nearest that can be corrected"


def test_the_oracle_goes_to_the_worst_frame_and_online_to_the_first_poor_one():
    scores = [90.0] * 17
    scores[5], scores[9] = 70.0, 10.0
    assert chosen("oracle", video(scores=scores)) == 9
    assert chosen("online", video(scores=scores)) == 5
    assert chosen("online", video([0, 5], scores)) == 9
    assert chosen("online", video([0, 9], scores)) is None


def test_a_random_frame_is_one_of_those_that_can_be_corrected():
    assert {RULES["random"](video(), [3, 7], random.Random(k)) for k in range(9)} == {3, 7}


class OneWay:
    """A predictor that gives the masks it was made with."""

    def __init__(self, masks, direction):
        self.masks = masks
        self.state = SimpleNamespace(session=SimpleNamespace(objects={1: SimpleNamespace(tracks={direction: self})}))
        self.log = self

    def time(self, frame):
        return frame

    def at(self, frame):
        return SimpleNamespace(
            status="visible", iou=self.masks[frame][1], object_logit=9.0, pathways=1, margin=np.inf, prompted=False
        )

    def propagate_in_video(self, state, start_frame_idx, max_frame_num_to_track, reverse):
        for step in range(max_frame_num_to_track + 1):
            frame = start_frame_idx + (-step if reverse else step)
            mask = self.masks[frame][0] if frame in self.masks else square(0)
            yield frame, [1], torch.from_numpy(np.where(mask, 1.0, -1.0))[None, None]


def merged(old, new, start, stop, prompts):
    """A `Corrected` that has just been tracked one way. old: frame -> (mask, row); new: frame -> (mask, iou)."""
    made = object.__new__(Corrected)
    direction = 1 if stop > start else -1
    made.prompts, made._scores, made.frames_tracked = dict.fromkeys(prompts, "mask"), {}, 0
    made.predictor = OneWay(new, direction)
    made.state = made.predictor.state
    made.masks, made.seen = [old[t][0] for t in range(9)], [old[t][1] for t in range(9)]
    made._track(start, direction, stop)
    return [int(np.flatnonzero(mask.any(0))[0]) for mask in made.masks], made.seen


def test_a_correction_meets_the_pass_of_the_prompt_before_it():
    def one(right, backward=False):
        return square(3 if right else 12), Row(iou=0.9 if right else 0.3, object_logit=9, backward=backward)

    old = {t: one(t < 4) for t in range(9)}  # lost from frame 4 on
    new = {t: (square(3), 0.9) if t > 1 else (square(12), 0.3) for t in range(1, 6)}  # lost before frame 2
    places, seen = merged(old, new, 6, 0, [0, 6])
    assert places[:6] == [3, 3, 3, 3, 3, 3]
    assert [round(row.agreement, 1) for row in seen[1:6]] == [0.0, 1.0, 1.0, 0.0, 0.0]
    assert seen[5].backward and not seen[1].backward


def test_what_was_tracked_from_the_same_side_is_out_of_date():
    old = {t: (square(12), Row(backward=t > 5, prompted=t == 8)) for t in range(9)}
    new = {t: (square(3), 0.9) for t in range(3, 9)}
    places, seen = merged(old, new, 2, 8, [0, 2, 8])
    assert places[3:6] == [3, 3, 3], "forward from frame 0, before frame 2 was corrected"
    assert places[8] == 12, "a prompt stays"
    assert all(row.agreement is None for row in seen[3:6]) and seen[6].agreement == 0
    assert merged(old, new, 2, 7, [0, 2])[0][3:8] == [3] * 5, "no prompt beyond: nothing to meet"


def test_beyond_the_next_prompt_only_what_came_the_same_way_is_replaced():
    old = {t: (square(12), Row(backward=t == 7, prompted=t == 5)) for t in range(9)}
    new = {t: (square(3), 0.9) for t in range(3, 9)}
    places, _ = merged(old, new, 2, 8, [0, 2, 5])
    assert places[3:] == [3, 3, 12, 3, 12, 3]


def test_online_one_looks_at_every_frame_up_to_the_correction():
    of = video([0, 4, 9])
    assert [looked_at(rule, of) for rule in ("middle", "random", "online", "oracle")] == [2, 2, 9, 32]


def rounds(*values, looks=1):
    return [
        {
            "J&F": value,
            "clicks": 2 * k,
            "frame": k or None,
            "frames looked at": looks * k,
            "frames tracked": 20 + 20 * k,
        }
        for k, value in enumerate(values)
    ]


def test_work_until_a_goal():
    assert tables.until("middle", rounds(60, 74, 76, 80), 75, 3) == (2, 4, 2, True)
    assert tables.until("online", rounds(60, 76, looks=7), 75, 3) == (1, 2, 7, True)
    assert tables.until("middle", rounds(60, 74), 75, 3) == (3, 9, 3, False), "all that is possible counts"
    assert tables.until("online", rounds(60, 74, looks=7), 75, 3) == (3, 9, 20, False), "the whole video"
    assert tables.until("middle", rounds(60), 75, 3, clicks_each=0).clicks == 0, "masks are drawn"
    assert tables.after(rounds(60, 74), 3) == 74
    assert tables.area(rounds(60, 70), 2) == pytest.approx((60 + 70 + 70) / 3)


def test_a_run_goes_on_and_takes_more_rules(tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ["interact", "--dataset", "synthlong", "--videos", "easy_00", "--size", "64", "--frames", "7"]
    arguments += ["--rounds", "2", "--correction", "clicks", "--out", str(out)]
    assert main([*arguments, "--rules", "middle"]) == 0
    first = json.loads((out / "videos" / "easy_00.json").read_text())
    before, *after = first["middle"]["easy_00"]
    assert before["frame"] is None and before["clicks"] == 0 and len(after) == 2
    assert after[0]["frame"] == 3 and after[0]["frames tracked"] == 6 + 3 + 3
    assert main([*arguments, "--rules", "middle,random"]) == 0
    again = json.loads((out / "videos" / "easy_00.json").read_text())
    assert again["middle"] == first["middle"] and set(again) == {"middle", "random"}
    assert "| middle |" in (out / "interact.md").read_text() and "minus random" in capsys.readouterr().out
    assert json.loads((out / "interact.json").read_text())["curves"]["middle"][0] == pytest.approx(
        before["J&F"], abs=0.01
    )
    assert main([*arguments[:-4], "--correction", "mask", "--rules", "middle", "--out", str(out)]) == 2
    assert "other settings" in capsys.readouterr().err


def test_two_runs_are_compared_by_the_work_until_a_goal(tmp_path, capsys):
    arguments = ["interact", "--dataset", "synthlong", "--videos", "easy_00", "--size", "64", "--frames", "5"]
    arguments += ["--correction", "clicks"]
    ours, theirs = str(tmp_path / "ours"), str(tmp_path / "theirs")
    assert main([*arguments, "--rounds", "1", "--rules", "online", "--tracker", "sam2", "--out", theirs]) == 0
    capsys.readouterr()
    assert main([*arguments, "--rounds", "1", "--rules", "middle", "--out", ours, "--against", theirs]) == 0
    said = capsys.readouterr().out
    assert "frames looked at to 85" in said and "| against theirs |" in said and "| middle - online |" in said
    assert said.endswith((tmp_path / "ours" / "interact.md").read_text())
    longer = ["--rounds", "2", "--rules", "middle", "--out", str(tmp_path / "longer"), "--against", theirs]
    assert main([*arguments, *longer]) == 2
    assert "compare runs of one plan" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--rules", "best"], ["--rounds", "0"]])
def test_what_cannot_be_measured_is_one_sentence(more, tmp_path, capsys):
    assert main(["interact", "--dataset", "synthlong", "--out", str(tmp_path / "out"), *more]) == 2
    assert capsys.readouterr().err.startswith("error: ")
