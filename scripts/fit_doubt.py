"""What sam2long/doubt.json holds: how much each of the tracker's signs weighs, and how far a correction reaches.

    python scripts/fit_doubt.py --photos DIR --out runs/doubt            # again: goes on
    python scripts/fit_doubt.py --photos DIR --out runs/doubt --write    # and replaces sam2long/doubt.json

Clips are composed of photographs that nano was not trained on, and generated; DAVIS takes no part. Each is tracked
from its first true mask, then corrected with the true mask on a few frames, one at a time, and tracked both ways from
there. The signs are weighed by a logistic fit to 1 - J&F of every frame; the reach is the one whose choice among the
frames that were tried gains most (the longest of equals). Reported is what that choice gains, each clip judged by
weights fitted to the others, beside a random one, the middle one and the best one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from nano import composed, photos
from nano.curriculum import Stage

from eval import manifest
from eval.interact.corrected import Clip, Corrected
from sam2long import build_sam2long_video_predictor, doubt
from sam2long.models.figures import sha256
from sam2long.synthetic import generate
from sam2long.weights import CHECKPOINTS

FRAMES, SIZE, TRIES = 48, 256, 5
SLOWER = 2  # times slower than the clips that nano learns from: as videos are
SCENARIOS = ("occlusion", "twins", "reappear", "crowd")
NAMES = ("always", "unsure", "absent", "1 - iou", "rival")
REACHES = (3, 6, 10, 15, 25)
AS_GOOD = 0.1  # points; of reaches that gain as much the longest is taken: videos change more slowly than these clips
SHRINK = 0.002  # of the weights: few clips, many frames


def clips(folders: list[Path], count: int) -> Iterator[Clip]:
    """Cut-outs that move, whole photographs under a moving camera, and generated scenes, in turn."""
    held_out = photos.split(photos.read_photos(folders), photos.HELD_OUT)[1]
    stage = Stage(until=1, clips=1, frames=FRAMES, chunk=FRAMES, size=SIZE)
    sources = {"cutouts": composed.Cutouts(held_out), "whole": composed.Whole(held_out)}
    for k in range(count):
        kind = ("cutouts", "whole", "generated")[k % 3]
        if kind == "generated":
            scene = list(generate(SCENARIOS[k // 3 % len(SCENARIOS)], 700_000 + k, 2 * FRAMES, SIZE))[::2]
            images, ids = np.stack([frame.image for frame in scene]), np.stack([frame.ids for frame in scene])
        else:
            images, ids = sources[kind].clip(random.Random(910_000 + k), stage)
        yield Clip(f"{kind}_{k:03d}", images, list(ids == 1))


def slowed(wander: Callable) -> Callable:
    """composed.wander with fewer turns."""

    def slower(rng, frames, low, high, pace=6):
        return wander(rng, frames, low, high, SLOWER * pace)

    return slower


def log(predictor, clip: Clip) -> dict:
    """What the tracker said of each frame, how good its masks were, and what corrections gained."""
    rng, video = random.Random(clip.name), Corrected(predictor, clip)
    video.begin("mask")
    first, shown = clip.shown[0], clip.shown[1:]
    rows = range(first + 1, FRAMES)
    tried = sorted({shown[int((k + rng.random()) * len(shown) / TRIES)] for k in range(TRIES)})
    before, gains = video.j_and_f(), []
    for frame in tried:
        after = video.fork()
        after.correct(frame, "mask")
        gains.append(round(after.j_and_f() - before, 3))
    said = [(row.status, row.iou, row.pathways, row.margin) for t in rows if (row := video.seen[t])]
    return {
        "clip": clip.name, "first": first, "J&F": [round(video.score(t), 2) for t in rows],
        "signs": [list(doubt.signs(*one).values()) for one in said], "tried": tried, "gains": gains,
    }  # fmt: skip


def fitted(lines: list[dict]) -> np.ndarray:
    """Weights of the signs; every clip counts alike. Newton's method."""
    x = np.concatenate([np.array(line["signs"]) for line in lines])
    y = np.concatenate([1 - np.array(line["J&F"]) / 100 for line in lines])
    share = np.concatenate([np.full(len(line["J&F"]), 1 / len(line["J&F"]) / len(lines)) for line in lines])
    penalty = SHRINK * np.diag([0.0, *[1.0] * (len(NAMES) - 1)])
    weights = np.zeros(len(NAMES))
    for _ in range(50):
        wrong = 1 / (1 + np.exp(-x @ weights))
        slope = x.T @ (share * (wrong - y)) + penalty @ weights
        curve = (x.T * (share * wrong * (1 - wrong))) @ x + penalty
        weights -= np.linalg.solve(curve + 1e-9 * np.eye(len(weights)), slope)
    return weights


