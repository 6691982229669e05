"""One pass over a batch of clips, chunk by chunk, each followed by a backward pass."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from nano.curriculum import OBJECTS, Stage
from nano.losses import losses
from nano.network import Tracker
from nano.prompts import correction_points

PRESENCE_WEIGHT = 2.0
CLICKS = (1, 2, 3)  # of a correction
LOST = 0.1  # IoU below which a visible object counts as lost


def lost(found: Tensor, truth: Tensor) -> Tensor:
    """Rows whose object is in view, and somewhere else than said. Both [R, H, W] bool; returns [R] bool."""
    shared, either = (found & truth).flatten(1).sum(1), (found | truth).flatten(1).sum(1)
    return truth.flatten(1).any(1) & (shared < LOST * either)


def remembered_masks(found: Tensor, truth: Tensor, stage: Stage) -> Tensor:
    """What memories are made from: found [R, 1, H, W] logits, in some rows replaced by truth [R, H, W] bool."""
    if not stage.truth and not stage.rescue:
        return found
    chance = torch.where(lost(found[:, 0] > 0, truth), max(stage.truth, stage.rescue), stage.truth)
    pick = torch.rand(len(truth), device=truth.device) < chance
    return torch.where(pick[:, None, None, None], truth[:, None].float() * 20 - 10, found)


def answers(parts, truth: Tensor) -> list[tuple]:
    """What the decoder said to prompts, as `losses` takes it, and what it should have said. truth: [R, H, W]."""
    picks = {1: [0], 3: [1, 2, 3]}  # one mask (token 0) for masks and boxes, three for a click
    return [((m[:, picks[k]], i[:, picks[k]], o), truth[at]) for at, m, i, o, k in parts]


def forward_clip(tracker: Tracker, images: Tensor, masks: Tensor, stage: Stage, rng: random.Random, backward) -> dict:
    """Track a batch of clips and learn from every chunk of frames; returns means for the log.

    Args:
        images: [B, T, 3, H, W] normalised.
        masks: [R, T, H, W] bool with R = B * OBJECTS, the objects of one clip next to each other.
        backward: called with the loss of each chunk; steps the optimiser.
    """
    clips, frames = images.shape[:2]
    rows = masks.shape[0]
    clip_of = torch.arange(clips, device=images.device).repeat_interleave(OBJECTS)
    kinds = torch.tensor(rng.choices((0, 1, 2), stage.kinds, k=rows), device=images.device)
    present = masks.flatten(2).any(2)  # [R, T]
    bank = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    log: dict[str, float] = {}
    steps = 0
    for first in range(0, frames, stage.chunk):
        last = min(first + stage.chunk, frames)
        span = last - first
        every, pos, sizes = tracker.encode(images[:, first:last].flatten(0, 1))
        asked, raws, want, here = [], [], [], []
        for t in range(first, last):
            feats = [f[:, clip_of * span + (t - first)] for f in every]
            if t == 0:
                out, parts = tracker.prompt(feats, sizes, masks[:, 0], kinds, rng)
                bank["cond_frame_outputs"][0] = tracker.remember(out, feats, sizes)
                asked += answers(parts, masks[:, 0])
                continue
            out = tracker.track(t, bank, feats, pos, sizes)
            raws.append((tracker.raw[0][:, 1:], tracker.raw[1][:, 1:], tracker.raw[3]))
            want.append(masks[:, t])
            here.append(present[:, t])
            if rng.random() < stage.corrections:
                clicks: list[tuple[Tensor, Tensor]] = []
                for turn in range(rng.choice(CLICKS)):
                    clicks.append(correction_points(masks[:, t], out["high"].detach()[:, 0] > 0, rng))
                    out = tracker.correct(out, *(torch.cat(parts, 1) for parts in zip(*clicks, strict=True)))
                    picks = [0] if turn else [1, 2, 3]  # one click may mean three things, as in sam2
                    raws.append((tracker.raw[0][:, picks], tracker.raw[1][:, picks], tracker.raw[3]))
                    want.append(masks[:, t])
                    here.append(present[:, t])
                marked = torch.where(out["high"] > 0, 10.0, -10.0)  # as a prompted frame's
                bank["cond_frame_outputs"][t] = tracker.remember(out, feats, sizes, marked)
            else:
                entry = tracker.remember(out, feats, sizes, remembered_masks(out["high"], masks[:, t], stage))
                bank["non_cond_frame_outputs"][t] = entry
            bank["non_cond_frame_outputs"].pop(t - 16, None)
        part = losses(raws, torch.cat(want), torch.cat(here), stage.upsample, stage.every_mask)
        loss = part["mask"] + part["iou"] + PRESENCE_WEIGHT * part["presence"]
        if asked:
            target = torch.cat([truth for _, truth in asked])
            answered = [raw for raw, _ in asked]
            start = losses(answered, target, target.flatten(1).any(1), stage.upsample, stage.every_mask)
            loss = loss + stage.prompt_weight * (start["mask"] + start["iou"] + start["presence"])
            log["J_prompt"] = float(start["J"])
        backward(loss)
        steps += 1
        for name, value in part.items():
            log[name] = log.get(name, 0.0) + float(value.detach())
        log["last_J"] = float(part["J"])
        for entries in bank.values():
            for t, e in entries.items():
                entries[t] = {k: ([x.detach() for x in v] if isinstance(v, list) else v.detach()) for k, v in e.items()}
    return {k: (v / steps if k not in ("J_prompt", "last_J") else v) for k, v in log.items()}
