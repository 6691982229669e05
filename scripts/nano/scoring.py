"""Scores on held-out clips: masks, predicted IoU, presence."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nano.clips import normalised, prepare
from nano.composed import Cutouts, Whole
from nano.curriculum import OBJECTS, SIZE, Stage
from nano.network import Tracker
from nano.photos import VOID, Photo
from nano.prompts import PROMPTS, box_points, correction_points, middle
from nano.stills import LEAST_SOURCE, LOGITS
from sam2long import SAM2LongVideoPredictor
from sam2long.synthetic import SCENARIOS, generate


@dataclass(eq=False, kw_only=True)
class Run:
    """What the model said about T tracked frames of N clips, and the truth. The prompted frame is left out."""

    iou: Tensor  # [N, T] true IoU of the mask it chose; 1 when both are empty, 0 when only one is
    predicted: Tensor  # [N, T, 3] its own estimates
    true: Tensor  # [N, T, 3] true IoU of its three masks, before an absent object blanks them
    logit: Tensor  # [N, T] of the object
    area: Tensor  # [N, T] true pixels


RESIZED = 3  # times as large, or as small, as on the first tracked frame: what came closer, or went away
COMPOSED = ("cutouts", "whole")  # sources that are made of photographs


def held_out_clips(
    name: str,
    clips: int,
    frames: int,
    photos: Sequence[Photo] = (),
    seed: int = 900_000,
    size: int = SIZE,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Clips that no training sees: of a scenario, or composed of `photos`, which were held out.

    Each is images [T, size, size, 3] uint8 and ids [T, size, size] uint8.
    """
    if name in SCENARIOS:
        scenes = [generate(name, seed + k, frames, size) for k in range(clips)]
        return [(np.stack([f.image for f in scene]), np.stack([f.ids for f in scene])) for scene in scenes]
    source = {"cutouts": Cutouts, "whole": Whole}[name](photos)
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


SMALL, MEDIUM = 0.02, 0.1  # of the picture: what counts as a small object, and as a medium one
FIVE = 5  # clicks


@torch.no_grad()
def prompt_photos(model: nn.Module, photos: list[Photo], least: int = LEAST_SOURCE) -> dict[str, float]:
    """Boxes and clicks on every object of still pictures: medians of the IoU, judged at the photographs' own size.

    Returns:
        `box`, `click_best` and `click_top` (one click in the middle: the best of the three masks, and the one on top),
        `five_clicks` (the first in the middle, each other in the middle of the largest error), of all objects, and of
        the small, medium and large ones; `outside_small`: mean share of a box's mask that lies outside the box.
    """
    tracker = Tracker(model)
    size = model.image_size
    rows: list[dict[str, float]] = []
    for photo in photos:
        counts = np.bincount(photo.ids.ravel(), minlength=256)
        ids = [k for k in range(1, VOID) if counts[k] >= least]
        if not ids:
            continue
        image = cv2.resize(photo.image, (size, size), interpolation=cv2.INTER_AREA)
        every, _, sizes = tracker.encode(normalised(image[None], model.device))
        top, high = tracker.grids([f.expand(-1, len(ids), -1) for f in every], sizes)
        truth = torch.from_numpy(np.stack([photo.ids == k for k in ids])).to(model.device)
        scale = torch.tensor([size / truth.shape[2], size / truth.shape[1]], device=model.device)

        def full(logits: Tensor, shape=truth.shape[-2:]) -> Tensor:
            return F.interpolate(logits.float(), shape, mode="bilinear", align_corners=False) > 0

        corners, labels = box_points(truth, random.Random(0), jitter=0.0)
        out = tracker.point_at(top, high, corners * scale, labels, multimask=False)
        boxed = full(out[3])[:, 0]
        outside = boxed.clone()
        for row, ((x0, y0), (x1, y1)) in zip(outside, corners.int().tolist(), strict=True):
            row[y0:y1, x0:x1] = False
        places = torch.tensor([[middle(mask)[1]] for mask in truth], device=model.device).float()
        labels = torch.ones(len(ids), 1, dtype=torch.int32, device=model.device)
        out = tracker.point_at(top, high, (places + 0.5) * scale, labels, multimask=True)
        three = overlap(full(tracker.raw[0][:, 1:]), truth[:, None])
        on_top = three.gather(1, tracker.raw[1][:, 1:].argmax(1, keepdim=True))[:, 0]
        for _ in range(FIVE - 1):
            more, signs = correction_points(truth, full(out[3])[:, 0], random.Random(0), centred=1.0)
            places, labels = torch.cat([places, more], 1), torch.cat([labels, signs], 1)
            so_far = out[3].clamp(-LOGITS, LOGITS)
            out = tracker.point_at(top, high, (places + 0.5) * scale, labels, multimask=False, masks=so_far)
        found = {"box": overlap(boxed[:, None], truth[:, None])[:, 0], "click_best": three.amax(1), "click_top": on_top,
                 "five_clicks": overlap(full(out[3]), truth[:, None])[:, 0],
                 "outside": outside.flatten(1).sum(1) / boxed.flatten(1).sum(1).clamp(min=1)}  # fmt: skip
        for at, k in enumerate(ids):
            rows.append({name: float(v[at]) for name, v in found.items()} | {"share": counts[k] / photo.ids.size})
    tracker.close()
    return by_size(rows)


