"""Scores on held-out clips: masks, predicted IoU, presence."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nano.clips import prepare
from nano.curriculum import OBJECTS
from nano.network import Tracker
from nano.prompts import PROMPTS
from sam2long.synthetic import generate


@dataclass(eq=False, kw_only=True)
class Run:
    """What the model said about T tracked frames of N clips, and the truth. The prompted frame is left out."""

    iou: Tensor  # [N, T] true IoU of the mask it chose; 1 when both are empty, 0 when only one is
    predicted: Tensor  # [N, T, 3] its own estimates
    true: Tensor  # [N, T, 3] true IoU of its three masks, before an absent object blanks them
    logit: Tensor  # [N, T] of the object
    area: Tensor  # [N, T] true pixels


@torch.no_grad()
def track_clips(
    model: nn.Module, scenario: str, clips: int, frames: int, prompt: str = "mask", seed: int = 900_000, size: int = 128
) -> Run:
    """Track the first object of held-out clips, as one batch, through the methods that sam2's predictor calls."""
    was = model.training
    model.eval()
    tracker = Tracker(model)
    device = model.device
    scenes = [generate(scenario, seed + k, frames, size) for k in range(clips)]
    kinds = torch.full((clips,), PROMPTS.index(prompt), device=device)
    bank = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    rows: dict[str, list[Tensor]] = {"iou": [], "predicted": [], "true": [], "logit": [], "area": []}
    for t in range(frames):
        shots = [s.frame(t) for s in scenes]
        images, masks = prepare(np.stack([[f.image] for f in shots]), np.stack([[f.ids] for f in shots]), device)
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
