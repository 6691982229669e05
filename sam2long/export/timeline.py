"""timeline.png: when each object was visible, uncertain or absent, its predicted IoU, how many hypotheses lived."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sam2long.atomic import replacing
from sam2long.export.fonts import font_file, is_plain, shown_names
from sam2long.export.report import stretches

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

STATUS_COLOURS = {"visible": "#3a9d5d", "uncertain": "#f2b134", "absent": "#b8bcc4"}
DETAILED_OBJECTS = 12  # beyond that curves cannot be read, and bands remain
FIGURE_WIDTH = 12.0  # inches, as are the next ones
ROW_HEIGHT = {True: 1.3, False: 0.28}  # with curves, and with bands only
LEFT, RIGHT, TOP, BOTTOM = 1.7, 0.5, 0.55, 0.6
LABEL_LENGTH = 18  # longer names are cut


def write_timeline(report: pd.DataFrame, path: Path, *, labels: Mapping[int, str]) -> None:
    """Draw a `track_report`.

    Args:
        report: one row per frame and object; must not be empty.
        path: of the PNG.
        labels: object id -> name, "" for none.
    """
    from matplotlib.figure import Figure  # here: slow to import
    from matplotlib.font_manager import FontProperties
    from matplotlib.patches import Patch

    labels = shown_names(labels)
    objects = list(dict.fromkeys(report["obj_id"]))
    detailed = len(objects) <= DETAILED_OBJECTS
    height = TOP + BOTTOM + ROW_HEIGHT[detailed] * len(objects)
    figure = Figure(figsize=(FIGURE_WIDTH, height), dpi=110)
    span = report["frame"].min() - 0.5, report["frame"].max() + 0.5
    # Margins by hand: matplotlib's own layout makes rows of different heights out of axes with two scales.
    margins = {
        "left": LEFT / FIGURE_WIDTH, "right": 1 - RIGHT / FIGURE_WIDTH,
        "bottom": BOTTOM / height, "top": 1 - TOP / height, "hspace": 0.25,
    }  # fmt: skip
    axes = figure.subplots(len(objects), 1, sharex=True, squeeze=False, gridspec_kw=margins)[:, 0]
    for axis, obj_id in zip(axes, objects, strict=True):
        rows = report[report["obj_id"] == obj_id].sort_values("frame")
        _draw_band(axis, rows, top=1.0 if not detailed else 0.14)
        if detailed:
            _draw_curves(axis, rows)
        label = labels.get(obj_id, "")
        name = label if label == f"object {obj_id}" else f"{obj_id} {label}".strip()
        font = None if is_plain(name) else FontProperties(fname=font_file(label))
        text = name[:LABEL_LENGTH].replace("$", r"\$")  # no formulas
        axis.set_ylabel(text, rotation=0, ha="right", va="center", fontproperties=font)
        axis.set_xlim(*span)
        axis.set_ylim(0, 1.08)
        axis.set_yticks([0.2, 1.0] if detailed else [], ["0", "1"] if detailed else [])
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("frame")
    handles: list[Artist] = [Patch(color=colour, label=status) for status, colour in STATUS_COLOURS.items()]
    if detailed:
        from matplotlib.lines import Line2D

        handles += [
            Line2D([], [], color="#1f4e9c", label="predicted IoU, 0 to 1 (left)"),
            Line2D([], [], color="#c2387a", label="hypotheses alive (right)"),
            Line2D([], [], color="black", marker="v", linestyle="", label="prompt"),
        ]
    figure.legend(handles=handles, loc="upper center", ncols=len(handles), frameon=False, fontsize=9)
    with replacing(path) as partial:
        figure.savefig(partial, format="png")


def _draw_band(axis: Axes, rows: pd.DataFrame, top: float) -> None:
    """One coloured stretch for every run of frames of one status."""
    for start, end, status in stretches(rows):
        axis.broken_barh([(start - 0.5, end - start + 1)], (0, top), color=STATUS_COLOURS[status], lw=0)


def _draw_curves(axis: Axes, rows: pd.DataFrame) -> None:
    """IoU above the band on the left scale, hypotheses on the right one."""
    frames = rows["frame"].to_numpy()
    axis.plot(frames, 0.2 + 0.8 * rows["iou"].to_numpy(dtype=float), color="#1f4e9c", lw=1.1)
    if "prompted" in rows:
        prompted = frames[rows["prompted"].to_numpy(dtype=bool)]
        axis.plot(prompted, np.full(len(prompted), 1.03), "v", color="black", ms=5, clip_on=False)
    right = axis.twinx()
    pathways = rows["pathways"].to_numpy()
    most = max(3, int(pathways.max()))
    right.step(frames, pathways, where="mid", color="#c2387a", lw=1.1, alpha=0.8)
    right.set_ylim(-most * 0.25, most * 1.1)  # zero stands above the band too
    right.set_yticks(range(0, most + 1, max(1, most // 3)))
    right.spines[["top", "left"]].set_visible(False)