def asked_photos(predictor: SAM2LongVideoPredictor, photos: list[Photo], least: int = LEAST_SOURCE) -> dict[str, float]:
    """Boxes and clicks on every object of still pictures as a user of the predictor gets them answered.

    Returns:
        `box`, `click_top`, `five_clicks` of all objects and by size, and `outside_small`, as `prompt_photos` has them.
    """
    rows: list[dict[str, float]] = []
    for photo in photos:
        state = predictor.init_state(photo.image[None])
        counts = np.bincount(photo.ids.ravel(), minlength=256)

        def answer(state=state, **said) -> np.ndarray:
            return predictor.add_new_points_or_box(state, 0, 1, **said)[2][0, 0].cpu().numpy() > 0

        for k in (k for k in range(1, VOID) if counts[k] >= least):
            truth = photo.ids == k
            ys, xs = np.where(truth.any(1))[0], np.where(truth.any(0))[0]
            x0, x1, y0, y1 = xs[0], xs[-1] + 1, ys[0], ys[-1] + 1
            boxed = answer(box=[x0, y0, x1, y1])
            beyond = boxed.copy()
            beyond[y0:y1, x0:x1] = False
            predictor.reset_state(state)
            place, sign = np.array([middle(torch.from_numpy(truth))[1]]), [1]
            clicked = found = answer(points=place + 0.5, labels=sign)
            for _ in range(FIVE - 1):
                wrong = (torch.from_numpy(mask)[None] for mask in (truth, found))
                place, sign = (part[0].numpy() for part in correction_points(*wrong, random.Random(0), centred=1.0))
                found = answer(points=place + 0.5, labels=sign, clear_old_points=False)
            predictor.reset_state(state)
            masks = {"box": boxed, "click_top": clicked, "five_clicks": found}
            rows.append({name: (mask & truth).sum() / (mask | truth).sum() for name, mask in masks.items()}
                        | {"share": counts[k] / truth.size, "outside": beyond.sum() / max(boxed.sum(), 1)})  # fmt: skip
    return by_size(rows)


def by_size(rows: list[dict[str, float]]) -> dict[str, float]:
    """Medians over all objects, and over the small, medium and large ones; means of what lies outside a box."""
    share = np.array([row["share"] for row in rows])
    groups = {"": share >= 0, "_small": share < SMALL, "_medium": (share >= SMALL) & (share < MEDIUM),
              "_large": share >= MEDIUM}  # fmt: skip
    figures: dict[str, float] = {"objects": len(rows)}
    for name in (name for name in rows[0] if name not in ("share", "outside")):
        values = np.array([row[name] for row in rows])
        figures |= {name + group: float(np.median(values[at])) for group, at in groups.items() if at.any()}
    if groups["_small"].any():
        figures["outside_small"] = float(np.mean([row["outside"] for row in rows if row["share"] < SMALL]))
        figures["objects_small"] = int(groups["_small"].sum())
    return figures


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
    size = run.area / run.area[:, :1].clamp(min=1)
    resized = seen & ((size > RESIZED) | (size < 1 / RESIZED))
    chosen = run.true.gather(2, run.predicted.argmax(2, keepdim=True))[..., 0]
    return {
        "J": float(run.iou.mean()),
        "J_visible": float(run.iou[seen].mean()),
        "J_resized": float(run.iou[resized].mean()),
        "J_last_quarter": float(run.iou[:, -run.iou.shape[1] // 4 :].mean()),
        "presence_auc": auc(run.logit[seen | ~seen], seen.flatten()),
        "visible": float(seen.float().mean()),
        "said_visible": float((run.logit > 0).float().mean()),
        "best_or_near": float((run.true.amax(2) - chosen <= 0.02)[seen].float().mean()),
        "best_of_three_J": float(run.true.amax(2)[seen].mean()),
        "iou_rank_correlation": rank_correlation(run.predicted[seen].flatten(), run.true[seen].flatten()),
    }
