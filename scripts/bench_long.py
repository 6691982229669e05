"""Memory and time over a long video: SAM2Long and plain sam2, each in a process of its own, on the nano model.

    python scripts/bench_long.py --frames 10000 --out runs/bench-long
    python scripts/bench_long.py --frames 10000 --systems settled --device cuda

Three objects, three pathways that are forced to differ now and then. The frames are a generated scene played forth and
back; for the middle half of the video another scene without the objects is shown, so they are absent for that long.
Every 500 frames: resident memory of the process, memory on the device, seconds per frame. `settled` hands masks out
once the pathways agree (max_lag 64), `online` at once, `stream` feeds frame after frame without an end; `plain sam2` is
sam2's own predictor on a folder of JPEGs, which it reads ahead as a whole.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

SYSTEMS = ("settled", "online", "stream", "plain sam2")
OBJECTS = 3
PERIOD = 150  # frames that are really different
EVERY = 500


class LongVideo:
    """Frames by index, [H, W, 3] uint8, without end; the objects are absent in the middle half."""

    def __init__(self, frames: int) -> None:
        from sam2long.synthetic import generate

        self.frames = frames
        scene = generate("crowd", seed=11, num_frames=PERIOD, size=128, num_objects=OBJECTS)
        made = [(frame.image, frame.ids) for frame in scene]
        self.first_ids = made[0][1]
        self.shown = [image for image, _ in made]
        self.other = [frame.image for frame in generate("easy", seed=12, num_frames=PERIOD, size=128, num_objects=1)]

    def absent(self, t: int) -> bool:
        return self.frames // 4 <= t < 3 * self.frames // 4

    def __getitem__(self, t: int) -> np.ndarray:
        turn = t % (2 * PERIOD - 2)
        return (self.other if self.absent(t) else self.shown)[min(turn, 2 * PERIOD - 2 - turn)]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[t] for t in range(self.frames))

    def mask(self, obj_id: int) -> np.ndarray:
        mask = self.first_ids == obj_id
        if not mask.any():
            mask = np.zeros_like(mask)
            mask[30 * obj_id : 30 * obj_id + 20, 40:70] = True
        return mask


def predictions(system: str, video: LongVideo, device: str | None) -> Iterator[None]:
    """One item per frame."""
    from sam2long import Sam2LongConfig, SAM2LongVideoPredictor, build_sam2long_video_predictor

    predictor = build_sam2long_video_predictor("nano", device=device, apply_postprocessing=False)
    ids = range(1, OBJECTS + 1)
    if system == "plain sam2":
        yield from _plain(predictor, video, ids)
        return
    emit = "settled" if system == "settled" else "online"
    ours = SAM2LongVideoPredictor.from_sam2(predictor, Sam2LongConfig(emit=emit, max_lag=64, certainty_threshold=4.0))
    if system == "stream":
        state = ours.init_stream(video[0])
        for i in ids:
            ours.add_new_mask(state, 0, i, video.mask(i))
        for t in range(1, video.frames + 1):
            ours.track(state, video[t])
            yield
        return
    with tempfile.TemporaryDirectory() as folder:
        state = ours.init_state(_written(video, Path(folder)))
        for i in ids:
            ours.add_new_mask(state, 0, i, video.mask(i))
        for _ in ours.propagate_in_video(state):
            yield


def _written(video: LongVideo, folder: Path) -> str:
    """The video as a folder of JPEGs; frames that repeat are links."""
    from PIL import Image

    first: dict[int, Path] = {}
    for t, image in enumerate(video):
        path = folder / f"{t:05d}.jpg"
        if id(image) in first:
            path.symlink_to(first[id(image)])
        else:
            Image.fromarray(image).save(path, quality=95)
            first[id(image)] = path
    return str(folder)


def _plain(predictor, video: LongVideo, ids: range) -> Iterator[None]:
    import torch

    from eval.trackers import as_sam2

    plain, mixed = as_sam2(predictor), predictor.compute_dtype()
    same_precision = torch.autocast(plain.device.type, dtype=mixed, enabled=mixed != torch.float32)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(), same_precision:
        state = plain.init_state(_written(video, Path(folder)))
        for i in ids:
            plain.add_new_mask(state, 0, i, video.mask(i))
        for _ in plain.propagate_in_video(state):
            yield


def measure(system: str, frames: int, device: str | None) -> None:
    """Runs in a process of its own and prints one JSON line per 500 frames."""
    import psutil
    import torch

    torch.set_num_threads(1)
    process, video = psutil.Process(), LongVideo(frames)
    window = time.perf_counter()
    for t, _ in enumerate(predictions(system, video, device), start=1):
        if t % EVERY == 0 or t == 200:
            gc.collect()
            now = time.perf_counter()
            row = {"system": system, "frame": t, "rss MiB": process.memory_info().rss / 2**20}
            if torch.cuda.is_available() and not str(device).startswith("cpu"):
                row["device MiB"] = torch.cuda.memory_allocated(device) / 2**20
            row["ms per frame"] = 1e3 * (now - window) / (EVERY if t > EVERY else 200 if t == 200 else EVERY - 200)
            print(json.dumps(row), flush=True)
            window = time.perf_counter()


def figure(table, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    for system, rows in table.groupby("system", sort=False):
        axes[0].plot(rows["frame"], rows["rss MiB"], marker=".", label=system)
        axes[1].plot(rows["frame"], rows["ms per frame"], marker=".", label=system)
    axes[0].set(xlabel="frame", ylabel="resident memory, MiB", ylim=(0, None))
    axes[1].set(xlabel="frame", ylabel="ms per frame", ylim=(0, None))
    axes[0].legend()
    fig.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--device")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-long"), metavar="DIR")
    parser.add_argument("--measure", choices=SYSTEMS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.frames < 4 * EVERY:
        parser.error(f"--frames is {args.frames}; expected {4 * EVERY} or more")
    if args.measure:
        measure(args.measure, args.frames, args.device)
        return 0
    import pandas as pd

    from eval.report import markdown_table

    rows = []
    for system in args.systems:
        command = [sys.executable, __file__, "--measure", system, "--frames", str(args.frames)]
        command += ["--device", args.device] if args.device else []
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
            for line in worker.stdout:
                rows.append(json.loads(line))
                print(line, end="", flush=True)
        if worker.returncode:
            print(f"error: {system} ended with exit code {worker.returncode}", file=sys.stderr)
            return 1
    table = pd.DataFrame(rows)
    args.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out / "long.csv", index=False)
    figure(table, args.out / "long.png")
    summary = []
    for system, part in table.groupby("system", sort=False):
        early, late = part[part["frame"] == EVERY].iloc[0], part.iloc[-1]
        times = part[part["frame"] > EVERY]
        slope = np.polyfit(times["frame"], times["ms per frame"], 1)[0] * 1000
        growth = 100 * (late["rss MiB"] / early["rss MiB"] - 1)
        device = [f"{row['device MiB']:.0f}" if row.get("device MiB") else "–" for row in (early, late)]
        summary.append(
            [system, str(int(late["frame"])), f"{early['rss MiB']:.0f}", f"{late['rss MiB']:.0f}", f"{growth:+.1f} %",
             *device, f"{times['ms per frame'].median():.0f}", f"{slope:+.2f}"]
        )  # fmt: skip
    heads = ["system", "frames", "MiB at 500", "MiB at the end", "growth", "on the device at 500", "at the end",
             "ms per frame", "slope, ms per 1,000 frames"]  # fmt: skip
    (args.out / "long.md").write_text(markdown_table(heads, summary) + "\n")
    print((args.out / "long.md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
