"""`python -m eval run`: a data set through a tracker to the official PNGs; resumable video by video.

A run folder holds manifest.json (what was run), predictions/ (the official layout), logits/<video>.csv (how sure the
tracker was that the object is there), videos/<video>.json (time and memory; it marks the video as done) and
failures.json. Predictions and manifest are the same bytes however
often the run was killed and continued; only the times differ.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eval import manifest, pngs, presence, processes, trackers
from eval.datasets.base import Dataset, Prompt, Video
from eval.outputs import VideoWriter
from eval.progress import Progress
from eval.trackers import Tracker, TrackerSpec
from sam2long.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class VideoRecord:
    """What one finished video took."""

    video: str
    frames: int
    objects: int
    seconds: float  # tracking and writing, without loading the model
    peak_memory_bytes: int
    settings: int = 1  # how many settings went over the video together and share the seconds (see eval/sweep.py)
    tree: dict[str, int] | None = None  # trackers.tree_counts, where the tracker has a tree


@dataclass(frozen=True)
class RunResult:
    done: list[str]  # of this call
    skipped: list[str]  # done before
    failed: dict[str, str]  # video -> reason


def predictions_folder(out: Path) -> Path:
    return out / "predictions"


def record_path(out: Path, video: str) -> Path:
    return out / "videos" / f"{video}.json"


@contextmanager
def opened(dataset: Dataset, name: str) -> Iterator[tuple[Video, list[Prompt], Path]]:
    """A video, its prompts, and a folder of its frames for as long as it takes."""
    video = dataset.video(name)
    prompts = dataset.prompts(video)
    if not prompts:
        raise DataError(f"video {name} of {dataset.name} has no object to track; {dataset._get()}")
    with (
        tempfile.TemporaryDirectory(prefix="eval-frames-") as work,
        dataset.frames_folder(video, Path(work)) as folder,
    ):
        yield video, prompts, folder


def write_logits(out: Path, video: Video, prompts: list[Prompt], table: pd.DataFrame) -> None:
    """Keep a tracker's object logits (obj_id, frame, object_logit) under the names that the scores use."""
    labels = {p.obj: p.label for p in prompts}
    named = table.assign(object=table["obj_id"].map(labels), frame=[video.frame_names[t] for t in table["frame"]])
    content = named[["object", "frame", "object_logit"]].to_csv(index=False, float_format="%.4f")
    pngs.atomic_write(presence.logits_path(out, video.name), content.encode())


def write_record(out: Path, record: VideoRecord) -> None:
    """The mark of a finished video; its masks are in place."""
    pngs.atomic_write(record_path(out, record.video), (json.dumps(asdict(record), indent=1) + "\n").encode())


class InOrder:
    """A tracker gives every frame from the first prompt to the last, once each; anything else is an error of its."""

    def __init__(self, video: Video, prompts: list[Prompt]):
        self.video = video
        self.expected = min(p.frame for p in prompts)

    def take(self, frame: int) -> None:
        if frame != self.expected:
            raise RuntimeError(f"the tracker gave frame {frame} of video {self.video.name}; expected {self.expected}")
        self.expected += 1

    def finish(self) -> None:
        if self.expected != len(self.video.frame_names):
            raise RuntimeError(
                f"the tracker stopped before frame {self.expected} of {len(self.video.frame_names)} "
                f"of video {self.video.name}"
            )


def run_video(
    dataset: Dataset, tracker: Tracker, name: str, out: Path, on_frame: Callable[[], None] = lambda: None
) -> VideoRecord:
    """Track one video and write its masks; nothing but whole files and folders, whatever interrupts it."""
    started = time.perf_counter()
    with opened(dataset, name) as (video, prompts, folder):
        tracker.reset_peak_memory()
        writer, order = (
            VideoWriter(predictions_folder(out), video, prompts, dataset.per_object),
            InOrder(video, prompts),
        )
        try:
            for _ in range(order.expected):
                on_frame()
            for frame, logits in tracker.track(folder, video, prompts):
                order.take(frame)
                writer.write(frame, logits)
                on_frame()
            order.finish()
            writer.close()
        except BaseException:
            writer.abandon()
            raise
    if hasattr(tracker, "object_logits"):
        write_logits(out, video, prompts, tracker.object_logits())
    record = VideoRecord(
        video=name,
        frames=len(video.frame_names),
        objects=len(prompts),
        seconds=round(time.perf_counter() - started, 3),
        peak_memory_bytes=tracker.peak_memory(),
        tree=tracker.tree_counts() if hasattr(tracker, "tree_counts") else None,
    )
    write_record(out, record)
    return record


