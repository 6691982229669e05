"""SAM 2's losses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SLIVER = 12 / 128**2  # of the frame
CLOSE, RANKING = 0.02, 0.12  # a difference in IoU that counts; what the order of the three masks weighs beside it


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
    """Sum of SAM 2's losses over decoder outputs.

    Args:
        raws: (masks [n, K, h, w], predicted IoUs [n, K], object logits [n, 1]) of some decoder outputs each; K may
            differ between them.
        truth: [N, H, W]; present: [N]; N is the sum of all n.
        upsample: of the logits before the loss.
        every_mask: share of the mask loss that goes to all masks alike; the rest goes to the best one alone.
    """
    targets = truth.split([len(masks) for masks, _, _ in raws])
    parts = [_rows(raw, target, upsample, every_mask) for raw, target in zip(raws, targets, strict=True)]
    mask, iou, chosen, seen = (torch.cat([part[i] for part in parts]) for i in range(4))
    weight = present.float()
    total = weight.sum().clamp(min=1)
    logits = torch.cat([logits[:, 0] for _, _, logits in raws])
    clear = ((seen > SLIVER) | ~present).float()  # hardly anything in view: no lesson on presence
    presence = F.binary_cross_entropy_with_logits(logits, weight, clear, reduction="sum") / clear.sum().clamp(min=1)
    return {"mask": (mask * weight).sum() / total, "iou": (iou * weight).sum() / total, "presence": presence,
            "J": (chosen * weight).sum().detach() / total}  # fmt: skip


def _rows(raw, truth: Tensor, upsample: int, every_mask: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each row of one decoder output: loss of its masks, of its predicted IoUs, IoU on top, share of the frame."""
    masks, ious, _ = raw
    if upsample > 1:
        masks = F.interpolate(masks, scale_factor=upsample, mode="bilinear", align_corners=False)
    target = F.adaptive_avg_pool2d(truth[:, None].float(), masks.shape[-1])
    per_mask, true_iou = mask_losses(masks.float(), target)
    mask = (1 - every_mask) * per_mask.amin(1) + every_mask * per_mask.mean(1)
    order = F.kl_div((ious / CLOSE).log_softmax(1), (true_iou / CLOSE).softmax(1), reduction="none").sum(1)
    iou = (ious - true_iou).abs().mean(1) + RANKING * order
    top = ious.argmax(1, keepdim=True)  # the one that a tracker takes
    return mask, iou, true_iou.gather(1, top)[:, 0], target.flatten(1).mean(1)
