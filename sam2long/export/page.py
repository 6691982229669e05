"""report.html: a run for people. Stills, timelines, absences, frames to look at; one file that needs no network."""

from __future__ import annotations

import base64
import io
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from sam2long.atomic import replacing
from sam2long.doubt import looks
from sam2long.export.masks import MaskReader
from sam2long.export.overlay import COLOURS, paint
from sam2long.export.report import stretches
from sam2long.export.timeline import STATUS_COLOURS
from sam2long.tracking.report import ABSENT, UNCERTAIN, VISIBLE
from sam2long.video import FrameSource

if TYPE_CHECKING:
    import pandas as pd

STILL_WIDTH, STILL_HEIGHT = 320, 2560  # pixels at most; a JPEG cannot be of any height
SURROUNDINGS = 0.6  # of the object's size are shown on each of its sides, and
LEAST_SHARE = 0.25  # of the picture at least
MOST_LINES = 10  # of a list; more are counted
MOST_LOOKS = 5  # frames to look at, of each object
PAGE_ADDRESS = "http://127.0.0.1:8642"  # of `sam2long annotate`

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2em auto; padding: 0 1em; color: #1d2430; }
h1 { font-size: 1.5em; }
h2 { font-size: 1.2em; margin-top: 2.2em; border-top: 1px solid #d8dce3; padding-top: 1em; }
h3 { font-size: 1em; margin: 1em 0 .2em; }
ul { margin: .2em 0; padding-left: 1.3em; }
code { background: #eef0f3; padding: .1em .3em; overflow-wrap: anywhere; }
figure { margin: 0; flex: 0 1 320px; }
figure img { width: 100%; display: block; }
figcaption, .muted { color: #5b6472; font-size: .9em; }
.strip { display: flex; flex-wrap: wrap; gap: 12px; }
.scale { display: flex; justify-content: space-between; }
.dot { display: inline-block; width: .8em; height: .8em; border-radius: 50%; margin-right: .4em; }
svg { width: 100%; height: 26px; display: block; margin: .8em 0 .1em; background: #eef0f3; }
"""


def write_page(
    report: pd.DataFrame, path: Path, *, source: FrameSource, masks: MaskReader, labels: Mapping[int, str],
    title: str, annotate: Sequence[str],
) -> None:  # fmt: skip
    """Write the page.

    Args:
        report: a `track_report`.
        path: of the HTML file; appears when it is complete.
        source: the frames that the report counts, for stills and times.
        masks: of the run.
        labels: object id -> name, "" for none; its order gives the colours, as in the overlay.
        title: shown on top.
        annotate: the command that opens this run in the browser.
    Raises:
        VideoError: a frame for a still cannot be read.
    """
    clock = _Clock(source)
    objects = [_Findings(obj_id, rows) for obj_id, rows in report.groupby("obj_id", sort=False)]
    pictures = _stills(objects, source, masks, labels)
    order = list(labels)
    sections = [
        _section(found, labels, COLOURS[order.index(found.obj_id) % len(COLOURS)], pictures[found.obj_id], clock)
        for found in objects
    ]
    frames = report["frame"].nunique()
    legend = " &ensp; ".join(f"{_dot(colour)}{status}" for status, colour in STATUS_COLOURS.items())
    page = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title><style>{STYLE}</style>
<h1>{escape(title)}</h1>
<p>{_count(len(objects), "object")} on {_count(frames, "frame")}{clock.of(frames)}.
To correct a frame, run <code>{escape(shlex.join(annotate))}</code>; while it runs, the frames below open in it.</p>
<p class="muted">{legend} &ensp; ▾ prompt</p>
{"".join(sections)}
</html>
"""
    with replacing(path) as partial:
        partial.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")  # names of files need not be text


class _Clock:
    """Frames in seconds, where the video has them."""

    def __init__(self, source: FrameSource) -> None:
        self._source = source
        times = [source.time(frame) for frame in range(len(source))]
        steps = [b - a for a, b in zip(times, times[1:], strict=False) if a is not None and b is not None]
        self.step = median(steps) if steps else None

    def of(self, frames: int) -> str:
        """ ", 1.5 s" for a number of frames; "" without a clock."""
        return "" if self.step is None else f", {frames * self.step:.1f} s"

    def at(self, frame: int) -> str:
        """The frame's number in the video, and when it is shown."""
        number, time = self._source.source_index(frame), self._source.time(frame)
        return f"frame {number}" + ("" if time is None else f" ({int(time // 60)}:{time % 60:04.1f})")


class _Findings:
    """What the report says of one object."""

    def __init__(self, obj_id: int, rows: pd.DataFrame) -> None:
        rows = rows.sort_values("frame")
        self.obj_id = int(obj_id)
        self.frames = [int(frame) for frame in rows["frame"]]
        self.stretches = stretches(rows)
        self.prompted = [int(frame) for frame in rows["frame"][rows["prompted"].astype(bool)]]
        self.counts = {status: int((rows["status"] == status).sum()) for status in (VISIBLE, UNCERTAIN, ABSENT)}
        self.absences = [(first, last) for first, last, status in self.stretches if status == ABSENT]
        self.looks = looks({int(row.frame): row for row in rows.itertuples()}, MOST_LOOKS)
        seen = [int(frame) for frame in rows["frame"][rows["status"] == VISIBLE]]
        self.stills: dict[int, list[str]] = defaultdict(list)  # frame -> why it is shown
        if seen:
            self.stills[seen[0]].append("first")
            self.stills[seen[-1]].append("last seen")
        if seen and self.looks:
            self.stills[self.looks[0].frame].append("look here first")


def _stills(
    objects: Iterable[_Findings], source: FrameSource, masks: MaskReader, labels: Mapping[int, str]
) -> dict[int, dict[int, str]]:
    """Object -> frame -> picture as a data address. In the order of the video: going back is slow."""
    wanted = sorted((frame, found.obj_id) for found in objects for frame in found.stills)
    pictures: dict[int, dict[int, str]] = {found.obj_id: {} for found in objects}
    last, image = -1, np.empty(0)
    for frame, obj_id in wanted:
        if frame != last:
            last, image = frame, source.frame(frame)
        mask = masks.masks(frame).get(obj_id)
        shown = image if mask is None else paint(image, {obj_id: mask}, dict.fromkeys(labels, ""))
        pictures[obj_id][frame] = _as_address(_around(shown, mask))
    return pictures


def _around(image: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The part of a picture where the object is, in the picture's shape; all of it where there is none."""
    if mask is None or not mask.any():
        return image
    places = [np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0)]
    share = max((p[-1] - p[0] + 1) * (1 + 2 * SURROUNDINGS) / n for p, n in zip(places, mask.shape, strict=True))
    share = min(1.0, max(LEAST_SHARE, share))
    window = []
    for found, length in zip(places, mask.shape, strict=True):
        size = max(1, round(length * share))
        start = min(max(0, round((found[0] + found[-1] + 1 - size) / 2)), length - size)
        window.append(slice(start, start + size))
    return image[tuple(window)]


def _as_address(image: np.ndarray) -> str:
    picture = Image.fromarray(image)
    scale = min(STILL_WIDTH / picture.width, STILL_HEIGHT / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    out = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(out, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def _section(
    found: _Findings, labels: Mapping[int, str], colour: tuple[int, ...], pictures: Mapping[int, str], clock: _Clock
) -> str:
    name = f"{found.obj_id} {labels.get(found.obj_id, '')}".strip()
    strip = "".join(
        f'<figure><a href="{_link(frame)}"><img src="{pictures[frame]}" alt="object {found.obj_id}"></a>'
        f"<figcaption>{escape('; '.join(found.stills[frame]))}<br>{clock.at(frame)}</figcaption></figure>"
        for frame in sorted(pictures)
    )
    said = [f"{status} on {_count(count, 'frame')}{clock.of(count)}" for status, count in found.counts.items()]
    looks = [f"{_anchor(look.frame, clock)}: {escape('; '.join(look.why))}" for look in found.looks]
    absences = [
        f"{clock.at(first)} to {clock.at(last)}: {_count(last - first + 1, 'frame')}{clock.of(last - first + 1)}"
        for first, last in found.absences
    ]
    return f"""<section><h2>{_dot(f"rgb{colour}")}{escape(name)}</h2>
<div class="strip">{strip}</div>
{_timeline(found, clock)}
<p>Object {found.obj_id} is {"; ".join(said)}.</p>
{_list("Frames to look at, spread evenly", looks)}{_list("Absences", absences)}</section>
"""


def _timeline(found: _Findings, clock: _Clock) -> str:
    begin, end = found.frames[0], found.frames[-1] + 1
    bars = "".join(
        f'<rect x="{first}" y="6" width="{last - first + 1}" height="20" fill="{STATUS_COLOURS[status]}">'
        f"<title>{status}: {clock.at(first)} to {clock.at(last)}</title></rect>"
        for first, last, status in found.stretches
    )
    width = (end - begin) / 150
    marks = "".join(
        f'<path d="M{frame + 0.5 - width / 2} 0h{width}l{-width / 2} 6z"><title>prompt: {clock.at(frame)}</title>'
        "</path>"
        for frame in found.prompted
    )
    return (
        f'<svg viewBox="{begin} 0 {end - begin} 26" preserveAspectRatio="none">{bars}{marks}</svg>'
        f'<div class="scale muted"><span>{clock.at(begin)}</span><span>{clock.at(end - 1)}</span></div>'
    )


def _list(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    more = f"<li>and {len(lines) - MOST_LINES} more</li>" if len(lines) > MOST_LINES else ""
    return f"<h3>{title}</h3><ul>{''.join(f'<li>{line}</li>' for line in lines[:MOST_LINES])}{more}</ul>"


def _dot(colour: str) -> str:
    return f'<span class="dot" style="background:{colour}"></span>'


def _anchor(frame: int, clock: _Clock) -> str:
    return f'<a href="{_link(frame)}">{clock.at(frame)}</a>'


def _link(frame: int) -> str:
    return f"{PAGE_ADDRESS}/#frame={frame}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
