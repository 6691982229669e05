"""Train the embedded nano model from scratch on generated videos, SAM 2's recipe in small.

    python scripts/train_nano.py train --out runs/nano --minutes 110     # resumes when runs/nano/last.pt exists
    python scripts/train_nano.py eval  --weights sam2long/models/nano.safetensors

The schedule (learning rate, clip length, scenarios) follows the share of the minutes already spent, so an interrupted
run goes on where it stopped, and a slower machine gets fewer steps of the same curriculum.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing as mp
import random
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from sam2long.synthetic import SCENARIOS, generate

MODELS = Path(__file__).resolve().parents[1] / "sam2long" / "models"
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
PROMPTS = ("mask", "box", "click")
PRESENCE_WEIGHT = 2.0
SLIVER = 12 / 128**2  # of the frame
OBJECTS = 2  # tracked rows per clip; they share one image encoding


# -- curriculum ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Stage:
    until: float  # share of the minutes
    mix: dict[str, int]  # scenario -> weight; "first" is `easy` with large objects and nothing else
    clips: int
    frames: int  # of a clip
    chunk: int  # frames per backward pass; memories are carried over, detached
    truth: float  # chance that a memory is made from the true mask
    strides: tuple[int, ...] = (1,)
    upsample: int = 1  # of the logits before the loss
    size: int = 128  # of the frames; 64 is four times as fast, and what is learned there carries over
    corrections: float = 0.0  # chance per frame of a second pass with a click on the error
    every_mask: float = 0.0  # share of the loss that goes to all masks instead of the best
    prompt_weight: float = 0.3  # of the first frame against the others
    zoom: int = 100  # of the objects, in percent: at 64 px they fill more of the frame


ALL = {"easy": 3, "occlusion": 3, "twins": 2, "reappear": 3, "crowd": 2, "long": 2}
STAGES = (
    Stage(until=0.07, mix={"first": 1}, clips=24, frames=3, chunk=3, truth=0.7, size=64, zoom=130,
          every_mask=0.7, prompt_weight=1.0),
    Stage(until=0.17, mix={"first": 2, "easy": 3, "twins": 1, "occlusion": 1}, clips=20, frames=4, chunk=4, truth=0.3,
          size=64, zoom=150, every_mask=0.2, prompt_weight=0.6),
    Stage(until=0.30, mix=ALL, clips=16, frames=8, chunk=8, truth=0.1, strides=(1, 1, 2), size=64, zoom=150,
          every_mask=0.1, prompt_weight=0.5),
    Stage(until=0.42, mix=ALL, clips=16, frames=16, chunk=8, truth=0.0, strides=(1, 1, 2, 3), size=64, zoom=150,
          prompt_weight=0.5, corrections=0.03),
    Stage(until=0.515, mix=ALL, clips=8, frames=8, chunk=8, truth=0.0, strides=(1, 1, 2), prompt_weight=0.5,
          corrections=0.05),
    Stage(until=0.72, mix=ALL, clips=16, frames=32, chunk=8, truth=0.0, strides=(1, 1, 2, 3), size=64, zoom=150,
          corrections=0.02),
    Stage(until=0.72, mix=ALL, clips=6, frames=24, chunk=8, truth=0.0, strides=(1, 1, 2, 3), upsample=2,
          corrections=0.02),
    Stage(until=1.01, mix=ALL, clips=6, frames=40, chunk=8, truth=0.0, strides=(1, 1, 2, 3), upsample=2,
          corrections=0.02),
)  # fmt: skip


def stage_at(progress: float, turn: int = 0) -> Stage:
    """The stage that this share of the minutes is in; stages that end together take turns."""
    until = min(s.until for s in STAGES if progress < s.until)
    group = [s for s in STAGES if s.until == until]
    return group[turn % len(group)]


# -- data ------------------------------------------------------------------------------------------------------------


def make_clip(rng: random.Random, stage: Stage) -> tuple[np.ndarray, np.ndarray]:
    """One clip with two objects that are both in view on its first frame: [T, H, W, 3] uint8 and [T, H, W] ids."""
    name = rng.choices(list(stage.mix), list(stage.mix.values()))[0]
    size = stage.size
    knobs = SCENARIOS["easy" if name == "first" else name]
    knobs = replace(knobs, size=tuple(n * stage.zoom // 100 for n in knobs.size))
    if name == "first":
        larger = tuple(n * 5 // 4 for n in knobs.size)
        knobs = replace(knobs, size=larger, strangers=(0, 1), camera=150, clutter=(0, 1), blur=0)
        scene = generate("easy", rng.randrange(1 << 40), 40, size, OBJECTS, split="train", knobs=knobs)
    else:
        length = 240 if name == "long" else 120
        scene = generate(name, rng.randrange(1 << 40), length, size, OBJECTS, split="train", knobs=knobs)
    stride = rng.choice(stage.strides)
    span = (stage.frames - 1) * stride
    start = 0
    if scene.num_frames > span + 1:
        for _ in range(6):
            t = rng.randrange(scene.num_frames - span)
            counts = np.bincount(scene.ids(t).reshape(-1), minlength=OBJECTS + 1)[1:]
            if counts.min() > size * size // 80:
                start = t
                break
    frames = [scene.frame(min(start + k * stride, scene.num_frames - 1)) for k in range(stage.frames)]
    if rng.random() < 0.5:
        frames_rgb = np.stack([f.image[:, ::-1] for f in frames])
        return frames_rgb, np.stack([f.ids[:, ::-1] for f in frames])
    return np.stack([f.image for f in frames]), np.stack([f.ids for f in frames])


def make_batch(rng: random.Random, stage: Stage, clips: int) -> tuple[np.ndarray, np.ndarray]:
    pairs = [make_clip(rng, stage) for _ in range(clips)]
    return np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])


def producer(queue, seed: int, progress, clips_share: int) -> None:
    """Runs in its own process (for a GPU) and puts finished batches into `queue`."""
    torch.set_num_threads(1)
    rng = random.Random(seed)
    for turn in itertools.count():
        stage = stage_at(progress.value, turn)
        queue.put((stage, *make_batch(rng, stage, max(stage.clips // clips_share, 1))))


# -- one pass over a chunk of frames ---------------------------------------------------------------------------------


class ExpandedPosition(nn.Module):
    """sam2's position encoding without its copy per image."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x[:1]).expand(x.shape[0], -1, -1, -1)


