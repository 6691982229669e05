"""Every golden case equals the official tool: to the digit that it prints, and to 1e-9 before rounding."""

import json

import numpy as np
import pytest

from eval.metrics import clips, masks, mosev2, statistics
from tests.eval import golden

TOLERANCE = 1e-9
PACK_RUNS = [(tree, run["id"]) for tree in golden.TREES if golden.PACK.is_dir() for run in golden.runs(tree)]


def check_frame(gt, pred, case, mosev2_counts=True):
    s = masks.region_and_boundary(gt, pred)
    assert (case["J"], case["F"]) == (s.J, s.F)
    m = mosev2.scores(gt, pred)
    assert case["mosev2_J"] == m.J
    if mosev2_counts:
        assert (m.F, m.F_dot) == (case["mosev2_F"], case["mosev2_Fdot"])


def check_lists(davis, lvos, mose):
    for case in davis:
        values = [float("nan") if v is None else v for v in case["values"]]
        expected = {k: case[k] for k in ("mean", "recall", "decay")}
        assert not golden.differences(statistics.statistics(values, compat_decay=True)._asdict(), expected, 1e-15)
        if case["index_overflow"] == "no":
            assert statistics.decay(values) == case["decay"]
        if "decay_numpy1" in case:
            assert statistics.decay(values) == case["decay_numpy1"]
    for case in lvos:
        assert statistics.lvos_v(case["J"], case["F"]) == case["V"]
    for case in mose:
        found = clips.find_clips(case["empty_gt"])
        got = {f"{kind}_{m}": clips.clip_mean(case[m], r) for kind, r in found._asdict().items() for m in ("J", "Fdot")}
        got |= {m: float(np.mean(case[m])) for m in ("J", "F", "Fdot")}
        assert not golden.differences(got, case["expected"], 1e-15)


@pytest.mark.parametrize(("tree", "run_id"), PACK_RUNS)
def test_pack_runs(shared_data, tree, run_id, tmp_path):
    run = next(r for r in golden.runs(tree) if r["id"] == run_id)
    scores = golden.score_run(tree, run, tmp_path)
    assert not golden.differences(scores.reported(), run["reported"])
    assert not golden.differences(scores.exact(), run["exact"], TOLERANCE)


def test_pack_frames(shared_data):
    cases = np.load(golden.PACK / "frame_cases.npz")
    values = {k: cases[k] for k in ("J", "F", "mosev2_J", "mosev2_F", "mosev2_Fdot", "mosev2_kernel_empty")}
    for i in range(len(cases["name"])):
        case = {k: v[i] for k, v in values.items()}
        check_frame(cases[f"gt_{i:04d}"], cases[f"pred_{i:04d}"], case, not case["mosev2_kernel_empty"])


def test_pack_lists(shared_data):
    lists = json.loads((golden.PACK / "statistics_cases.json").read_text())
    check_lists(lists["davis_mean_recall_decay"], lists["lvos_v"], lists["mosev2_clips"])
