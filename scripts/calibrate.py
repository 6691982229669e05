"""How far a model's estimates are from what turns out: fits the four numbers of eval/policies/calibrated.py.

    python scripts/calibrate.py --model nano --composed DIR --out configs/policies/calibration/nano.json

SAM2Long tracks generated videos, and, with --composed, those of a folder in DAVIS's layout (scripts/train_nano.py
composes such clips of photographs). Of every candidate mask it notes the predicted and the true IoU, and of every
frame the object's logit and whether it was there. Temperature and offset of each are fitted by cross-entropy on half
of the videos; the expected calibration errors, before and after, are of the other half. Never give it a benchmark
that you will report.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit, logit

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("TQDM_DISABLE", "1")

from eval import cli, pngs
from eval.datasets import open_dataset
from eval.policies.calibrated import EDGE, Rules
from eval.policies.geometry import mask_iou
from sam2long import build_sam2long_video_predictor
from sam2long.errors import Sam2LongError
from sam2long.export.atomic import write_json
from sam2long.synthetic import generate
from sam2long.synthetic.scenarios import SCENARIOS
from sam2long.tracking.track import Track

SEEDS = 910_000  # away from those of training, tests and synthlong
BINS = 15


class Noting(Track):
    """A track that notes what its candidates were worth. `truth`: the object's mask now, bool [H, W]."""

    truth: np.ndarray
    notes: Notes

    def decide(self, verdicts, look=None):
        there = bool(self.truth.any())
        for row, verdict in enumerate(verdicts):
            self.notes.logits.append((verdict.object_logit, there))
            if not there or verdict.object_logit <= 0:
                continue  # an absent object's candidates are empty, whatever they were thought to be
            for k, iou in enumerate(verdict.ious):
                self.notes.ious.append((iou, mask_iou(_as_large(look(row, k), self.truth.shape), self.truth)))
        return super().decide(verdicts, look)


class Notes:
    """(predicted IoU, true IoU) of candidates, and (object logit, presence) of frames."""

    def __init__(self) -> None:
        self.ious: list[tuple[float, float]] = []
        self.logits: list[tuple[float, bool]] = []


def _as_large(logits: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    enlarged = torch.nn.functional.interpolate(logits[None, None], size=size, mode="bilinear", align_corners=False)
    return (enlarged[0, 0] > 0).cpu().numpy()


def generated(videos: int, frames: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(images [T, H, W, 3] uint8, ids [T, H, W]) of generated videos."""
    for number in range(videos):
        scenario = list(SCENARIOS)[number % len(SCENARIOS)]
        scene = generate(scenario, SEEDS + number, frames, 256)
        pairs = [(frame.image, frame.ids) for frame in islice(scene, frames)]
        yield np.stack([image for image, _ in pairs]), np.stack([ids for _, ids in pairs])


def composed(root: Path, videos: int, frames: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same of a folder in DAVIS 2017's layout."""
    from PIL import Image

    dataset = open_dataset("davis17-val", root)
    for name in dataset.names()[:videos]:
        images = dataset.images(name)[:frames]
        labels = [dataset.annotations_root / name / f"{path.stem}.png" for path in images]
        yield (
            np.stack([np.asarray(Image.open(path).convert("RGB")) for path in images]),
            np.stack([pngs.read_ids(path) for path in labels]),
        )


def watch(predictor, images: np.ndarray, ids: np.ndarray, notes: Notes) -> None:
    """Track every object of the first frame, and note."""
    state = predictor.init_state(images)
    objects = [int(label) for label in np.unique(ids[0]) if label not in (0, pngs.VOID)]
    if not objects:
        return
    for label in objects:
        predictor.add_new_mask(state, 0, label, ids[0] == label)
    session = state.session

    def noting(direction):
        track, checkpoints = type(session).new_track(session, direction)
        return Noting(**vars(track)), checkpoints

    session.new_track = noting

    def show(frame: int) -> None:
        for label, obj in session.objects.items():
            for track in obj.tracks.values():
                track.truth, track.notes = ids[frame] == label, notes

    with session.calling(show):
        for _ in predictor.propagate_in_video(state):
            pass


def fitted(logits: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Temperature and offset that make sigmoid((logit - offset) / temperature) fit `truth`, shares in 0..1."""

    def loss(values: np.ndarray) -> float:
        x = (logits - values[1]) / np.exp(values[0])
        return float(np.mean(np.logaddexp(0, x) - truth * x))

    log_temperature, offset = minimize(loss, np.zeros(2), method="Nelder-Mead").x
    return float(np.exp(log_temperature)), float(offset)


def calibration_error(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Expected calibration error in equal bins of the prediction: mean distance of prediction and truth."""
    bins = np.minimum((predicted * BINS).astype(int), BINS - 1)
    return float(sum(abs(np.sum(predicted[bins == b] - truth[bins == b])) for b in range(BINS)) / len(predicted))


def _logit(shares: np.ndarray) -> np.ndarray:
    return logit(np.clip(shares, EDGE, 1 - EDGE))


def calibrate(train: Notes, test: Notes) -> dict:
    """Rules, and the errors before and after on `test`."""
    result, errors = {}, {}
    for name, fields, entries in (
        ("iou", "ious", lambda pairs: (_logit(pairs[:, 0]), pairs[:, 1])),
        ("object", "logits", lambda pairs: (pairs[:, 0], pairs[:, 1])),
    ):
        logits, truth = entries(np.array(getattr(train, fields), float))
        result[f"{name}_temperature"], result[f"{name}_offset"] = fitted(logits, truth)
        logits, truth = entries(np.array(getattr(test, fields), float))
        after = (logits - result[f"{name}_offset"]) / result[f"{name}_temperature"]
        errors[name] = {
            "before": round(calibration_error(expit(logits), truth), 4),
            "after": round(calibration_error(expit(after), truth), 4),
            "samples": len(truth),
        }
    return {"rules": asdict(Rules(**{k: round(v, 4) for k, v in result.items()})), "calibration_error": errors}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--checkpoint", metavar="FILE")
    parser.add_argument("--device")
    parser.add_argument("--videos", type=int, default=16, help="of each kind")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--composed", type=Path, metavar="DIR", help="clips in DAVIS 2017's layout")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    args = parser.parse_args(argv)
    if min(args.videos, args.frames) < 2:
        parser.error("--videos and --frames are 2 or more: half of the videos are for testing")
    try:
        predictor = build_sam2long_video_predictor(
            args.model, args.checkpoint, device=args.device, apply_postprocessing=False
        )
        halves = Notes(), Notes()
        sources = [generated(args.videos, args.frames)]
        if args.composed:
            sources.append(composed(args.composed, args.videos, args.frames))
        for source in sources:
            for number, (images, ids) in enumerate(source):
                watch(predictor, images, ids, halves[number % 2])
                print(f"{number + 1} videos, {len(halves[0].ious)} + {len(halves[1].ious)} candidates", flush=True)
        content = {"model": args.model} | calibrate(*halves)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.out, content)
        print(json.dumps(content, indent=2))
    except Sam2LongError as error:
        print(f"error: {error}", file=sys.stderr)
        return cli.EXIT_BAD_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main())
