"""The golden cases: runs of the official tools, in ../shared/data/eval_golden, and the small part of them kept here.

tests/golden/eval_cases.npz is written by `python -m tests.eval.golden` from a checkout that has the pack: the smallest
frames, the short lists, and one video per layout with what the official tool said of each object.
"""

from __future__ import annotations

import io
import json
import math
import shutil
from pathlib import Path

import numpy as np

from eval import pngs
from eval.score import evaluate
from tests.conftest import SHARED
from tests.eval.trees import save_ids

PACK = SHARED / "eval_golden"
KEPT = Path(__file__).parents[1] / "golden" / "eval_cases.npz"

# what `--gt` is in each tree, and the video of it that is kept
TREES = {
    "davis17": ("dataset", "late-low-id"),
    "sav": ("dataset/sav_val", "sav_900102"),
    "lvos_v2": ("dataset/val", "Kq93LmXe"),
    "mose_v1": ("dataset/valid", None),
    "mose_v2": ("dataset/valid", "m2a00031"),
    "vost": ("dataset", "9002_split_log"),
    "ytvos19": ("hidden_gt", None),
}
KEPT_RUNS = {
    "davis17": ("davis", "sav"),
    "sav": ("sav",),
    "lvos_v2": ("lvos",),
    "mose_v2": ("mosev2",),
    "vost": ("vost",),
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
    return evaluate(run["protocol"], PACK / tree / TREES[tree][0], pred, **options_of(run))


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


# the kept part


def _kept_files(tree: str) -> list[Path]:
    video = TREES[tree][1]
    inside = [p for p in (PACK / tree).rglob("*.png") if video in p.parts]
    return sorted(inside)


def _of_video(table: dict, video: str) -> dict:
    nested = table.get(video)
    return {video: nested} if nested is not None else {k: v for k, v in table.items() if k.rpartition("_")[0] == video}


def write_kept() -> None:
    arrays, texts = {}, {"trees": {}}
    for tree, ids in KEPT_RUNS.items():
        video = TREES[tree][1]
        names = {}
        for n, path in enumerate(_kept_files(tree)):
            key = f"{tree}_{n:03d}"
            arrays[key] = pngs.read_ids(path)
            names[key] = path.relative_to(PACK / tree).as_posix()
        expected = {}
        for run in runs(tree):
            if run["id"] in ids:
                exact, reported = run["exact"], run["reported"]["per_object"]
                expected[run["protocol"]] = {
                    "reported": _of_video(reported, video),
                    "per_object": _of_video(exact["per_object"], video),
                    "per_frame": _of_video(exact["per_frame"], video),
                }
        texts["trees"][tree] = {"video": video, "files": names, "expected": expected}
    meta = json.loads((PACK / "lvos_v2/dataset/val/valid_meta.json").read_text())["videos"]
    texts["lvos_meta"] = {"videos": {"Kq93LmXe": meta["Kq93LmXe"]}}
    meta = json.loads((PACK / "mose_v2/dataset/valid/meta.json").read_text())["videos"]
    texts["mose_meta"] = {"videos": {"m2a00031": meta["m2a00031"]}}
    lists = json.loads((PACK / "statistics_cases.json").read_text())
    texts["davis_lists"] = [c for c in lists["davis_mean_recall_decay"] if len(c["values"]) <= 12]
    texts["lvos_lists"] = [c for c in lists["lvos_v"] if len(c["J"]) <= 10]
    texts["clips"] = [c for c in lists["mosev2_clips"] if len(c["J"]) <= 10]
    frames = np.load(PACK / "frame_cases.npz")
    small = [
        i for i, n in enumerate(frames["name"]) if n.split("/")[0] in ("1x9", "7x5", "48x64", "75x100") and i % 2 == 0
    ]
    texts["frames"] = [
        {"name": str(frames["name"][i])}
        | {k: float(frames[k][i]) for k in ("J", "F", "mosev2_J", "mosev2_F", "mosev2_Fdot")}
        | {"mosev2_counts": not bool(frames["mosev2_kernel_empty"][i])}
        for i in small
    ]
    for n, i in enumerate(small):
        arrays[f"frame_{n:03d}"] = np.stack([frames[f"gt_{i:04d}"] != 0, frames[f"pred_{i:04d}"] != 0]).astype(np.uint8)
    packed = {k: np.packbits(v) if k.startswith("frame_") else v for k, v in arrays.items()}
    for n, _ in enumerate(small):
        packed[f"shape_{n:03d}"] = np.array(arrays[f"frame_{n:03d}"].shape, np.int16)
    packed["texts"] = np.frombuffer(json.dumps(texts).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **packed)
    KEPT.write_bytes(buffer.getvalue())
    print(KEPT.name, len(buffer.getvalue()) // 1024, "KiB")


def read_kept() -> tuple[dict, dict]:
    """(arrays, texts)"""
    with np.load(KEPT) as file:
        arrays = {k: file[k] for k in file.files}
    return arrays, json.loads(arrays.pop("texts").tobytes())


def unpack_tree(tree: str, arrays: dict, texts: dict, root: Path) -> Path:
    """Write the kept video of a tree in its layout; returns what `--gt` takes."""
    for key, name in texts["trees"][tree]["files"].items():
        save_ids(root / name, arrays[key])
    gt = root / TREES[tree][0]
    if tree == "lvos_v2":
        (gt / "valid_meta.json").write_text(json.dumps(texts["lvos_meta"]))
    if tree == "mose_v2":
        (gt / "meta.json").write_text(json.dumps(texts["mose_meta"]))
    return gt


if __name__ == "__main__":
    write_kept()
