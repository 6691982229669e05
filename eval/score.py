"""Scoring predictions: one call, and the files and the table that come of it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd

from eval import pngs, presence, protocols
from eval.protocols.base import Options, Scores
from sam2long.errors import DataError


def evaluate(protocol: str, gt: str | Path, pred: str | Path, **options: object) -> Scores:
    """Score the masks under `pred` against those under `gt` as the named official tool would.

    Args:
        protocol: one of `eval.protocols.NAMES`.
        gt: the data set's folder (or split, or annotation folder; see docs/evaluation.md).
        pred: one folder per video, in any of the official layouts; a single folder around them is fine.
        options: fields of `eval.protocols.base.Options`.
    Raises:
        DataError: something that the official protocol needs is missing or malformed; it is named.
    """
    score = protocols.find(protocol)
    gt, pred = Path(gt), Path(pred)
    if not gt.is_dir():
        raise DataError(f"{gt} is not a folder; expected the data set with its ground truth: check --gt")
    if not pred.is_dir():
        raise DataError(f"{pred} is not a folder; expected predictions in one folder per video: check --pred")
    return score(gt, pred, Options(**options))


def restrict(dataset, gt: Path) -> dict[str, object]:
    """Options that score only the videos of a run of part of a data set."""
    if dataset.names() == dataset.all_names():
        return {}
    return {"videos": tuple(dataset.names())}


def object_table(scores: Scores) -> pd.DataFrame:
    """One row per object, exact values."""
    rows = [{"video": o.video, "object": o.obj, "group": o.group} | o.values for o in scores.objects]
    table = pd.DataFrame(rows)
    return table if any(o.group for o in scores.objects) else table.drop(columns="group")


def video_table(scores: Scores) -> pd.DataFrame:
    """One row per video: the mean over its objects. No official tool prints these."""
    table = object_table(scores)
    measures = [c for c in table.columns if c not in ("video", "object", "group")]
    grouped = table.groupby("video", sort=False)
    means = grouped[measures].mean().reset_index()
    means.insert(1, "objects", grouped.size().to_numpy())
    return means


def frame_table(scores: Scores) -> pd.DataFrame:
    """One row per object and scored frame: J, F (fractions) and mask areas; the report's curves are made from it."""
    rows = []
    for o in scores.objects:
        for i, name in enumerate(o.frame_names):
            row = {"video": o.video, "object": o.obj, "index": i, "frame": name}
            row |= {m: values[i] for m, values in o.per_frame.items() if m != "J_last" and i < len(values)}
            if o.areas:
                row["gt_area"], row["pred_area"] = o.areas[i]
            rows.append(row)
    return pd.DataFrame(rows)


def _plain(value: object) -> object:
    """Without nan, which JSON does not have."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def as_json(scores: Scores) -> str:
    content = {"protocol": scores.protocol, "unit": scores.unit, "notes": scores.notes}
    content |= {"reported": scores.reported(), "exact": scores.exact()}
    return json.dumps(_plain(content), indent=1) + "\n"


def write(scores: Scores, folder: Path) -> None:
    """scores.json (as reported, and exact), global.csv, objects.csv, videos.csv, frames.csv."""
    pngs.write_whole(folder / "scores.json", as_json(scores).encode())
    summary = pd.DataFrame([scores.reported()["global"]])
    tables = {
        "global": summary,
        "objects": object_table(scores),
        "videos": video_table(scores),
        "frames": frame_table(scores),
    }
    for name, table in tables.items():
        pngs.write_whole(folder / f"{name}.csv", table.to_csv(index=False).encode())


def presence_lines(scores: Scores) -> list[str]:
    """What `eval.presence` says of the scored frames; nothing where no object is absent, or areas are not known."""
    frames = frame_table(scores)
    if not {"J", "F", "gt_area"} <= set(frames.columns):
        return []
    known = presence.figures(frames.assign(score=100 * frames[["J", "F"]].mean(axis=1))) or {}
    return [f"{name}  {value:.1f}" for name, value in known.items() if not math.isnan(value)]


def as_text(scores: Scores) -> str:
    """The table to print: the dataset's row, then one per object, rounded as the official tool rounds.

    Where objects are absent, what no official tool says comes last: how often the tracker knew it.
    """
    reported = scores.reported()
    decimals = {"davis": 3, "davis2016": 3, "vost": 3, "lvos": 3, "lvos-2023": 3, "mosev2": 2, "box": 2}
    digits = decimals.get(scores.protocol, 1)

    def cell(value: object) -> str:
        if value is None:
            return "-"
        return f"{value:.{digits}f}" if isinstance(value, (int, float)) else str(value)

    lines = [f"protocol {scores.protocol}, {scores.unit}s, {len(scores.objects)} objects"]
    columns = list(scores.reported_columns)
    width = max([len(f"{o.video} {o.obj}") for o in scores.objects] + [8])
    lines.append(" ".join([" " * width] + [f"{c:>{max(len(c), 7)}}" for c in columns]))
    for o in scores.objects:
        values = [cell(scores.rounded(o.values[c])) for c in columns]
        lines.append(
            " ".join(
                [f"{o.video + ' ' + o.obj:<{width}}"]
                + [f"{v:>{max(len(c), 7)}}" for c, v in zip(columns, values, strict=True)]
            )
        )
    lines.append("")
    name_width = max(len(k) for k in reported["global"])
    lines += [f"{k:<{name_width}}  {cell(v)}" for k, v in reported["global"].items()]
    if known := presence_lines(scores):
        lines += ["", *known]
    lines += [f"note: {note}" for note in scores.notes]
    return "\n".join(lines)