def build(config: Path) -> nn.Module:
    return instantiate(OmegaConf.load(config).model, _recursive_=True)


def set_size(model: nn.Module, size: int) -> None:
    """Make a built model take frames of another size, as its YAML's `image_size` would."""
    grid = size // model.backbone_stride
    encoder = model.sam_prompt_encoder
    model.image_size, model.sam_image_embedding_size = size, grid
    encoder.input_image_size, encoder.image_embedding_size = (size, size), (grid, grid)
    encoder.mask_input_size = (4 * grid, 4 * grid)


class Tracker:
    """Drives sam2's own methods over a batch of rows (objects), as its predictor does at inference, with gradients."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.raw: tuple[Tensor, ...] = ()
        neck = model.image_encoder.neck
        if not isinstance(neck.position_encoding, ExpandedPosition):
            neck.position_encoding = ExpandedPosition(neck.position_encoding)
        inner = model.sam_mask_decoder.predict_masks

        def keep(**inputs):
            """All four masks, IoUs, tokens and object logits: before sam2 blanks the masks of absent objects."""
            self.raw = inner(**inputs)
            return self.raw

        model.sam_mask_decoder.predict_masks = keep

    def close(self) -> None:
        del self.model.sam_mask_decoder.predict_masks  # back to the class's own

    def encode(self, images: Tensor):
        """[N, 3, H, W] normalised -> features and positions, [hw, N, C] per level."""
        out = self.model.forward_image(images)
        _, feats, pos, sizes = self.model._prepare_backbone_features(out)
        return feats, [p[:, :1] for p in pos], sizes

    def prompt(self, feats, sizes, masks: Tensor, kinds: Tensor, rng: random.Random, jitter: float = 0.1):
        """First frame. masks: [R, H, W] bool; kinds: [R], an index into PROMPTS. Returns an output and losses' raw."""
        model = self.model
        parts, raws = [], []
        for kind in (0, 1, 2):
            at = (kinds == kind).nonzero()[:, 0]
            if not len(at):
                continue
            level = [f[:, at] for f in feats]
            high = [f.permute(1, 2, 0).unflatten(2, s) for f, s in zip(level[:-1], sizes[:-1], strict=True)]
            top = level[-1].permute(1, 2, 0).unflatten(2, sizes[-1])
            target = masks[at, None].float()
            if kind == 0:
                out = model._use_mask_as_output(top, high, target)
                raws.append((at, *self.raw[:2], self.raw[3], 1))  # reading the mask back is a first lesson
            else:
                points, labels = box_points(masks[at], rng, jitter) if kind == 1 else click_points(masks[at], rng)
                out = model._forward_sam_heads(
                    backbone_features=top + model.no_mem_embed[0, 0][:, None, None],
                    point_inputs={"point_coords": points, "point_labels": labels},
                    high_res_features=high,
                    multimask_output=kind == 2,
                )
                raws.append((at, *self.raw[:2], self.raw[3], 3 if kind == 2 else 1))
            high_masks = torch.where(out[4] > 0, 10.0, -10.0)  # sam2's builder binarises prompted masks for memory
            parts.append((at, high_masks, out[5], out[6], out[3]))
        order = torch.cat([p[0] for p in parts]).argsort()
        high_masks, ptr, logit, low = (torch.cat([p[i] for p in parts])[order] for i in (1, 2, 3, 4))
        return {"high": high_masks, "obj_ptr": ptr, "logit": logit, "low": low}, raws

    def remember(self, out: dict, feats, sizes, use: Tensor | None = None) -> dict:
        masks = out["high"] if use is None else use
        features, position = self.model._encode_new_memory(feats, sizes, masks, out["logit"], False)
        return {"maskmem_features": features, "maskmem_pos_enc": position, "obj_ptr": out["obj_ptr"]}

    def track(self, frame: int, bank: dict, feats, pos, sizes) -> dict:
        """A later frame, from memory alone. `top` and `high_res` let `correct` look at it again."""
        rows = feats[-1].shape[1]
        top = self.model._prepare_memory_conditioned_features(
            frame_idx=frame,
            is_init_cond_frame=False,
            current_vision_feats=feats[-1:],
            current_vision_pos_embeds=[pos[-1].expand(-1, rows, -1)],
            feat_sizes=sizes[-1:],
            output_dict=bank,
            num_frames=1 << 20,
        )
        high = [f.permute(1, 2, 0).unflatten(2, s) for f, s in zip(feats[:-1], sizes[:-1], strict=True)]
        out = self.model._forward_sam_heads(backbone_features=top, high_res_features=high, multimask_output=True)
        return {"all": out[0], "ious": out[2], "low": out[3], "high": out[4], "obj_ptr": out[5], "logit": out[6],
                "top": top, "high_res": high}  # fmt: skip

    def correct(self, out: dict, points: Tensor, labels: Tensor) -> dict:
        """The same frame again with a click and the mask so far, as sam2's predictor corrects."""
        again = self.model._forward_sam_heads(
            backbone_features=out["top"],
            point_inputs={"point_coords": points, "point_labels": labels},
            mask_inputs=out["low"].detach().clamp(-32, 32),
            high_res_features=out["high_res"],
            multimask_output=True,
        )
        return out | {"high": again[4], "obj_ptr": again[5], "logit": again[6]}