def gain(line: dict, weights: np.ndarray, reach: float) -> float:
    """Of the frame among those tried that a correction is expected to be worth most on."""
    wrong = 1 / (1 + np.exp(-np.array(line["signs"]) @ weights))
    frames = line["first"] + 1 + np.arange(len(wrong))
    worth = [float(wrong @ np.exp(-abs(frames - at) / reach)) for at in line["tried"]]
    return line["gains"][int(np.argmax(worth))]


def middle(line: dict) -> float:
    """Of the frame nearest to the middle of the stretch."""
    at = line["first"] + (1 + len(line["J&F"])) / 2
    return line["gains"][int(np.argmin([abs(frame - at) for frame in line["tried"]]))]


def interval(values: list[float]) -> str:
    drawn = np.random.default_rng(0).choice(values, (10_000, len(values))).mean(1)
    return f"{np.mean(values):+.2f} [{np.quantile(drawn, 0.025):+.2f}, {np.quantile(drawn, 0.975):+.2f}]"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, nargs="+", required=True, metavar="DIR", help="as train_nano.py has it")
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("runs/doubt"), metavar="DIR")
    parser.add_argument("--write", action="store_true", help="replace sam2long/doubt.json")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "clips.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if len(lines) < args.clips:
        predictor, known = build_sam2long_video_predictor("nano"), {line["clip"] for line in lines}
        composed.wander = slowed(composed.wander)
        for clip in clips(args.photos, args.clips):
            if clip.name not in known and len(clip.shown) > TRIES:
                lines.append(log(predictor, clip))
                with path.open("a") as out:
                    out.write(json.dumps(lines[-1]) + "\n")
                print(clip.name, f"J&F {np.mean(lines[-1]['J&F']):.1f}, gains", *lines[-1]["gains"], flush=True)
    apart = [fitted([*lines[:k], *lines[k + 1 :]]) for k in range(len(lines))]
    by_reach = {reach: [gain(*each, reach) for each in zip(lines, apart, strict=True)] for reach in REACHES}
    best = max(np.mean(gains) for gains in by_reach.values())
    reach = max(reach for reach, gains in by_reach.items() if np.mean(gains) > best - AS_GOOD)
    chance = [float(np.mean(line["gains"])) for line in lines]
    rows = {f"reach {reach}": gains for reach, gains in by_reach.items()}
    rows |= {"middle": [middle(line) for line in lines], "best": [max(line["gains"]) for line in lines]}
    print(f"{len(lines)} clips; one correction gains {interval(chance)} at random; more than that:")
    for name, gains in rows.items():
        print(f"  {name}: {interval([a - b for a, b in zip(gains, chance, strict=True)])}")
    found = {
        "command": "python scripts/fit_doubt.py --photos DIR --write", "commit": manifest.commit(),
        "weights_sha256": sha256(CHECKPOINTS["nano"].fetch()), "clips": len(lines),
        "coefficients": dict(zip(NAMES, (round(float(w), 2) for w in fitted(lines)), strict=True)), "reach": reach,
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    if args.write:
        (Path(doubt.__file__).parent / "doubt.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
