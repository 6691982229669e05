"""Scores on held-out clips: masks, predicted IoU, presence."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nano.clips import HELD_OUT, prepare
from nano.composed import Cutouts, Whole
from nano.curriculum import OBJECTS, Stage
from nano.network import Tracker
from nano.photos import Photo, read_photos
from nano.prompts import PROMPTS
from sam2long.synthetic import SCENARIOS, generate


@dataclass(eq=False, kw_only=True)
class Run:
    """What the model said about T tracked frames of N clips, and the truth. The prompted frame is left out."""

    iou: Tensor  # [N, T] true IoU of the mask it chose; 1 when both are empty, 0 when only one is
    predicted: Tensor  # [N, T, 3] its own estimates
    true: Tensor  # [N, T, 3] true IoU of its three masks, before an absent object blanks them
    logit: Tensor  # [N, T] of the object
    area: Tensor  # [N, T] true pixels


COMPOSED = ("cutouts", "whole")  # sources that are made of photographs


def held_out_clips(
    name: str,
    clips: int,
    frames: int,
    photos: str | None = None,
    held_out: int = HELD_OUT,
    seed: int = 900_000,
    size: int = 256,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Clips that no training sees: of a scenario, or composed of the photographs held out.

    Each is images [T, size, size, 3] uint8 and ids [T, size, size] uint8.
    """
    if name in SCENARIOS:
        scenes = [generate(name, seed + k, frames, size) for k in range(clips)]
        return [(np.stack([f.image for f in scene]), np.stack([f.ids for f in scene])) for scene in scenes]
    source = {"cutouts": Cutouts, "whole": Whole}[name](read_photos(Path(photos))[-held_out:])
    stage = Stage(until=1, clips=1, frames=frames, chunk=frames, size=size)
    return [source.clip(random.Random(seed + k), stage) for k in range(clips)]


@torch.no_grad()
def track_clips(
    model: nn.Module, clips: list[tuple[np.ndarray, np.ndarray]], prompt: str = "mask", seed: int = 0
) -> Run:
    """Track the first object of each clip, all as one batch, through the methods that sam2's predictor calls."""
    was = model.training
    model.eval()
    tracker = Tracker(model)
    frames, size = clips[0][1].shape[:2]
    kinds = torch.full((len(clips),), PROMPTS.index(prompt), device=model.device)
    bank = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    rows: dict[str, list[Tensor]] = {"iou": [], "predicted": [], "true": [], "logit": [], "area": []}
    for t in range(frames):
        shots = (np.stack([clip[part][t : t + 1] for clip in clips]) for part in (0, 1))
        images, masks = prepare(*shots, model.device)
        truth = masks[::OBJECTS]  # [N, 1, H, W]
        feats, pos, sizes = tracker.encode(images[:, 0])
        if t == 0:
            out, _ = tracker.prompt(feats, sizes, truth[:, 0], kinds, random.Random(seed), jitter=0.0)
            bank["cond_frame_outputs"][0] = tracker.remember(out, feats, sizes)
            continue
        out = tracker.track(t, bank, feats, pos, sizes)
        bank["non_cond_frame_outputs"][t] = tracker.remember(out, feats, sizes)
        bank["non_cond_frame_outputs"].pop(t - 16, None)
        raw = F.interpolate(tracker.raw[0][:, 1:], (size, size), mode="bilinear", align_corners=False) > 0
        rows["iou"].append(overlap(out["high"] > 0, truth)[:, 0])
        rows["true"].append(overlap(raw, truth))
        rows["predicted"].append(out["ious"])
        rows["logit"].append(out["logit"][:, 0])
        rows["area"].append(truth.flatten(1).sum(1))
    tracker.close()
    model.train(was)
    return Run(**{k: torch.stack(v, 1).cpu() for k, v in rows.items()})


@torch.no_grad()
def click_photos(model: nn.Module, photos: list[Photo], size: int = 256) -> dict[str, float]:
    """One click in the middle of every object: how good the best of the three masks and the one on top are (IoU)."""
    tracker = Tracker(model)
    best, top = [], []
    for photo in photos:
        image = cv2.resize(photo.image, (size, size), interpolation=cv2.INTER_AREA)
        for k in photo.objects:
            mask = cv2.resize((photo.ids == k) * np.float32(1), (size, size), interpolation=cv2.INTER_AREA) > 0.5
            inside = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
            y, x = np.unravel_index(inside.argmax(), inside.shape)
            images, truth = prepare(image[None, None], mask[None, None].astype(np.uint8), model.device)
            feats, _, sizes = tracker.encode(images[:, 0])
            tracker.click(feats, sizes, torch.tensor([[[x + 0.5, y + 0.5]]], device=model.device))
            masks, predicted = tracker.raw[0][:, 1:], tracker.raw[1][0, 1:]
            raw = F.interpolate(masks, (size, size), mode="bilinear", align_corners=False) > 0
            iou = overlap(raw, truth[:1])[0]
            best.append(float(iou.max()))
            top.append(float(iou[predicted.argmax()]))
    tracker.close()
    figures = {"best": best, "top": top}
    medians = {f"median_{name}": float(np.median(values)) for name, values in figures.items()}
    return {"objects": len(best)} | medians | {f"mean_{name}": float(np.mean(v)) for name, v in figures.items()}


def overlap(a: Tensor, b: Tensor) -> Tensor:
    union = (a | b).flatten(2).sum(2)
    return torch.where(union > 0, (a & b).flatten(2).sum(2) / union.clamp(min=1), 1.0)


def auc(score: Tensor, label: Tensor) -> float:
    """Chance that a visible frame scores higher than an absent one; nan when there is only one kind."""
    n1, n0 = int(label.sum()), int((~label).sum())
    if not n1 or not n0:
        return float("nan")
    ranks = score.double().argsort().argsort().double()
    return float((ranks[label].sum() - n1 * (n1 - 1) / 2) / (n1 * n0))


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's, ties in input order."""
    ranks = torch.stack([a.argsort().argsort(), b.argsort().argsort()]).double()
    return float(torch.corrcoef(ranks)[0, 1])


def summary(run: Run) -> dict[str, float]:
    seen = run.area > 0
    chosen = run.true.gather(2, run.predicted.argmax(2, keepdim=True))[..., 0]
    return {
        "J": float(run.iou.mean()),
        "J_visible": float(run.iou[seen].mean()),
        "J_last_quarter": float(run.iou[:, -run.iou.shape[1] // 4 :].mean()),
        "presence_auc": auc(run.logit[seen | ~seen], seen.flatten()),
        "visible": float(seen.float().mean()),
        "said_visible": float((run.logit > 0).float().mean()),
        "best_or_near": float((run.true.amax(2) - chosen <= 0.02)[seen].float().mean()),
        "best_of_three_J": float(run.true.amax(2)[seen].mean()),
        "iou_rank_correlation": rank_correlation(run.predicted[seen].flatten(), run.true[seen].flatten()),
    }