def box_points(masks: Tensor, rng: random.Random, jitter: float = 0.1) -> tuple[Tensor, Tensor]:
    """A box as sam2 takes it: two points with labels 2 and 3. Its sides are off by up to `jitter` of the size."""
    corners = []
    for m in masks:
        ys, xs = m.any(1).nonzero()[:, 0], m.any(0).nonzero()[:, 0]
        x0, x1, y0, y1 = int(xs[0]), int(xs[-1]) + 1, int(ys[0]), int(ys[-1]) + 1
        jx, jy = jitter * (x1 - x0), jitter * (y1 - y0)
        corners.append([[x0 + rng.uniform(-jx, jx), y0 + rng.uniform(-jy, jy)],
                        [x1 + rng.uniform(-jx, jx), y1 + rng.uniform(-jy, jy)]])  # fmt: skip
    points = torch.tensor(corners, device=masks.device).clamp(0, masks.shape[-1])
    return points, torch.tensor([[2, 3]], dtype=torch.int32, device=masks.device).expand(len(masks), 2)


def click_points(masks: Tensor, rng: random.Random) -> tuple[Tensor, Tensor]:
    """One positive click at a random pixel of each mask."""
    points = []
    for m in masks:
        spots = m.nonzero()
        y, x = spots[rng.randrange(len(spots))].tolist()
        points.append([[float(x), float(y)]])
    return torch.tensor(points, device=masks.device), torch.ones(len(masks), 1, dtype=torch.int32, device=masks.device)


