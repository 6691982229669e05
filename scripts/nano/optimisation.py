"""Optimisers, learning rate, and gradients of several processes."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor, nn

TRUNK_BOOST = 0.1  # of the learning rate


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
    """Muon on the matrices inside the network, AdamW on everything else, and slowly on the pretrained trunk."""
    matrices, rest, trunk = [], [], []  # Newton-Schulz is cheap up to a few hundred columns
    for name, p in model.named_parameters():
        if name.startswith("image_encoder.trunk."):
            trunk.append(p)
            continue
        inner = p.ndim == 2 and "embed" not in name and "token" not in name
        inner = inner and 16 < min(p.shape) <= 128 and max(p.shape) < 1000
        (matrices if inner else rest).append(p)
    return [
        Muon(matrices, lr=lr),
        torch.optim.AdamW(
            [
                {"params": rest, "boost": 1.0, "weight_decay": 0.02},
                {"params": trunk, "boost": TRUNK_BOOST, "weight_decay": 0.0},
            ],
            lr=lr,
            betas=(0.9, 0.98),
            fused=True,
        ),
    ]


def learning_rate(progress: float, step: int, peak: float) -> float:
    return peak * min(1.0, (step + 1) / 80) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


def average_gradients(model: nn.Module, ranks: int) -> None:
    """Over all ranks. What is frozen keeps no gradient, so that no optimiser moves it."""
    learning = [p for p in model.parameters() if p.requires_grad]
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in learning])
    dist.all_reduce(flat)
    at = 0
    for p in learning:
        p.grad = flat[at : at + p.numel()].view_as(p) / ranks
        at += p.numel()
