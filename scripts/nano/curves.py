"""Learning curves of a run as a picture."""

from __future__ import annotations

import json
from pathlib import Path


def plot(run: Path, to: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
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
    fig.savefig(to, dpi=110)
