"""How fast the scorer is: frame-level J and F against the definition written down plainly, and a whole DAVIS-sized set.

    python scripts/bench_eval.py [--out bench_eval.md] [--quick]

The direct implementation works on whole frames: boundary maps by shifting, the disk built and both maps dilated for
every object and frame. That is how the definition reads and how the reference evaluators do it. One thread.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from eval import outputs
from eval.metrics import masks, mosev2
from eval.score import evaluate

SIZES = {"480p": (480, 854), "1080p": (1080, 1920), "4K": (2160, 3840)}
SCALES = {"small": 0.05, "medium": 0.15, "large": 0.38}  # radius as a share of the frame's height


def direct_boundary(mask: np.ndarray) -> np.ndarray:
    m = mask.astype(bool)
    right, below, corner = np.zeros_like(m), np.zeros_like(m), np.zeros_like(m)
    right[:, :-1] = m[:, 1:]
    below[:-1, :] = m[1:, :]
    corner[:-1, :-1] = m[1:, 1:]
    b = (m ^ right) | (m ^ below) | (m ^ corner)
    b[-1, :] = m[-1, :] ^ right[-1, :]
    b[:, -1] = m[:, -1] ^ below[:, -1]
    b[-1, -1] = False
    return b


def direct_j_and_f(gt: np.ndarray, pred: np.ndarray) -> tuple[float, float]:
    gt, pred = gt.astype(bool), pred.astype(bool)
    union = np.count_nonzero(gt | pred)
    j = np.count_nonzero(gt & pred) / union if union else 1.0
    radius = math.ceil(0.008 * math.sqrt(gt.shape[0] ** 2 + gt.shape[1] ** 2))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x * x + y * y <= radius * radius).astype(np.uint8)
    b_gt, b_pred = direct_boundary(gt), direct_boundary(pred)
    grown_gt, grown_pred = (cv2.dilate(b.astype(np.uint8), disk) > 0 for b in (b_gt, b_pred))
    n_gt, n_pred = np.count_nonzero(b_gt), np.count_nonzero(b_pred)
    if n_gt == 0 or n_pred == 0:
        return j, 1.0 if n_gt == n_pred else 0.0
    precision = np.count_nonzero(b_pred & grown_gt) / n_pred
    recall = np.count_nonzero(b_gt & grown_pred) / n_gt
    return j, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def blob(shape: tuple[int, int], scale: float, seed: int, shift: int = 0) -> np.ndarray:
    """A wobbly disc around the middle; `shift` moves it and wobbles it otherwise."""
    h, w = shape
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w].astype(np.float32)
    y, x = y - h / 2 - shift, x - w / 2 - shift
    angle, r = np.arctan2(y, x), scale * h
    edge = sum(
        a * np.sin(k * angle + p) for k, a, p in zip((2, 3, 5, 9), rng.random(4), rng.random(4) * 6, strict=True)
    )
    return np.hypot(x, y) <= r * (1 + 0.08 * edge)


def milliseconds(call, seconds: float) -> float:
    """Best of as many calls as fit: what the code takes when nothing else runs on the machine."""
    call()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def frame_rows(sizes: dict, seconds: float) -> list[str]:
    rows = [
        "| size | object | direct ms | ours ms | times faster | MOSEv2 (J, F, F-dot) ms |",
        "|---|---|---|---|---|---|",
    ]
    for name, shape in sizes.items():
        for scale_name, scale in SCALES.items():
            gt, pred = blob(shape, scale, 0), blob(shape, scale, 1, shift=max(2, shape[0] // 240))
            gt, pred = gt.view(np.uint8), pred.view(np.uint8)
            if direct_j_and_f(gt, pred) != tuple(masks.region_and_boundary(gt, pred)):
                raise SystemExit(f"{name} {scale_name}: ours differs from the definition")
            slow = milliseconds(lambda g=gt, p=pred: direct_j_and_f(g, p), seconds)
            fast = milliseconds(lambda g=gt, p=pred: masks.region_and_boundary(g, p), seconds)
            smooth = milliseconds(lambda g=gt, p=pred: mosev2.scores(g, p), seconds)
            rows.append(f"| {name} | {scale_name} | {slow:.2f} | {fast:.3f} | {slow / fast:.1f} | {smooth:.3f} |")
            print(rows[-1], flush=True)
    return rows


def make_davis(root: Path, videos: int, frames: int) -> None:
    """A DAVIS-sized set: two objects per video at 480p, predictions a little off."""
    shape = SIZES["480p"]
    for v in range(videos):
        big, small = blob(shape, 0.18, v), blob(shape, 0.08, v + 100)
        for t in range(frames):
            for folder, offset in (("Annotations/480p", 0), ("pred", 3)):
                ids = np.zeros(shape, np.uint8)
                ids[np.roll(big, (2 * t % 100, 3 * t + offset), (0, 1))] = 1
                ids[np.roll(small, (-t % 80, 250 - 2 * t + offset), (0, 1))] = 2
                path = root / folder / f"video{v:02d}" / f"{t:05d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(outputs.png_bytes(ids))
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("".join(f"video{v:02d}\n" for v in range(videos)))


def cpu_seconds() -> float:
    """Of this process and of its finished children: unlike wall time, little moved by what else runs on the machine."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def set_rows(videos: int, frames: int) -> list[str]:
    rows = ["| set | processes | seconds | CPU seconds |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_davis(root, videos, frames)
        for processes in (1, 2):
            start, cpu = time.perf_counter(), cpu_seconds()
            evaluate("davis", root, root / "pred", processes=processes)
            seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
            rows.append(
                f"| {videos} videos x {frames} frames x 2 objects, 480p | {processes} | {seconds:.1f} | {cpu:.1f} |"
            )
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the tables as markdown")
    parser.add_argument("--quick", action="store_true", help="480p and a small set only")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    Image.init()
    sizes = {"480p": SIZES["480p"]} if args.quick else SIZES
    rows = frame_rows(sizes, 0.3 if args.quick else 1.0)
    rows += ["", *set_rows(*((4, 20) if args.quick else (30, 70)))]
    if args.out:
        args.out.write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
