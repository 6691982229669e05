"""Does a tracker say that its object is gone, and does it find it again? From the frames on which it is absent."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

FRAMES_AFTER_RETURN = 10
COLUMNS = (
    "absent frames",
    "said absent %",
    "said visible %",
    "AUC of the logit",
    "returns",
    "after a return",  # mean score of the first ten frames back
    "until gone again",  # of all frames back
)


def logits_path(out: Path, video: str) -> Path:
    """Where a run keeps the object logits of a video: columns object, frame (its name), object_logit."""
    return out / "logits" / f"{video}.csv"


def read_logits(out: Path, videos: Iterable[str]) -> pd.DataFrame | None:
    """Of all videos, with the column video; None when the run has not kept them."""
    tables = []
    for video in videos:
        if not logits_path(out, video).is_file():
            return None
        table = pd.read_csv(logits_path(out, video), dtype={"object": str, "frame": str})
        tables.append(table.assign(video=video))
    return pd.concat(tables) if tables else None


def returns(frames: pd.DataFrame) -> pd.DataFrame:
    """One row per return of an object: frames absent, and the mean score of the first ten frames back and of all.

    Args:
        frames: columns video, object, index, gt_area, score.
    Returns:
        Columns absence, score, score_all.
    """
    rows = []
    for _, track in frames.groupby(["video", "object"], sort=False):
        track = track.sort_values("index")
        visible, score = (track["gt_area"] > 0).to_numpy(), track["score"].to_numpy()
        gone, seen_before = 0, False
        for t, here in enumerate(visible):
            if here and gone and seen_before:
                stop = next((u for u in range(t, len(visible)) if not visible[u]), len(visible))
                first = min(stop, t + FRAMES_AFTER_RETURN)
                rows.append((gone, float(np.mean(score[t:first])), float(np.mean(score[t:stop]))))
            gone = 0 if here else gone + 1
            seen_before |= bool(here)
    return pd.DataFrame(rows, columns=["absence", "score", "score_all"])


def auc(logits: np.ndarray, visible: np.ndarray) -> float:
    """Chance that a frame with the object has the higher logit than one without; ties count half."""
    here, gone = logits[visible], logits[~visible]
    if not len(here) or not len(gone):
        return float("nan")
    ranks = pd.Series(np.concatenate([here, gone])).rank().to_numpy()[: len(here)]
    return float((ranks.sum() - len(here) * (len(here) + 1) / 2) / (len(here) * len(gone)))


def figures(frames: pd.DataFrame, logits: pd.DataFrame | None = None) -> dict[str, float] | None:
    """The columns above for some scored frames; None where no object is ever absent.

    Args:
        frames: columns video, object, index, frame, gt_area, pred_area (pixels) and score.
        logits: as `read_logits` gives them; without them there is no AUC.
    """
    if "gt_area" not in frames.columns or not (frames["gt_area"] == 0).any():
        return None
    visible, said = (frames["gt_area"] > 0).to_numpy(), (frames["pred_area"] > 0).to_numpy()
    back = returns(frames)
    area = float("nan")
    if logits is not None:
        known = frames.assign(visible=visible).merge(logits, on=["video", "object", "frame"])
        area = auc(known["object_logit"].to_numpy(), known["visible"].to_numpy())
    values = (int((~visible).sum()), 100 * float((~said[~visible]).mean()), 100 * float(said[visible].mean()), area,
              len(back), float(back["score"].mean()), float(back["score_all"].mean()))  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))
