"""A run of `sam2long track`: its folder, its passes over the video, stopping and going on.

Masks and PNGs are written frame by frame. The tracker's state is saved now and then, and when the run is stopped,
together with how much of masks.jsonl belongs to it; both go back to that point when the run is resumed, so what
follows is what would have followed. Report, pictures and overlay are made at the end, or when the run is stopped.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sam2long.atomic import replacing, write_json
from sam2long.errors import DataError, PromptError, Sam2LongError, VideoError, sentence
from sam2long.export import MaskReader, MaskWriter, PngWriter, write_overlay, write_report, write_timeline
from sam2long.export.fonts import note_on_fonts
from sam2long.export.page import write_page
from sam2long.json_file import read_json
from sam2long.runs.run_folder import COMPLETE, RUNNING, STOPPED, RunFolder
from sam2long.runs.settings import RunSettings
from sam2long.runs.states import StateSaver
from sam2long.runs.stopping import say_stopping, stopping_politely
from sam2long.runs.versions import peak_memory
from sam2long.video import FrameSource, open_source
from sam2long.video.names import gap

if TYPE_CHECKING:
    import pandas as pd

PROGRESS = {"state", "pass", "next", "masks_bytes", "frames_tracked", "seconds"}


@dataclass(frozen=True, slots=True)
class Span:
    """An object and the frames on which a prompt was given, as indices of tracked frames."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Pass:
    """One way through the video, and which frames of each object come from it."""

    reverse: bool
    start: int
    frames: int  # how many it goes through
    wanted: dict[int, tuple[int, int]]  # object id -> first and last frame, both included

    def wants(self, obj_id: int, frame: int) -> bool:
        low, high = self.wanted.get(obj_id, (0, -1))
        return low <= frame <= high


def plan_passes(direction: str, objects: Mapping[int, Span], num_frames: int) -> list[Pass]:
    """Forward: each object from its first prompt on. Backward: up to its last. Both: each frame of each object once."""
    first = {obj_id: span.first for obj_id, span in objects.items()}
    forward = Pass(
        False, min(first.values()), num_frames - min(first.values()),
        {obj_id: (frame, num_frames - 1) for obj_id, frame in first.items()},
    )  # fmt: skip
    if direction == "forward":
        return [forward]
    if direction == "backward":
        wanted = {obj_id: (0, span.last) for obj_id, span in objects.items()}
        start = max(span.last for span in objects.values())
        if start == 0:
            raise PromptError("nothing lies before frame 0; prompt a later frame (--frame), or track forward")
        return [Pass(True, start, start + 1, wanted)]
    before = {obj_id: (0, frame - 1) for obj_id, frame in first.items() if frame > 0}
    if not before:
        return [forward]
    start = max(first.values())
    return [forward, Pass(True, start, start + 1, before)]


class Batch(Protocol):
    """What a run of a batch asks and tells."""

    def frame_done(self) -> None: ...

    def stop_requested(self) -> bool: ...


class Stopped(Exception):
    """The user wants to stop; raised between two frames."""