def require_sound(dataset: Dataset) -> None:
    """Raise with every fault of the layout, before any model is loaded."""
    if faults := dataset.check():
        more = f"\n... and {len(faults) - 50} more" if len(faults) > 50 else ""
        raise DataError(f"{dataset.name} is not complete ({len(faults)} faults):\n" + "\n".join(faults[:50]) + more)


def run(
    dataset: Dataset, spec: TrackerSpec, out: Path, *, engine: str = "local", address: str | None = None,
    workers: int | None = None, keep_gt: bool = True,
) -> RunResult:  # fmt: skip
    """Run what is not yet done. One video that fails is reported and the rest goes on.

    Args:
        engine: "local" (this process, or `workers` processes of this machine), or "ray" (one worker per GPU, or
            `workers` on the CPU; `address` of a cluster).
    Raises:
        DataError: the data set has faults, or `out` holds another run.
    """
    require_sound(dataset)
    names = dataset.names()
    manifest.claim(out, manifest.describe(dataset, spec, names))
    todo = [n for n in names if not record_path(out, n).exists()]
    skipped = [n for n in names if n not in todo]
    if keep_gt and hasattr(dataset, "export_gt") and not (out / "gt").exists():
        export_gt(dataset, out / "gt")
    failed: dict[str, str] = {}
    if todo:
        total = sum(len(dataset.video(n).frame_names) for n in todo)
        with Progress(total, len(todo), label=f"{dataset.name} {spec.method}") as progress:
            if engine == "ray":
                from eval import ray_engine

                failed = ray_engine.run_videos(dataset, spec, out, todo, progress, address=address, workers=workers)
            else:
                failed = _run_here(dataset, spec, out, todo, progress, workers or 1)
    write_failures(out, failed)
    return RunResult([n for n in todo if n not in failed], skipped, failed)


@dataclass
class _Job:
    """One setting on one video after the other."""

    dataset: Dataset
    spec: TrackerSpec
    out: Path

    def start(self) -> None:
        self.tracker = trackers.build(self.spec)

    def run(self, video: str, on_frame: Callable[[], None]) -> VideoRecord:
        return run_video(self.dataset, self.tracker, video, self.out, on_frame)


def longest_first(dataset: Dataset, names: list[str]) -> list[str]:
    """Of the order in which several workers end at about the same time."""
    return sorted(names, key=lambda name: -len(dataset.video(name).frame_names))


def _run_here(
    dataset: Dataset, spec: TrackerSpec, out: Path, todo: list[str], progress: Progress, workers: int
) -> dict[str, str]:
    failed = {}
    ordered = longest_first(dataset, todo) if workers > 1 else todo
    for name, record, why in processes.each(_Job(dataset, spec, out), ordered, workers, progress.frame):
        if workers > 1:
            progress.frame(len(dataset.video(name).frame_names))
        if why is None:
            progress.video(name, record)
        else:
            failed[name] = why
            progress.failure(name, why)
    return failed


def write_failures(out: Path, failed: dict[str, str]) -> None:
    path = out / "failures.json"
    if failed:
        pngs.atomic_write(path, (json.dumps(failed, indent=1) + "\n").encode())
        for name, why in failed.items():
            print(f"failed: {name}: {why}", file=sys.stderr)
    else:
        path.unlink(missing_ok=True)


def export_gt(dataset: Dataset, folder: Path) -> None:
    """Ground truth of generated or raw data sets, in the layout that the scorer reads."""
    import shutil

    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    dataset.export_gt(part)
    part.rename(folder)


def gt_of(dataset: Dataset, out: Path) -> Path | None:
    return out / "gt" if (out / "gt").is_dir() else dataset.gt()
