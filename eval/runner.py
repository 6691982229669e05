"""`python -m eval run`: a data set through a tracker to the official PNGs; resumable video by video.

A run folder holds manifest.json (what was run), predictions/ (the official layout), videos/<video>.json (time and
memory; its presence marks the video as done) and failures.json. Predictions and manifest are the same bytes however
often the run was killed and continued; only the times differ.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

from eval import manifest, pngs, trackers
from eval.datasets.base import Dataset
from eval.outputs import VideoWriter
from eval.progress import Progress
from eval.trackers import Tracker, TrackerSpec
from sam2long.errors import DataError


@dataclass(frozen=True)
class VideoRecord:
    """What one finished video took."""

    video: str
    frames: int
    objects: int
    seconds: float  # tracking and writing, without loading the model
    peak_memory_bytes: int


@dataclass(frozen=True)
class RunResult:
    done: list[str]  # of this call
    skipped: list[str]  # done before
    failed: dict[str, str]  # video -> reason


def predictions_folder(out: Path) -> Path:
    return out / "predictions"


def record_path(out: Path, video: str) -> Path:
    return out / "videos" / f"{video}.json"


def run_video(dataset: Dataset, tracker: Tracker, name: str, out: Path, on_frame=lambda: None) -> VideoRecord:
    """Track one video and write its masks; nothing but whole files and folders, whatever interrupts it."""
    started = time.perf_counter()
    video = dataset.video(name)
    prompts = dataset.prompts(video)
    if not prompts:
        raise DataError(f"video {name} of {dataset.name} has no object to track; {dataset._get()}")
    tracker.reset_peak_memory()
    writer = VideoWriter(predictions_folder(out), video, prompts, dataset.per_object)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="eval-frames-") as work,
            dataset.frames_folder(video, Path(work)) as folder,
        ):
            expected = min(p.frame for p in prompts)
            for _ in range(expected):
                on_frame()
            for frame, logits in tracker.track(folder, video, prompts):
                if frame != expected:
                    raise RuntimeError(f"the tracker gave frame {frame} of video {name}; expected {expected}")
                writer.write(frame, logits)
                expected += 1
                on_frame()
            if expected != len(video.frame_names):
                raise RuntimeError(
                    f"the tracker stopped before frame {expected} of {len(video.frame_names)} of video {name}"
                )
        writer.close()
    except BaseException:
        writer.abandon()
        raise
    record = VideoRecord(
        video=name,
        frames=len(video.frame_names),
        objects=len(prompts),
        seconds=round(time.perf_counter() - started, 3),
        peak_memory_bytes=tracker.peak_memory(),
    )
    pngs.atomic_write(record_path(out, name), (json.dumps(asdict(record), indent=1) + "\n").encode())
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
        engine: "local" (this process), or "ray" (one worker per GPU, or `workers` on the CPU; `address` of a cluster).
    Raises:
        DataError: the data set has faults, or `out` holds another run.
    """
    require_sound(dataset)
    names = dataset.names()
    manifest.claim(out, manifest.describe(dataset, spec, names))
    todo = [n for n in names if not record_path(out, n).exists()]
    skipped = [n for n in names if n not in todo]
    if keep_gt and hasattr(dataset, "export_gt") and not (out / "gt").exists():
        _export_gt(dataset, out / "gt")
    failed: dict[str, str] = {}
    if todo:
        total = sum(len(dataset.video(n).frame_names) for n in todo)
        with Progress(total, len(todo), label=f"{dataset.name} {spec.method}") as progress:
            if engine == "ray":
                from eval import ray_engine

                failed = ray_engine.run_videos(dataset, spec, out, todo, progress, address=address, workers=workers)
            else:
                failed = _run_here(dataset, spec, out, todo, progress)
    _write_failures(out, failed)
    return RunResult([n for n in todo if n not in failed], skipped, failed)


def _run_here(dataset: Dataset, spec: TrackerSpec, out: Path, todo: list[str], progress: Progress) -> dict[str, str]:
    tracker, failed = trackers.build(spec), {}
    for name in todo:
        try:
            record = run_video(dataset, tracker, name, out, progress.frame)
            progress.video(name, record)
        except Exception as error:  # whatever is wrong with one video must not cost the others
            failed[name] = reason(error)
            progress.failure(name, failed[name])
    return failed


def reason(error: BaseException) -> str:
    if isinstance(error, DataError):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" at {Path(last[0].filename).name}:{last[0].lineno}" if last else ""
    return f"{type(error).__name__}: {error}{where}"


def _write_failures(out: Path, failed: dict[str, str]) -> None:
    path = out / "failures.json"
    if failed:
        pngs.atomic_write(path, (json.dumps(failed, indent=1) + "\n").encode())
        for name, why in failed.items():
            print(f"failed: {name}: {why}", file=sys.stderr)
    else:
        path.unlink(missing_ok=True)


def _export_gt(dataset: Dataset, folder: Path) -> None:
    """Ground truth of generated or raw data sets, in the layout that the scorer reads."""
    import shutil

    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    dataset.export_gt(part)
    part.rename(folder)


def gt_of(dataset: Dataset, out: Path) -> Path | None:
    return out / "gt" if (out / "gt").is_dir() else dataset.gt()