@dataclass(eq=False)
class Run:
    """A run under way. Leaving it as a context manager gives its folder free.

    Args:
        folder: where it writes; held.
        settings: what was asked for.
        source: the frames. predictor, state: prompted already, or loaded.
        objects: id -> when it was prompted. labels: id -> name.
        info: what run.json says beside the progress.
        quiet: no progress bar.
        batch: of many clips that this run, a quiet one, is one of; it has the bar, and says when to stop.
    """

    folder: RunFolder
    settings: RunSettings
    source: FrameSource
    predictor: Any
    state: Any
    objects: dict[int, Span]
    labels: dict[int, str]
    info: dict[str, Any]
    quiet: bool = False
    batch: Batch | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    pass_number: int = 0
    next_frame: int | None = None  # of the pass; None: at its beginning
    frames_tracked: int = 0
    stop_requested: bool = False

    def __post_init__(self) -> None:
        self.passes = plan_passes(self.settings.direction, self.objects, len(self.source))
        self._saver = StateSaver(self.folder.resume)
        self._whole = False  # gone through to its end

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exc: object) -> None:
        self.folder.__exit__(*exc)

    # ---- from nothing, or from where a run stopped ------------------------------------------------------------

    def begin(self) -> None:
        """Start the files, and save the prompted state, so that even a run that is killed at once can go on."""
        self.masks = MaskWriter(self.folder.masks, self._header())
        self.pngs = self._png_writer()
        self._save()
        self._write_info(RUNNING)

    def go_back_to(self, progress: Mapping[str, Any]) -> None:
        """Put the files where they were when the state was saved."""
        self.pass_number, self.next_frame = progress["pass"], progress["next"]
        self.frames_tracked = progress["frames_tracked"]
        self.seconds = dict(progress["seconds"])
        self.masks = MaskWriter.resume(self.folder.masks, progress["masks_bytes"])
        self.pngs = self._png_writer()
        self._write_info(RUNNING)

    def _header(self) -> dict[str, Any]:
        source = self.source
        return {
            "video": self.settings.video, "height": source.height, "width": source.width, "fps": source.fps,
            "num_frames": source.num_frames, "start": self.settings.start, "stride": self.settings.stride,
            "objects": {str(obj_id): label for obj_id, label in self.labels.items()},
        }  # fmt: skip

    def _png_writer(self) -> PngWriter:
        names = self.source.names
        return PngWriter(
            self.folder.pngs,
            self.folder.masks,
            lambda frame: names[frame] if names else f"{self.source.source_index(frame):05d}",
        )

    # ---- tracking ---------------------------------------------------------------------------------------------

    def track(self) -> bool:
        """Go through the passes that are left. False: Ctrl-C stopped it before the end; `resume_run` goes on."""
        from tqdm import tqdm

        calling = self.state.session.calling(self._before_frame)
        total = sum(a_pass.frames for a_pass in self.passes)
        done = sum(a_pass.frames for a_pass in self.passes[: self.pass_number]) + self._done_in_pass()
        started, written = time.monotonic(), self.seconds.get("write masks", 0.0)
        signals = nullcontext() if self.batch else stopping_politely(self._request_stop)
        with self.masks, signals, calling:
            bar = tqdm(total=total, initial=done, unit="frame", desc="track", disable=self.quiet, dynamic_ncols=True)
            try:
                with bar:
                    while self.pass_number < len(self.passes):
                        self._track_pass(self.passes[self.pass_number], bar.update)
                        self._finish_pass()
                self._whole = True
                return True
            except Stopped:
                self._save()
                return False
            finally:
                writing = self.seconds.get("write masks", 0.0) - written
                self._add_seconds("track", time.monotonic() - started - writing)

    def _done_in_pass(self) -> int:
        if self.next_frame is None or self.pass_number >= len(self.passes):
            return 0
        return abs(self.next_frame - self.passes[self.pass_number].start)

    def _track_pass(self, current: Pass, advance: Callable[[int], Any]) -> None:
        for obj_id in self.objects:
            if obj_id not in current.wanted:  # nothing of it is left to find
                self.predictor.remove_object(self.state, obj_id, need_output=False)
        step = -1 if current.reverse else 1
        start = current.start if self.next_frame is None else self.next_frame
        if not 0 <= start < len(self.source):
            return  # stopped after the very last frame
        results = self.predictor.propagate_in_video(self.state, start_frame_idx=start, reverse=current.reverse)
        for frame, obj_ids, logits in results:
            masks = (logits[:, 0] > 0).cpu().numpy()  # [N, H, W]
            with self._timed("write masks"):
                self._write(
                    frame,
                    {obj_id: mask for obj_id, mask in zip(obj_ids, masks, strict=True) if current.wants(obj_id, frame)},
                )
            self.next_frame = frame + step
            advance(1)
            if self.batch:
                self.batch.frame_done()

    def _write(self, frame: int, masks: dict[int, np.ndarray]) -> None:
        if masks:
            self.masks.write(frame, self.source.source_index(frame), self.source.time(frame), masks)
            self.pngs.write(frame, masks)
            self.frames_tracked += 1

    def _finish_pass(self) -> None:
        """Keep what the tracker thought of this pass: the next one overwrites some of it."""
        with replacing(self._pass_report(self.pass_number)) as partial:
            _to_csv(self._current_report(), partial)
        self.pass_number += 1
        self.next_frame = None
        self._save()

    # ---- stopping and saving ----------------------------------------------------------------------------------

    def _before_frame(self, frame: int) -> None:
        """Between two frames everything fits together: the place to stop and to save."""
        if frame == 0 and self.passes[self.pass_number].reverse:
            return  # one frame is left, and a reverse pass cannot start there
        if self.stop_requested or (self.batch and self.batch.stop_requested()):
            raise Stopped
        if self._saver.is_due():
            self._save()

    def _request_stop(self) -> None:
        self.stop_requested = True
        say_stopping()

    def _save(self) -> None:
        size = self.masks.size
        progress = {
            "pass": self.pass_number, "next": self.next_frame, "masks_bytes": size,
            "frames_tracked": self.frames_tracked, "seconds": self.seconds,
        }  # fmt: skip
        self._saver.save(
            self.predictor, self.state, f"{self.pass_number}-{size}-{time.time_ns()}",
            lambda name: write_json(self.folder.progress, {"state": name, **progress}),
        )  # fmt: skip

    # ---- the files made at the end ----------------------------------------------------------------------------

    def finish(self) -> list[str]:
        """Write report, timeline, page and overlay for the frames done, and run.json; returns notes for the user."""
        complete = self._whole
        notes = [*self.source.notes, *([self.source.damage] if self.source.damage else [])]
        self._write_info(STOPPED if not complete else RUNNING, notes)
        with MaskReader(self.folder.masks) as masks:
            if not masks.frames:
                return [*notes, "no frame was finished, so there is nothing to show yet"]
            with self._timed("report"):
                report = self._whole_report(complete)
                write_report(
                    report, self.folder.report, labels=self.labels, source_frame=self.source.source_index,
                    time=self.source.time,
                )  # fmt: skip
                if len(report):
                    write_timeline(report, self.folder.timeline, labels=self.labels)
                    notes += self._page(report, masks)
            with self._timed("overlay"):
                notes += self._render(masks)
        notes += [note for note in (gap(self.source.names or ()), note_on_fonts(self.labels)) if note]
        self.info["summary"] = _summary(report, self.labels)
        self._write_info(COMPLETE if complete else STOPPED, notes)
        if complete:
            shutil.rmtree(self.folder.resume, ignore_errors=True)
        return notes

    def _page(self, report: pd.DataFrame, masks: MaskReader) -> list[str]:
        """report.html, or why there is none: like the overlay, it is for looking at."""
        try:
            write_page(
                report, self.folder.page, source=self.source, masks=masks, labels=self.labels,
                title=Path(self.settings.video).name, annotate=self.folder.annotate_command(self.settings.video),
            )  # fmt: skip
        except (VideoError, OSError) as error:
            return [f"without report.html: {error if isinstance(error, VideoError) else sentence(error)}"]
        return []

    def _render(self, masks: MaskReader) -> list[str]:
        """overlay.mp4, and what there is to say about it. It is for looking at: without it the run is complete too."""
        try:
            silent = self._overlay(masks)
        except (VideoError, OSError) as error:
            return [f"without overlay.mp4: {error if isinstance(error, VideoError) else sentence(error)}"]
        return [f"overlay.mp4 is silent: {silent}"] if silent else []

    def _overlay(self, masks: MaskReader) -> str | None:
        from tqdm import tqdm

        first, last = masks.frames[0], masks.frames[-1]
        source = open_source(
            self.settings.video,
            start=self.source.source_index(first),
            stop=self.source.source_index(last) + 1,
            stride=self.settings.stride,
        )
        with source, tqdm(total=source.num_frames, unit="frame", desc="overlay", disable=self.quiet) as bar:
            return write_overlay(source, masks, self.folder.overlay, self.labels, lambda done: bar.update(1))

    def _pass_report(self, number: int) -> Path:
        return self.folder.resume / f"report-{number}.csv"

    def _current_report(self) -> pd.DataFrame:
        report = self.predictor.track_report(self.state)
        current = self.passes[self.pass_number]
        wanted = [current.wants(o, f) for o, f in zip(report["obj_id"], report["frame"], strict=True)]
        return report[np.array(wanted, dtype=bool)]

    def _whole_report(self, complete: bool) -> pd.DataFrame:
        import pandas as pd

        parts = [
            pd.read_csv(self._pass_report(number), keep_default_na=False, na_values={"iou": [""], "margin": [""]})
            for number in range(self.pass_number)
        ]
        if not complete:
            parts.append(self._current_report())
        parts = [part for part in parts if len(part)] or parts[:1]
        return pd.concat(parts).sort_values(["frame", "obj_id"], kind="stable", ignore_index=True)

    def _write_info(self, status: str, notes: Sequence[str] = ()) -> None:
        write_json(
            self.folder.info,
            {
                "status": status,
                **self.info,
                "objects": {
                    str(obj_id): asdict(span) | {"label": self.labels[obj_id]} for obj_id, span in self.objects.items()
                },
                "frames_tracked": self.frames_tracked,
                "frames_per_second": _rate(self.frames_tracked, self.seconds.get("track")),
                "seconds": {stage: round(value, 3) for stage, value in self.seconds.items()},
                "peak_memory_mib": peak_memory(self.predictor.device),
                "notes": list(notes),
            },
        )

    def _add_seconds(self, stage: str, value: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + value

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self._add_seconds(stage, time.monotonic() - begun)


def _to_csv(report: pd.DataFrame, path: Path) -> None:
    table = report.copy()
    table["memory_frames"] = [" ".join(map(str, frames)) for frames in table["memory_frames"]]
    table.to_csv(path, index=False)


def _rate(frames: int, seconds: float | None) -> float | None:
    return round(frames / seconds, 2) if seconds else None


def _summary(report: pd.DataFrame, labels: Mapping[int, str]) -> dict[str, dict[str, Any]]:
    """For each object: its name, how many frames, and on how many it was visible, uncertain, absent."""
    return {
        str(obj_id): {"label": labels.get(obj_id, ""), "frames": len(rows)}
        | {status: int((rows["status"] == status).sum()) for status in ("visible", "uncertain", "absent")}
        for obj_id, rows in report.groupby("obj_id")
    }


def load_progress(folder: RunFolder) -> dict[str, Any]:
    """Where a stopped run stands."""
    try:
        progress = read_json(folder.progress, "where a run stands")
    except DataError:
        progress = None
    if not isinstance(progress, dict) or not progress.keys() >= PROGRESS or not _fits_together(progress):
        raise DataError(f"{folder.path} was stopped before anything could be saved; start again with --overwrite")
    if not (folder.resume / progress["state"]).is_file():
        raise Sam2LongError(f"{folder.resume} lacks the saved state; start again with --overwrite")
    return progress


def _fits_together(progress: Mapping[str, Any]) -> bool:
    counts = [progress[name] for name in ("pass", "masks_bytes", "frames_tracked")]
    return (
        all(type(count) is int and count >= 0 for count in counts)
        and (progress["next"] is None or type(progress["next"]) is int)
        and isinstance(progress["state"], str)
        and isinstance(progress["seconds"], dict)
    )
