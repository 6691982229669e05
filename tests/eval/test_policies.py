"""Policies beyond the paper: their rules in numbers, and that a sweep follows them."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from eval import datasets
from eval.policies import KINDS, calibrated, distractors, fusion, geometry, motion, recovery, track_class
from eval.sweep_tracker import Sweep
from eval.trackers import TrackerSpec
from sam2long import Sam2LongConfig
from sam2long.errors import ConfigError
from sam2long.method.memory import PROMPTED_LOGIT, FrameMemory, PointerRead, Reading, SpatialRead
from sam2long.method.tree import Verdict
from sam2long.tracking.track import Track
from tests.eval import trees
from tests.eval.test_sweep import with_model  # noqa: F401

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import ablation_tables
import calibrate


def square(x, y, side=4, of=32):
    mask = np.zeros((of, of), bool)
    mask[y : y + side, x : x + side] = True
    return mask


# ---- boxes -----------------------------------------------------------------------------------------------------------


def test_boxes_and_parts():
    assert geometry.box_of(square(3, 5)) == (3, 5, 7, 9)
    assert geometry.box_of(np.zeros((4, 4), bool)) is None
    assert geometry.box_iou((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert geometry.box_iou((0, 0, 1, 1), (2, 2, 3, 3)) == 0
    assert (geometry.largest_part(square(0, 0, 6) | square(20, 20, 3)) == square(0, 0, 6)).all()
    assert geometry.mask_iou(square(0, 0), square(2, 0)) == pytest.approx(1 / 3)


# ---- distractors -----------------------------------------------------------------------------------------------------


def test_a_mask_elsewhere_is_a_distractor_and_a_larger_one_around_is_not():
    taken = square(4, 4)
    assert distractors.lies_elsewhere(taken, square(20, 20), 0.7)
    assert not distractors.lies_elsewhere(taken, square(4, 4), 0.7)
    assert not distractors.lies_elsewhere(taken, square(5, 5, 3), 0.7)
    dust = square(4, 4) | square(28, 28, 1)
    assert not distractors.lies_elsewhere(taken, dust, 0.7), "only the largest part counts"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"iou": 0.7}, False),  # not sure of the mask
        ({"others": [(square(4, 4), 0.9)]}, False),  # nothing elsewhere
        ({"others": [(square(20, 20), 0.1)], "gap": 0.2}, False),  # not plausible
        ({"others": [(square(20, 20), 0.1)]}, True),  # as published, any alternative counts
        ({"areas": (40, 40)}, False),  # the area jumped
        ({"areas": (16, 40, 15)}, True),
        ({"last": 8}, False),  # too soon
        ({"last": 5}, True),
    ],
)
def test_what_makes_an_anchor(change, expected):
    rules = distractors.Rules(gap=change.get("gap", 1.0))
    anchors = (memory_of(change["last"]),) if "last" in change else ()
    seen = distractors.Seen(anchors, change.get("areas", ()))
    others = change.get("others", [(square(20, 20), 0.9)])
    assert distractors.is_anchor(10, square(4, 4), others, change.get("iou", 0.9), seen, rules) is expected


def memory_of(frame, logit=3.0):
    return FrameMemory(
        frame=frame, mask_features=torch.ones(1, 2, 2, 2), object_ptr=torch.ones(1, 2), iou=0.9, object_logit=logit
    )


def test_anchors_are_read_like_prompted_frames_and_recent_ones_make_room():
    recent = tuple(SpatialRead(memory_of(frame), 20 - frame) for frame in range(15, 21))
    prompt = SpatialRead(memory_of(0), 6, prompted=True)
    reading = Reading((prompt, *recent), (PointerRead(memory_of(0), 5),))
    read = distractors.with_anchors(reading, [memory_of(3), memory_of(9), memory_of(18)], 6, distractors.Rules())
    assert read.frames == (0, 3, 9, 18, 19, 20), "three anchors, three recent ones, of which 18 is an anchor already"
    assert [each.prompted for each in read.spatial] == [True] * 4 + [False] * 2
    assert {each.memory.object_logit for each in read.spatial[1:4]} == {PROMPTED_LOGIT}
    assert [each.slot for each in read.spatial] == [6] * 4 + [1, 0]
    assert read.pointers == reading.pointers
    assert distractors.with_anchors(reading, [], 6, distractors.Rules()).spatial == reading.spatial


# ---- fusion ----------------------------------------------------------------------------------------------------------


def test_fusion_weighs_by_the_scores():
    yes, no = torch.full((1, 1, 2, 2), 3.0), torch.full((1, 1, 2, 2), -1.0)
    equal = fusion.fused([yes, no], [0.0, 0.0], 1.0)
    assert equal.sigmoid()[0, 0, 0, 0] == pytest.approx((1 / (1 + math.exp(-3)) + 1 / (1 + math.exp(1))) / 2, abs=1e-5)
    assert torch.allclose(fusion.fused([yes, no], [0.0, -50.0], 1.0), yes, atol=1e-4)
    assert (fusion.fused([yes, None], [0.0, 0.1], 1.0) < 0).all(), "a pathway without the object votes against it"
    assert fusion.fused([None, None], [0.0, 0.0], 1.0) is None


# ---- calibration -----------------------------------------------------------------------------------------------------


def test_calibration_keeps_what_is_calibrated_and_the_sign_of_a_logit():
    verdict = Verdict((0.2, 0.9), 1.5)
    same = calibrated.calibrate(verdict, calibrated.Rules())
    assert same.ious == pytest.approx(verdict.ious) and same.object_logit == 1.5
    cooler = calibrated.calibrate(verdict, calibrated.Rules(iou_temperature=2.0, object_offset=2.0))
    assert 0.2 < cooler.ious[0] < 0.5 and 0.5 < cooler.ious[1] < 0.9
    assert 0 < cooler.object_logit < 0.01, "the mask was made with a positive one"


def test_calibrate_finds_the_numbers_that_were_put_in():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, 20000)
    truth = rng.random(20000) < 1 / (1 + np.exp(-(logits - 1.0) / 2.0))
    temperature, offset = calibrate.fitted(logits, truth.astype(float))
    assert temperature == pytest.approx(2.0, rel=0.1) and offset == pytest.approx(1.0, abs=0.15)
    assert calibrate.calibration_error(np.full(10, 0.7), np.array([1] * 7 + [0] * 3)) == pytest.approx(0, abs=1e-9)
    assert calibrate.calibration_error(np.full(10, 0.7), np.ones(10)) == pytest.approx(0.3)


def test_calibrate_writes_what_the_arena_reads(tmp_path, monkeypatch):
    out = tmp_path / "calibration" / "nano.json"
    assert calibrate.main(["--videos", "2", "--frames", "6", "--out", str(out)]) == 0
    content = json.loads(out.read_text())
    assert content["calibration_error"]["iou"]["samples"] > 5
    (tmp_path / "calibration.yaml").write_text("policies:\n  calibrated: {figures: 'calibration/{model}.json'}\n")
    monkeypatch.setattr(ablation_tables, "POLICIES", tmp_path)
    spec = ablation_tables.with_policies(TrackerSpec(), "calibration")
    assert spec.policies == {"calibrated": content["rules"]}
    with pytest.raises(ConfigError, match="sam2-tiny.json does not exist; make it with python scripts/calibrate.py"):
        ablation_tables.with_policies(TrackerSpec(model="sam2-tiny"), "calibration")


# ---- motion ----------------------------------------------------------------------------------------------------------


def test_the_filter_learns_a_constant_velocity():
    box = motion.BoxFilter((0.0, 0.0, 10.0, 10.0))
    for step in range(1, 30):
        predicted = box.predict()
        box.update((2.0 * step, step, 10 + 2.0 * step, 10 + step))
    assert geometry.box_iou(predicted, (58, 29, 68, 39)) > 0.95


def test_motion_decides_between_equals():
    assert motion.select([0.8, 0.81], None, 0.15) == 1
    assert motion.select([0.8, 0.81], [1.0, 0.0], 0.15) == 0
    assert motion.select([0.4, 0.9], [1.0, 0.0], 0.15) == 1


# ---- recovery --------------------------------------------------------------------------------------------------------


def test_proposals_differ_and_have_a_sensible_size():
    assert recovery.click_places(2, 8).tolist() == [[2, 2], [6, 2], [2, 6], [6, 6]]
    masks = [square(0, 0, 8), square(1, 0, 8), square(20, 20, 8), square(0, 0, 1), square(0, 0, 31)]
    kept = recovery.different(masks, [0.5, 0.9, 0.6, 0.99, 0.95], recovery.Rules(smallest=0.005))
    assert kept == [1, 2]
    assert recovery.different(masks, [0.5, 0.9, 0.6, 0.99, 0.95], recovery.Rules(smallest=0.005, checked=1)) == [1]


# ---- all of them in a sweep ------------------------------------------------------------------------------------------


def test_unknown_policies_and_rules_are_named():
    assert track_class(Track, {}) is Track
    with pytest.raises(ConfigError, match=r"unknown policy magic; the policies are calibrated, motion"):
        track_class(Track, {"magic": {}})
    with pytest.raises(ConfigError, match=r"the policy fusion has no heat; it has temperature"):
        track_class(Track, {"fusion": {"heat": 2}})


@pytest.mark.parametrize("path", sorted(ablation_tables.POLICIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_of_policies_can_be_run(path):
    spec = ablation_tables.with_policies(TrackerSpec(), path.stem)
    assert set(spec.policies) <= set(KINDS)
    track_class(Track, spec.policies)
    Sam2LongConfig.from_mapping(spec.sam2long)
    assert "policies" in spec.as_dict() and "policies" not in TrackerSpec().as_dict()


UNSURE = {"certainty_threshold": 1000.0}
CASES = {
    "none": ({}, {}),
    "unsure": (UNSURE, {}),
    "fusion": (UNSURE, {"fusion": {}}),
    "distractors": ({}, {"distractors": {"iou": 0.0, "ratio": 1.01, "steady": 100.0, "every": 1}}),
    "recovery": (UNSURE, {"recovery": {"after": 1, "every": 2, "cycle": 0.01, "grid": 3, "checked": 3}}),
    "calibrated": ({}, {"calibrated": {"iou_temperature": 3.0, "object_temperature": 3.0}}),
    "samurai": ({"num_pathways": 1, "modulation": [1, 1]}, {"motion": {"steady_for": 1, "weight": 0.9}}),
    "together": (UNSURE, {"fusion": {}, "distractors": {"iou": 0.0}, "recovery": {"after": 2}, "calibrated": {}}),
}


@pytest.fixture
def video(tmp_path):
    dataset = datasets.open_dataset("lvos-v2", trees.lvos(tmp_path / "data"))
    found = dataset.video("vid_a")
    with dataset.frames_folder(found, tmp_path / "work") as folder:
        yield folder, found, dataset.prompts(found)


def test_a_sweep_follows_policies(with_model, video):  # noqa: F811
    folder, found, prompts = video
    tracker = Sweep(TrackerSpec())
    configs = {name: Sam2LongConfig.from_mapping(own) for name, (own, _) in CASES.items()}
    masks = {name: {} for name in CASES}
    given = {name: policies for name, (_, policies) in CASES.items()}
    for name, frame, out in tracker.track(folder, found, prompts, configs, given):
        masks[name][frame] = tracker.logits(out, found.size)
    reports = {name: tracker.report(name) for name in CASES}
    assert all(list(own) == list(masks["none"]) for own in masks.values())

    def differs(one, other):
        return any((masks[one][t] != masks[other][t]).any() for t in masks["none"])

    numbers = ["frame", "obj_id", "iou", "object_logit", "pathways"]
    assert reports["fusion"][numbers].equals(reports["unsure"][numbers]), "fusion leaves tracking alone"
    assert differs("fusion", "unsure")
    read = [len(frames) for frames in reports["distractors"]["memory_frames"]]
    assert (
        reports["distractors"]["memory_frames"].map(tuple).tolist()
        != reports["none"]["memory_frames"].map(tuple).tolist()
    )
    assert max(read) <= 7
    assert differs("together", "unsure")
    assert (reports["calibrated"]["object_logit"].abs() <= reports["none"]["object_logit"].abs() + 1e-6).all()
    assert set(reports["samurai"]["pathways"]) == {1}


def test_motion_takes_one_pathway(with_model, video):  # noqa: F811
    folder, found, prompts = video
    with pytest.raises(ConfigError, match="the policy motion takes num_pathways 1; it is 3"):
        next(Sweep(TrackerSpec()).track(folder, found, prompts, {"a": Sam2LongConfig()}, {"a": {"motion": {}}}))


def test_a_proposal_that_finds_its_way_back_becomes_a_pathway(with_model, video):  # noqa: F811
    """The object's own mask comes out of the grid, and from there on leads a pathway of its own."""
    folder, found, prompts = video
    tracker, adopted = Sweep(TrackerSpec()), []
    kind = recovery.Recovering
    original = kind._adopt

    def noting(self, frame, entry, mask, cycle):
        before = len(self.pathways)
        original(self, frame, entry, mask, cycle)
        adopted.append((frame, cycle, len(self.pathways) - before, self.pathways[-1]))

    config = Sam2LongConfig.from_mapping(UNSURE)
    try:
        kind._adopt = noting
        for _ in tracker.track(folder, found, prompts, {"a": config}, {"a": CASES["recovery"][1]}):
            pass
    finally:
        kind._adopt = original
    assert adopted
    for frame, cycle, more, child in adopted:
        assert more == 1 and 0.01 <= cycle <= 1
        assert child.memories[-1].frame == frame
        assert child.memories[-1].object_logit > 0
