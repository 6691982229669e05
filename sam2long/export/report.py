"""report.csv: what the tracker thought of every frame and object; and stretches of frames that it thought alike of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sam2long.atomic import replacing

if TYPE_CHECKING:
    import pandas as pd


FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # beginnings that make a spreadsheet compute a cell


def write_report(
    report: pd.DataFrame,
    path: Path,
    *,
    labels: Mapping[int, str],
    source_frame: Callable[[int], int],
    time: Callable[[int], float | None] = lambda frame: None,
) -> None:
    """Write a `track_report` as CSV, with the frame's number and time in the video and the object's name.

    Args:
        report: one row per frame and object.
        path: of the CSV.
        labels: object id -> name, "" for none.
        source_frame: index of a tracked frame -> number in the video.
        time: the same -> seconds after the video's first frame; None, an empty cell, without a clock.
    """
    table = report.copy()
    table.insert(1, "source_frame", [source_frame(frame) for frame in table["frame"]])
    table.insert(2, "time", [in_seconds(time(frame)) for frame in table["frame"]])
    table.insert(4, "label", [as_text(labels.get(obj_id, "")) for obj_id in table["obj_id"]])
    table["memory_frames"] = [_spaced(frames) for frames in table["memory_frames"]]
    with replacing(path) as partial:
        table.to_csv(partial, index=False, float_format="%.5g")


def stretches(rows: pd.DataFrame) -> list[tuple[int, int, str]]:
    """(first frame, last frame, status) of every run of neighbouring frames with one status.

    Args:
        rows: of one object, in the order of the video.
    """
    frames, statuses = rows["frame"].to_numpy(), rows["status"].to_numpy()
    breaks = np.flatnonzero((statuses[1:] != statuses[:-1]) | (np.diff(frames) != 1)) + 1
    runs = [run for run in np.split(np.arange(len(frames)), breaks) if len(run)]
    return [(int(frames[run[0]]), int(frames[run[-1]]), str(statuses[run[0]])) for run in runs]


def in_seconds(time: float | None) -> str:
    """For tables, to the microsecond."""
    return "" if time is None else f"{time:.6f}"


def as_text(text: str) -> str:
    """A cell that spreadsheets take for text: they compute what begins like a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def _spaced(frames: str | Iterable[object]) -> str:
    return frames if isinstance(frames, str) else " ".join(str(frame) for frame in frames)
