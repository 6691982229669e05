"""Learning curves of a run as a picture."""

from __future__ import annotations

import json
from pathlib import Path

PANELS = {
    "loss of the masks": {"mask": "training clips"},
    "other losses": {"iou": "predicted IoU", "presence": "presence"},
    "J": {
        "J": "training", "J_prompt": "training, prompted frame",
        "cutouts_J": "held-out cut-outs", "whole_J": "held-out whole photographs", "occlusion_J": "held-out occlusion",
    },
    "IoU on photographs": {
        "still_J_box": "training, box", "still_J_click": "training, click",
        "box": "held-out box", "click_top": "held-out click", "five_clicks": "held-out five clicks",
    },
    "AUC of presence": {"occlusion_presence_auc": "held-out occlusion"},
}  # fmt: skip


def plot(run: Path, to: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    fig, axes = plt.subplots(1, len(PANELS), figsize=(4 * len(PANELS), 4), layout="constrained")
    for axis, (title, lines) in zip(axes, PANELS.items(), strict=True):
        for name, label in lines.items():
            points = [(r["minutes"], r[name]) for r in rows if name in r]
            style = "o-" if label.startswith("held-out") else "-"
            if points:
                axis.plot(*zip(*points, strict=True), style, lw=1, ms=3, label=label)
        axis.set(xlabel="minutes", title=title)
        if axis.lines:
            axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    fig.savefig(to, dpi=80)
