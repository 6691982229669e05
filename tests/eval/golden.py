"""The golden cases: runs of the official tools, in ../shared/data/eval_golden, where a checkout has them."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

from eval.score import evaluate
from tests.conftest import SHARED

PACK = SHARED / "eval_golden"

TREES = {  # what `--gt` is in each
    "davis17": "dataset",
    "sav": "dataset/sav_val",
    "lvos_v2": "dataset/val",
    "mose_v1": "dataset/valid",
    "mose_v2": "dataset/valid",
    "vost": "dataset",
    "ytvos19": "hidden_gt",
}


def runs(tree: str) -> list[dict]:
    return json.loads((PACK / tree / "expected.json").read_text())["runs"]


def options_of(run: dict) -> dict:
    """The recorded run's options, in our words."""
    given = run["options"]
    return {
        "strict": given.get("strict", True) and not (run["protocol"] == "mosev2" and run["remove"]),
        "skip_first_and_last": given.get("skip_first_and_last", True),
        "gt255_to_0": "gt255-zeroed" in run["id"],
        "processes": 1,
    }


def score_run(tree: str, run: dict, scratch: Path):
    pred = PACK / tree / "predictions"
    if run["remove"]:
        shutil.copytree(pred, scratch / "predictions")
        pred = scratch / "predictions"
        for removed in run["remove"]:
            shutil.rmtree(pred / Path(removed).name)
    return evaluate(run["protocol"], PACK / tree / TREES[tree], pred, **options_of(run))


def differences(got: object, expected: object, tolerance: float = 0.0, path: str = "") -> list[str]:
    """Where two nested results differ, as "place: got, expected"."""
    if isinstance(expected, dict):
        if not isinstance(got, dict) or set(got) != set(expected):
            return [f"{path}: keys {sorted(got)}, expected {sorted(expected)}"]
        return [d for k in expected for d in differences(got[k], expected[k], tolerance, f"{path}/{k}")]
    if isinstance(expected, list):
        if len(got) != len(expected):
            return [f"{path}: {len(got)} values, expected {len(expected)}"]
        pairs = enumerate(zip(got, expected, strict=True))
        return [d for i, (g, e) in pairs for d in differences(g, e, tolerance, f"{path}/{i}")]
    if isinstance(expected, (int, float)) and not isinstance(expected, bool):
        same = isinstance(got, (int, float)) and (
            got == expected or math.isclose(got, expected, rel_tol=0, abs_tol=tolerance)
        )
    else:
        same = got == expected or (expected is None and isinstance(got, float) and math.isnan(got))
    return [] if same else [f"{path}: {got!r}, expected {expected!r}"]
