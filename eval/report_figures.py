"""The report's figures."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from eval.presence import returns

ABSENCES = (1, 4, 11, 31, 61)  # lower ends of the bins of absence length, in scored frames
_TIME_BINS = 20


def _save(figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def scatter(runs, path: Path) -> None:
    """Each video's score in the first run against every other."""
    figure, axis = plt.subplots(figsize=(5.5, 5.5))
    base = runs[0].objects.groupby("video")["score"].mean()
    for r in runs[1:]:
        other = r.objects.groupby("video")["score"].mean()
        common = base.index.intersection(other.index)
        better = int((other[common] > base[common]).sum())
        label = f"{r.label}: better on {better} of {len(common)}"
        axis.scatter(base[common], other[common], s=18, alpha=0.7, label=label)
    axis.plot([0, 100], [0, 100], color="grey", linewidth=0.8)
    axis.set(xlabel=f"{runs[0].label}, score of a video", ylabel="other run", xlim=(-2, 102), ylim=(-2, 102))
    axis.legend(loc="upper left", fontsize=8)
    _save(figure, path)


def over_time(runs, path: Path) -> None:
    figure, axis = plt.subplots(figsize=(7, 4))
    last = max(int(r.frames["index"].max()) for r in runs)
    width = max(1, -(-(last + 1) // _TIME_BINS))
    for r in runs:
        binned = r.frames.groupby(r.frames["index"] // width)["score"].mean()
        axis.plot(binned.index * width + width / 2, binned, marker="o", markersize=3, label=r.label)
    axis.set(xlabel="scored frames since the prompt", ylabel="score", ylim=(0, 102))
    axis.legend(fontsize=8)
    _save(figure, path)


def after_absence(runs, path: Path) -> bool:
    """False, and no figure, when no object ever returns."""
    tables = [returns(r.frames) for r in runs]
    if not any(len(t) for t in tables):
        return False
    figure, axis = plt.subplots(figsize=(7, 4))
    labels = [f"{a}-{b - 1}" for a, b in zip(ABSENCES, ABSENCES[1:], strict=False)] + [f"{ABSENCES[-1]}+"]
    width = 0.8 / len(runs)
    for k, (r, table) in enumerate(zip(runs, tables, strict=True)):
        bins = np.searchsorted(ABSENCES, table["absence"], side="right") - 1
        means = [table["score"][bins == i].mean() for i in range(len(ABSENCES))]
        counts = [int((bins == i).sum()) for i in range(len(ABSENCES))]
        x = np.arange(len(ABSENCES)) + (k - (len(runs) - 1) / 2) * width
        axis.bar(x, means, width, label=r.label)
        if k == 0:
            labels = [f"{text}\n({n} returns)" for text, n in zip(labels, counts, strict=True)]
    axis.set(xlabel="scored frames absent", ylabel="score after the return", ylim=(0, 102))
    axis.set_xticks(range(len(ABSENCES)), labels)
    axis.legend(fontsize=8)
    _save(figure, path)
    return True


def corrections(curves: dict[str, list[float]], title: str, path: Path) -> None:
    """J&F after each round of `eval interact`; curves: rule -> mean J&F, the first before any correction."""
    figure, axis = plt.subplots(figsize=(6, 3.6))
    for rule, values in curves.items():
        axis.plot(range(len(values)), values, marker="o", markersize=3, label=rule)
    axis.set(xlabel="corrections of each object", ylabel="J&F", title=title)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    _save(figure, path)
