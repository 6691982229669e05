"""What re-seeding is worth: SAM2Long alone, and with a detector that looks again every N frames.

    python scripts/reseed.py --davis-long DIR --out runs/reseed      # DIR: python -m eval generate --layout davis-long
    python scripts/reseed.py --videos 10 --out runs/reseed           # synthlong

The detector is made from the true masks: "exact", or "noisy", which misses a fifth of what is there, is off by a tenth
of the box on each side, and sees a third of the time something where nothing is. Reported: J&F over all frames but the
prompted one, and of the returns after an absence the share on which the object is found again (IoU above one half
within the first ten frames).
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from correction_loop import OBJECT, j_and_f, of_davis, of_synthlong

from eval import bootstrap
from eval.machine import describe
from eval.report import markdown_table
from sam2long import build_sam2long_video_predictor
from sam2long.tracking.reseed import Reseeding, box_of, propagate

MISSED, OFF, IMAGINED = 0.2, 0.1, 1 / 3
SOON = 10  # frames after a return within which it counts as found


class TrueBoxes:
    """A detector that knows the truth of one video. It is told frames, so it finds them by their pixels."""

    def __init__(self, images: np.ndarray, truth: list[np.ndarray], noisy: bool, seed: int) -> None:
        self.boxes = {image.tobytes(): mask for image, mask in zip(images, truth, strict=True)}
        self.noisy, self.chance = noisy, random.Random(seed)

    def __call__(self, image: np.ndarray) -> tuple[list[tuple[float, ...]], None]:
        mask, found = self.boxes[image.tobytes()], []
        height, width = mask.shape
        chance = self.chance.random
        if mask.any() and not (self.noisy and chance() < MISSED):
            box = box_of(mask)
            if self.noisy:
                sides = box[2] - box[0], box[3] - box[1]
                box = [value + (2 * chance() - 1) * OFF * sides[i % 2] for i, value in enumerate(box)]
            found.append(tuple(map(float, box)))
        if self.noisy and chance() < IMAGINED:
            w, h = width * (0.1 + 0.3 * chance()), height * (0.1 + 0.3 * chance())
            x, y = chance() * (width - w), chance() * (height - h)
            found.insert(0 if chance() < 0.5 else len(found), (x, y, x + w, y + h))
        return found, None


def returns(truth: list[np.ndarray], first: int) -> list[int]:
    """The frames on which the object is back."""
    there = [bool(mask.any()) for mask in truth]
    return [t for t in range(first + 1, len(truth)) if there[t] and not there[t - 1]]


def scores(masks: dict[int, np.ndarray], truth: list[np.ndarray], first: int) -> tuple[float, list[bool]]:
    """(J&F, for each return whether it was found soon)."""

    def iou(t: int) -> float:
        true, found = truth[t] > 0, masks[t]
        return float((true & found).sum() / max(1, (true | found).sum()))

    soon = [range(t, min(t + SOON, len(truth))) for t in returns(truth, first)]
    return j_and_f(masks, truth, {first}), [any(iou(t) > 0.5 for t in span if truth[t].any()) for span in soon]


def track(predictor, images: np.ndarray, truth: list[np.ndarray], first: int, detect: Callable | None, every: int):
    state = predictor.init_state(images)
    predictor.add_new_mask(state, first, OBJECT, truth[first])
    if detect is None:
        results = predictor.propagate_in_video(state, start_frame_idx=first)
    else:
        results = propagate(predictor, state, Reseeding(detect=detect, every=every), first)
    masks = {frame: (logits[0, 0] > 0).cpu().numpy() for frame, _, logits in results}
    return masks, len(state.session.objects[OBJECT].prompts) - 1


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--davis-long", type=Path, metavar="DIR", help="davis-long, instead of synthlong")
    parser.add_argument("--videos", type=int, default=10, help="of synthlong, from all over the list")
    parser.add_argument("--size", type=int, default=128, help="side of synthlong's frames")
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--checkpoint")
    parser.add_argument("--device")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    parser.add_argument("--out", type=Path, default=Path("runs/reseed"), metavar="DIR")
    args = parser.parse_args(argv)
    predictor = build_sam2long_video_predictor(args.model, args.checkpoint, device=args.device)
    videos = of_davis(args.davis_long, "davis-long") if args.davis_long else of_synthlong(args.videos, args.size)
    rows = []
    for number, (name, images, truth) in enumerate(videos):
        first = next(t for t, mask in enumerate(truth) if mask.any())
        for kind in ("alone", "exact", "noisy"):
            detect = None if kind == "alone" else TrueBoxes(images, truth, kind == "noisy", args.seed + number)
            masks, prompts = track(predictor, images, truth, first, detect, args.every)
            score, found = scores(masks, truth, first)
            rows.append((name, kind, score, sum(found), len(found), prompts))
            print(
                f"{name} {kind}: J&F {score:.1f}, {sum(found)} of {len(found)} returns, {prompts} prompts", flush=True
            )
    table = pd.DataFrame(rows, columns=["video", "detector", "J&F", "found", "returns", "prompts"])
    args.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out / "reseed.csv", index=False)
    text = summary(table, args.every) + f"\n\n{describe()}\n"
    (args.out / "reseed.md").write_text(text)
    print("\n" + text)
    return 0


def summary(table: pd.DataFrame, every: int) -> str:
    by_kind = {kind: rows.set_index("video") for kind, rows in table.groupby("detector")}
    lines = []
    for kind, said in (("alone", "SAM2Long"), ("exact", "exact detector"), ("noisy", "noisy detector")):
        rows = by_kind[kind]
        pair = [{(video, "1"): score for video, score in by_kind[k]["J&F"].items()} for k in ("alone", kind)]
        d = bootstrap.paired(*pair)
        gain = "-" if kind == "alone" else f"{d.mean:+.1f} [{d.low:+.1f}, {d.high:+.1f}]"
        found = f"{rows['found'].sum()} of {rows['returns'].sum()}"
        lines.append([said, f"{rows['J&F'].mean():.1f}", gain, found, str(rows["prompts"].sum())])
    head = ["re-seeding", "J&F", "gain [95 %]", "returns found", "prompts added"]
    return f"{len(by_kind['alone'])} videos, a look every {every} frames:\n\n{markdown_table(head, lines)}"


if __name__ == "__main__":
    sys.exit(main())
