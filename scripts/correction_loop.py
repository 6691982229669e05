"""Is it worth looking where the tracker doubts? A correction at its most doubtful frame against one at a random frame.

    python scripts/correction_loop.py --davis DAVIS --out runs/corrections
    python scripts/correction_loop.py --videos 20 --out runs/corrections

Each video of DAVIS 2016 val, or of synthlong (its first object), is tracked once by the nano model. Then the true mask
is given on one more frame, chosen by `sam2long.doubt` or at random among the frames that show the object (nobody can
mark what is not there), and the track goes on from that frame. Reported: mean J&F over all frames but the prompted
ones, the gain of each choice, and the paired difference with a bootstrap interval over videos.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported

import numpy as np
import pandas as pd
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from eval import bootstrap, pngs
from eval.datasets import open_dataset
from eval.machine import describe
from eval.metrics.masks import region_and_boundary
from eval.report import markdown_table
from sam2long import build_sam2long_video_predictor
from sam2long.doubt import doubt, ranked
from sam2long.synthetic import SYNTHLONG

OBJECT = 1


def tracked(predictor, state, masks: dict[int, np.ndarray], start: int = 0) -> None:
    """Fill in the masks from `start` on."""
    for frame, _, logits in predictor.propagate_in_video(state, start_frame_idx=start):
        masks[frame] = (logits[0, 0] > 0).cpu().numpy()


def j_and_f(masks: dict[int, np.ndarray], truth: list[np.ndarray], left_out: set[int]) -> float:
    scores = [sum(region_and_boundary(truth[t], masks[t])) / 2 for t in sorted(masks) if t not in left_out]
    return 100 * float(np.mean(scores))


def corrected(predictor, saved: Path, images, truth, first: int, masks: dict[int, np.ndarray], at: int) -> float:
    """J&F after one more prompt, on the frames that neither run was told about."""
    state, after = predictor.load_state(saved, images), dict(masks)
    predictor.add_new_mask(state, at, OBJECT, truth[at])
    tracked(predictor, state, after, at)
    return j_and_f(after, truth, {first, at})


def of_davis(root: Path, name: str = "davis16-val") -> Iterator[tuple[str, np.ndarray, list[np.ndarray]]]:
    """Name, images [T, H, W, 3] uint8 and true masks [H, W] uint8 (0, 1) of every video of DAVIS 2016 val."""
    dataset = open_dataset(name, root)
    for name in dataset.names():
        images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in dataset.images(name)])
        yield name, images, [(pngs.read_ids(path) != 0).astype(np.uint8) for path in dataset.annotation_files(name)]


def of_synthlong(videos: int, size: int) -> Iterator[tuple[str, np.ndarray, list[np.ndarray]]]:
    """The same of generated videos, evenly from all over the list."""
    for video in (SYNTHLONG[i * len(SYNTHLONG) // videos] for i in range(videos)):
        made = [(frame.image, (frame.ids == OBJECT).astype(np.uint8)) for frame in video.scene(size)]
        yield video.name, np.stack([image for image, _ in made]), [mask for _, mask in made]


def one_video(predictor, name: str, images: np.ndarray, truth: list[np.ndarray], seed: int) -> dict | None:
    shown = [t for t, mask in enumerate(truth) if mask.any()]
    if len(shown) < 2:
        return None
    first, masks = shown[0], {}
    state = predictor.init_state(images)
    predictor.add_new_mask(state, first, OBJECT, truth[first])
    tracked(predictor, state, masks, first)
    report = predictor.track_report(state)
    scores = [
        (int(row.frame), doubt(row.status, row.iou, row.pathways, row.margin, row.frame == first))
        for row in report.itertuples()
    ]
    can_be_marked = set(shown[1:])
    doubtful = next(t for t in ranked(scores) if t in can_be_marked)
    chance = random.Random(seed).choice(sorted(can_be_marked))
    row = {"video": name, "doubtful frame": doubtful, "random frame": chance}
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "state"
        predictor.save_state(state, saved)
        for name, at in (("doubtful", doubtful), ("random", chance)):
            before = j_and_f(masks, truth, {first, at})
            row[f"gain, {name}"] = corrected(predictor, saved, images, truth, first, masks, at) - before
    return row | {"J&F before": j_and_f(masks, truth, {first})}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--davis", type=Path, metavar="DIR", help="DAVIS 2016 val, instead of synthlong")
    parser.add_argument(
        "--videos", type=int, default=len(SYNTHLONG), help="the first so many, over the scenarios in turn"
    )
    parser.add_argument("--model", default="nano")
    parser.add_argument("--checkpoint")
    parser.add_argument("--device")
    parser.add_argument("--size", type=int, default=128, help="side of the frames")
    parser.add_argument("--seed", type=int, default=0, help="of the random frames")
    parser.add_argument("--out", type=Path, default=Path("runs/corrections"), metavar="DIR")
    args = parser.parse_args(argv)
    if not 1 <= args.videos <= len(SYNTHLONG):
        parser.error(f"--videos is {args.videos}; expected 1 to {len(SYNTHLONG)}")
    predictor = build_sam2long_video_predictor(args.model, args.checkpoint, device=args.device)
    rows = []
    videos = of_davis(args.davis) if args.davis else of_synthlong(args.videos, args.size)
    for number, (name, images, truth) in enumerate(videos):
        row = one_video(predictor, name, images, truth, args.seed + number)
        if row is not None:
            rows.append(row)
            print(", ".join(f"{k} {v:.1f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
    table = pd.DataFrame(rows)
    args.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out / "corrections.csv", index=False)
    gains = {n: {(r["video"], "1"): r[f"gain, {n}"] for _, r in table.iterrows()} for n in ("random", "doubtful")}
    nothing = {key: 0.0 for key in gains["random"]}
    lines = []
    for name, a, b in (
        ("a random frame", nothing, gains["random"]),
        ("the most doubtful frame", nothing, gains["doubtful"]),
        ("doubtful minus random", gains["random"], gains["doubtful"]),
    ):
        d = bootstrap.paired(a, b)
        lines.append([name, f"{d.mean:+.1f}", f"{d.low:+.1f} to {d.high:+.1f}"])
    text = (
        f"{len(table)} videos, J&F before {table['J&F before'].mean():.1f}; gain of one correction:\n\n"
        + markdown_table(["correction at", "J&F gain", "95 % interval"], lines)
        + f"\n\n{describe()}\n"
    )
    (args.out / "corrections.md").write_text(text)
    print("\n" + text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
