"""One video of a data set through a tracker: its masks, object logits and record in a run's folder, or nothing."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eval import pngs, presence
from eval.datasets.base import Dataset, Prompt, Video
from eval.outputs import VideoWriter
from eval.trackers import Tracker
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
    pngs.write_whole(presence.logits_path(out, video.name), content.encode())


def write_record(out: Path, record: VideoRecord) -> None:
    """The mark of a finished video; its masks are in place."""
    pngs.write_whole(record_path(out, record.video), (json.dumps(asdict(record), indent=1) + "\n").encode())


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