def correction_points(truth: Tensor, predicted: Tensor, rng: random.Random) -> tuple[Tensor, Tensor]:
    """One click per row on a wrong pixel (1: missed, 0: too much); on the object where all is right; else padding."""
    points, labels = [], []
    for want, got in zip(truth, predicted, strict=True):
        missed, extra = (want & ~got).nonzero(), (got & ~want).nonzero()
        spots, label = (missed, 1) if len(missed) >= len(extra) else (extra, 0)
        if not len(spots):
            spots, label = want.nonzero(), 1
        y, x = spots[rng.randrange(len(spots))].tolist() if len(spots) else (0, 0)
        points.append([[float(x), float(y)]])
        labels.append([label if len(spots) else -1])
    return torch.tensor(points, device=truth.device), torch.tensor(labels, dtype=torch.int32, device=truth.device)


# -- losses ----------------------------------------------------------------------------------------------------------


def mask_losses(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and true IoU per mask. logits: [N, K, h, w]; truth: [N, 1, h, w] coverage 0..1. Returns [N, K] twice."""
    logits, truth = logits.flatten(2), truth.flatten(2)
    truth = truth.expand_as(logits)
    bce = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    prob = logits.sigmoid()
    match = prob * truth + (1 - prob) * (1 - truth)
    alpha = 0.25 * truth + 0.75 * (1 - truth)
    focal = (alpha * (1 - match) ** 2 * bce).mean(-1)
    inside, outside = truth.sum(-1).clamp(min=1), (1 - truth).sum(-1).clamp(min=1)
    balanced = 0.5 * ((bce * truth).sum(-1) / inside + (bce * (1 - truth)).sum(-1) / outside)
    dice = 1 - (2 * (prob * truth).sum(-1) + 1) / (prob.sum(-1) + truth.sum(-1) + 1)
    with torch.no_grad():
        a, b = logits > 0, truth > 0.5
        iou = (a & b).sum(-1) / (a | b).sum(-1).clamp(min=1)
    return 20 * focal + dice + balanced, iou


def losses(raws, truth: Tensor, present: Tensor, upsample: int, every_mask: float = 0.0) -> dict[str, Tensor]:
    """Sum of SAM 2's losses over decoder outputs. raws: list of (masks, ious, logits); truth [N, H, W]; present [N]."""
    masks, ious, logits = (torch.cat([r[i] for r in raws]) for i in range(3))
    if upsample > 1:
        masks = F.interpolate(masks, scale_factor=upsample, mode="bilinear", align_corners=False)
    target = F.adaptive_avg_pool2d(truth[:, None].float(), masks.shape[-1])
    per_mask, true_iou = mask_losses(masks.float(), target)
    best = per_mask.argmin(1, keepdim=True)
    weight = present.float()
    total = weight.sum().clamp(min=1)
    mask = (per_mask.gather(1, best)[:, 0] * weight).sum() / total
    if every_mask:
        mask = (1 - every_mask) * mask + every_mask * (per_mask.mean(1) * weight).sum() / total
    iou = ((ious - true_iou).abs().mean(1) * weight).sum() / total
    clear = ((target.flatten(1).mean(1) > SLIVER) | ~present).float()  # hardly anything in view: no lesson on presence
    presence = F.binary_cross_entropy_with_logits(logits[:, 0], weight, clear, reduction="sum")
    presence = presence / clear.sum().clamp(min=1)
    chosen = true_iou.gather(1, ious.argmax(1, keepdim=True))[:, 0]
    return {"mask": mask, "iou": iou, "presence": presence, "J": (chosen * weight).sum().detach() / total}


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
    kinds = torch.tensor(rng.choices((0, 1, 2), (5, 3, 2), k=rows), device=images.device)
    present = masks.flatten(2).any(2)  # [R, T]
    bank = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    log: dict[str, float] = {}
    steps = 0
    for first in range(0, frames, stage.chunk):
        last = min(first + stage.chunk, frames)
        span = last - first
        every, pos, sizes = tracker.encode(images[:, first:last].flatten(0, 1))
        raws_start, raws, want_start, want, here = [], [], [], [], []
        for t in range(first, last):
            feats = [f[:, clip_of * span + (t - first)] for f in every]
            if t == 0:
                out, parts = tracker.prompt(feats, sizes, masks[:, 0], kinds, rng)
                bank["cond_frame_outputs"][0] = tracker.remember(out, feats, sizes)
                for at, m, i, o, k in parts:  # one mask (token 0) for masks and boxes, three for a click
                    pick = [0, 0, 0] if k == 1 else [1, 2, 3]
                    raws_start.append((m[:, pick], i[:, pick], o))
                    want_start.append(masks[at, 0])
                continue
            out = tracker.track(t, bank, feats, pos, sizes)
            raws.append((tracker.raw[0][:, 1:], tracker.raw[1][:, 1:], tracker.raw[3]))
            want.append(masks[:, t])
            here.append(present[:, t])
            if rng.random() < stage.corrections:
                points = correction_points(masks[:, t], out["high"].detach()[:, 0] > 0, rng)
                out = tracker.correct(out, *points)
                raws.append((tracker.raw[0][:, 1:], tracker.raw[1][:, 1:], tracker.raw[3]))
                want.append(masks[:, t])
                here.append(present[:, t])
            use = None
            if stage.truth:
                pick = torch.rand(rows, device=images.device) < stage.truth
                use = torch.where(pick[:, None, None, None], masks[:, t, None].float() * 20 - 10, out["high"])
            entry = tracker.remember(out, feats, sizes, use)
            bank["non_cond_frame_outputs"][t] = entry
            bank["non_cond_frame_outputs"].pop(t - 16, None)
        part = losses(raws, torch.cat(want), torch.cat(here), stage.upsample, stage.every_mask)
        loss = part["mask"] + part["iou"] + PRESENCE_WEIGHT * part["presence"]
        if raws_start:
            target = torch.cat(want_start)
            start = losses(raws_start, target, target.flatten(1).any(1), stage.upsample, stage.every_mask)
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


# -- training --------------------------------------------------------------------------------------------------------


def prepare(images: np.ndarray, ids: np.ndarray, device) -> tuple[Tensor, Tensor]:
    x = torch.from_numpy(images).to(device).float().div_(255)
    x = ((x - MEAN.to(device)) / STD.to(device)).permute(0, 1, 4, 2, 3).contiguous()
    i = torch.from_numpy(ids).to(device)
    return x, torch.stack([i == k for k in range(1, OBJECTS + 1)], 1).flatten(0, 1)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Newton-Schulz), in float32 and batched by shape: torch's own is bf16, slow on CPUs."""

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.02) -> None:
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay, boost=4.0))

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(tuple(p.shape), []).append(p)
            for (rows, columns), params in by_shape.items():
                buffers = [self.state[p].setdefault("momentum", torch.zeros_like(p)) for p in params]
                grads = [p.grad for p in params]
                torch._foreach_mul_(buffers, group["momentum"])
                torch._foreach_add_(buffers, grads)
                x = torch.stack(torch._foreach_add(grads, buffers, alpha=group["momentum"]))
                update = orthogonalise(x) * (0.2 * max(rows, columns) ** 0.5)
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(params, list(update), alpha=-group["lr"])


