"""`python -m eval run`: a data set through a tracker to the official PNGs; resumable video by video.

A run folder holds manifest.json (what was run), predictions/ (the official layout), logits/<video>.csv (how sure the
tracker was that the object is there), videos/<video>.json (time and memory; it marks the video as done) and
failures.json. Predictions and manifest are the same bytes however
often the run was killed and continued; only the times differ.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from eval import manifest, pngs, trackers
from eval.datasets.base import Dataset
from eval.one_video import VideoRecord, record_path, run_video
from eval.progress import Progress
from eval.trackers import TrackerSpec
from sam2long.errors import DataError
from sam2long.runs import processes


@dataclass(frozen=True)
class RunResult:
    done: list[str]  # of this call
    skipped: list[str]  # done before
    failed: dict[str, str]  # video -> reason


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
        self.tracker = trackers.build(replace(self.spec, device=processes.own_device(self.spec.device)))

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
        if why is None:
            progress.video(name, record)
        else:
            failed[name] = why
            progress.failure(name, why)
    return failed


def write_failures(out: Path, failed: dict[str, str]) -> None:
    path = out / "failures.json"
    if failed:
        pngs.write_whole(path, (json.dumps(failed, indent=1) + "\n").encode())
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