def orthogonalise(x: Tensor, steps: int = 4) -> Tensor:
    """The nearest (semi-)orthogonal matrix, roughly. x: [n, rows, columns]."""
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (2.0315 * gram @ gram - 4.775 * gram) @ x
    return x.mT if tall else x


def optimisers(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon on the matrices inside the network, AdamW on everything else."""
    matrices, rest = [], []  # Newton-Schulz is cheap up to a few hundred columns
    for name, p in model.named_parameters():
        inner = p.ndim == 2 and "embed" not in name and "token" not in name
        inner = inner and 16 < min(p.shape) <= 128 and max(p.shape) < 1000
        (matrices if inner else rest).append(p)
    return [
        Muon(matrices, lr=lr),
        torch.optim.AdamW([{"params": rest, "boost": 1.0}], lr=lr, weight_decay=0.02, betas=(0.9, 0.98), fused=True),
    ]


def learning_rate(progress: float, step: int, peak: float) -> float:
    return peak * min(1.0, (step + 1) / 80) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


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


def clean_state(model: nn.Module) -> dict[str, Tensor]:
    return {k: v for k, v in model.state_dict().items() if "position_encoding.inner" not in k}


def export(model: nn.Module, path: Path) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    spare = path.with_suffix(".tmp")
    save_file({k: v.detach().half().contiguous() for k, v in clean_state(model).items()}, spare)
    spare.replace(path)


def batches(args: argparse.Namespace, rank: int, step: int, progress):
    """Endless batches: made here (CPU training, where every core is busy anyway) or by `--producers` processes."""
    seed = (args.seed * 1_000_003 + step) * 64 + rank
    if not args.producers:
        rng = random.Random(seed)
        for turn in itertools.count():  # the same on all ranks
            stage = stage_at(progress.value, turn)
            yield stage, *make_batch(rng, stage, max(stage.clips // args.ranks, 1))
    queue: mp.Queue = mp.Queue(2 * args.producers)
    for k in range(args.producers):
        mp.Process(target=producer, args=(queue, seed * 64 + k, progress, args.ranks), daemon=True).start()
    while True:
        yield queue.get()


def average_gradients(model: nn.Module, ranks: int) -> None:
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in model.parameters()]
    flat = torch.cat([g.reshape(-1) for g in grads])
    dist.all_reduce(flat)
    at = 0
    for p in model.parameters():
        p.grad = flat[at : at + p.numel()].view_as(p) / ranks
        at += p.numel()


def train(args: argparse.Namespace) -> None:
    Path(args.out).mkdir(parents=True, exist_ok=True)
    if args.ranks == 1:
        train_rank(0, args)
        return
    meeting = Path(tempfile.mkdtemp()) / "meeting"
    torch.multiprocessing.spawn(train_rank, args=(args, str(meeting)), nprocs=args.ranks)


def train_rank(rank: int, args: argparse.Namespace, meeting: str = "") -> None:
    torch.set_num_threads(args.threads)
    if args.ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=args.ranks)
    torch.manual_seed(args.seed)
    out = Path(args.out)
    model = build(MODELS / "nano.yaml").to(args.device).train()
    twin = build(MODELS / "nano.yaml").to(args.device)  # carries the averaged weights when they are scored
    tracker = Tracker(model)
    opts = optimisers(model, args.lr)
    params = list(model.parameters())
    ema = [p.detach().clone() for p in params]
    step, spent = 0, 0.0
    last = out / "last.pt"
    if last.exists():
        saved = torch.load(last, map_location=args.device)
        model.load_state_dict(saved["model"])
        if not args.fresh_optimiser:
            for opt, state in zip(opts, saved["opts"], strict=True):
                opt.load_state_dict(state)
        ema = [e.clone() for e in saved["ema"]]
        step, spent = saved["step"], saved["spent"]
        print(f"resumed at step {step}, {spent / 60:.1f} min", flush=True)
    total = 60 * args.minutes
    progress = mp.Value("d", min(spent / total, 1.0))
    source = batches(args, rank, step, progress)
    rng = random.Random(args.seed + step + 1000 * rank)
    torch.manual_seed(args.seed + step + 1000 * rank)
    log = (out / "log.jsonl").open("a") if rank == 0 else None
    clock = saved_at = scored_at = time.time()
    sums: dict[str, float] = {}
    count = 0
    norm = lr = 0.0

    def backward(loss: Tensor) -> None:
        nonlocal step, norm, lr
        for p in params:
            p.grad = None
        loss.backward()
        if args.ranks > 1:
            average_gradients(model, args.ranks)
        norm = float(nn.utils.clip_grad_norm_(params, args.clip))
        if not math.isfinite(norm):
            return
        lr = learning_rate(progress.value, step, args.lr)
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = lr * group["boost"]
            opt.step()
        step += 1
        torch._foreach_lerp_(ema, [p.detach() for p in params], 1 - min(args.ema, (1 + step) / (10 + step)))

    def report(row: dict) -> None:
        print(json.dumps(row), flush=True)
        log.write(json.dumps(row) + "\n")
        log.flush()

    while progress.value < 1.0:
        stage, images, ids = next(source)
        if stage.size != model.image_size:
            set_size(model, stage.size)
        x, masks = prepare(images, ids, args.device)
        with torch.autocast(torch.device(args.device).type, torch.bfloat16, enabled=args.bf16):
            part = forward_clip(tracker, x, masks, stage, rng, backward)
        now = time.time()
        spent += now - clock
        clock = now
        if args.ranks > 1:  # one clock for all, or they would part at a change of stage
            shared = torch.tensor([spent], dtype=torch.float64)
            dist.broadcast(shared, 0)
            spent = float(shared)
        progress.value = min(spent / total, 1.0)
        if rank:
            continue
        for k, v in (part | {"norm": norm}).items():
            sums[k] = sums.get(k, 0.0) + v
        count += 1
        if count == args.log_every:
            row = {k: round(v / count, 4) for k, v in sums.items()}
            row |= {"step": step, "minutes": round(spent / 60, 2), "lr": round(lr, 6)}
            report(row | {"frames": stage.frames, "size": stage.size})
            sums, count = {}, 0
        if now - saved_at > 120 or progress.value >= 1.0:
            saved_at = now
            state = {"model": model.state_dict(), "opts": [o.state_dict() for o in opts], "ema": ema, "step": step,
                     "spent": spent, "args": {k: v for k, v in vars(args).items() if not callable(v)}}  # fmt: skip
            torch.save(state, out / "last.tmp")
            (out / "last.tmp").replace(last)
        if now - scored_at > 60 * args.score_minutes or progress.value >= 1.0:
            scored_at = now
            twin.load_state_dict(model.state_dict())
            for p, e in zip(twin.parameters(), ema, strict=True):
                p.data.copy_(e)
            export(twin, out / "ema.safetensors")
            row = {"step": step, "minutes": round(spent / 60, 2)}
            for name in ("easy", "occlusion"):
                found = summary(track_clips(twin, name, 8, 40))
                row.update({f"{name}_{k}": round(found[k], 3) for k in ("J", "J_last_quarter", "presence_auc")})
            report(row)


def load(weights: Path, device: str = "cpu") -> nn.Module:
    from safetensors.torch import load_file

    model = build(MODELS / "nano.yaml")
    model.load_state_dict({k: v.float() for k, v in load_file(weights).items()})
    return model.to(device).eval()


def evaluate(args: argparse.Namespace) -> None:
    """Held-out scores of the model card, as one JSON line per scenario and prompt."""
    torch.set_num_threads(args.threads)
    model = load(Path(args.weights), args.device)
    for scenario in args.scenarios:
        for prompt in args.prompts:
            start = time.time()
            found = summary(track_clips(model, scenario, args.clips, args.frames, prompt, args.seed))
            row = {"scenario": scenario, "prompt": prompt, "clips": args.clips, "frames": args.frames}
            row |= {k: round(v, 3) for k, v in found.items()} | {"seconds": round(time.time() - start, 1)}
            print(json.dumps(row), flush=True)


def plot(args: argparse.Namespace) -> None:
    """Learning curves of a run as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [json.loads(line) for line in (Path(args.out) / "log.jsonl").read_text().splitlines()]
    fig, axes = plt.subplots(1, 3, figsize=(13, 3.5), layout="constrained")
    for axis, names in zip(axes, (("mask", "norm"), ("iou", "presence"), ("J", "J_prompt")), strict=True):
        for name in names:
            points = [(r["minutes"], r[name]) for r in rows if name in r]
            axis.plot(*zip(*points, strict=True), lw=1, label=name)
        axis.set(xlabel="minutes")
    for name in ("easy_J", "occlusion_J", "occlusion_presence_auc"):
        points = [(r["minutes"], r[name]) for r in rows if name in r]
        if points:
            axes[2].plot(*zip(*points, strict=True), "o-", ms=3, label=f"held out {name}")
    for axis in axes:
        axis.legend(fontsize=7)
    fig.savefig(args.to, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(dest="command", required=True)
    p = sub.add_parser("train")
    p.add_argument("--out", default="runs/nano")
    p.add_argument("--minutes", type=float, default=110)
    p.add_argument("--lr", type=float, default=5e-4)
    p.add_argument("--clip", type=float, default=1.0)
    p.add_argument("--ema", type=float, default=0.998)
    p.add_argument("--ranks", type=int, default=2, help="processes that share each batch; 1 on a GPU")
    p.add_argument("--threads", type=int, default=1, help="per rank: one is fastest")
    p.add_argument("--producers", type=int, default=0, help="processes that make clips; 8 or more beside a GPU")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--bf16", action="store_true", help="where the processor is fast at it")
    p.add_argument("--log-every", type=int, default=25)
    p.add_argument("--score-minutes", type=float, default=6)
    p.add_argument("--fresh-optimiser", action="store_true")
    p.set_defaults(run=train)
    p = sub.add_parser("eval", help="held-out scores of exported weights")
    p.add_argument("--weights", default=str(MODELS / "nano.safetensors"))
    p.add_argument("--scenarios", nargs="+", default=["easy", "occlusion", "reappear", "twins", "crowd", "long"])
    p.add_argument("--prompts", nargs="+", default=["mask", "box"], choices=PROMPTS)
    p.add_argument("--clips", type=int, default=20)
    p.add_argument("--frames", type=int, default=100)
    p.add_argument("--seed", type=int, default=900_000, help="of the first clip")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.set_defaults(run=evaluate)
    p = sub.add_parser("plot", help="learning curves of a run")
    p.add_argument("--out", default="runs/nano")
    p.add_argument("--to", default="runs/nano/curves.png")
    p.set_defaults(run=plot)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
