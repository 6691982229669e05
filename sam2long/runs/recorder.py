"""What `sam2long live` leaves behind: masks.jsonl and overlay.mp4, frame by frame, and run.json at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from sam2long.atomic import write_json
from sam2long.errors import VideoError
from sam2long.export import MaskWriter
from sam2long.export.overlay import FALLBACK_FPS
from sam2long.runs.run_folder import BROKEN_OFF, COMPLETE, RUNNING, RunFolder
from sam2long.video import VideoWriter
from sam2long.video.source import Frame, FrameSource

LEAST_STEP = 0.001  # seconds between two frames of the overlay, should a source's clock stand still


class Recorder:
    """Writes a live run; everything is finished by `close`, whatever ended the run.

    Args:
        folder: held by the caller; an earlier run in it is replaced.
        source: for the size and the rate.
        labels: object id -> name.
        info: what run.json says beside the numbers.
    """

    def __init__(
        self, folder: RunFolder, source: FrameSource, labels: Mapping[int, str], info: Mapping[str, Any]
    ) -> None:
        self._folder = folder
        self._info = dict(info)
        folder.clear()
        header = {
            "video": info["settings"]["video"], "height": source.height, "width": source.width, "fps": source.fps,
            "start": 0, "stride": 1, "objects": {str(obj_id): label for obj_id, label in labels.items()},
        }  # fmt: skip
        self._overlay: VideoWriter | None = None
        self._notes: list[str] = []
        try:
            self._masks = MaskWriter(folder.masks, header)
            write_json(folder.info, {"status": RUNNING, **self._info})
        except BaseException:  # a full disk
            folder.clear()
            raise
        with self._or_without_overlay():
            self._overlay = VideoWriter(
                folder.overlay, source.fps or FALLBACK_FPS, source.width, source.height, looks=source.looks
            )
        self._last: float | None = None
        self._first: float | None = None

    def write(self, frame: Frame, masks: Mapping[int, np.ndarray], picture: np.ndarray, moment: float) -> None:
        """Add a frame.

        Args:
            frame: from the source. masks: object id -> [H, W] bool. picture: [H, W, 3], for the overlay.
            moment: seconds, on any clock that rises; used when the source has none.
        """
        self._masks.write(frame.index, frame.index, frame.time, masks)
        at = moment if frame.time is None else frame.time
        self._first = at if self._first is None else self._first
        shown = at - self._first
        if self._last is not None:
            shown = max(shown, self._last + LEAST_STEP)
        if self._overlay is not None:
            with self._or_without_overlay():
                self._overlay.write(picture, shown)
        self._last = shown

    def close(self, numbers: Mapping[str, Any], notes: Sequence[str], broken_off: bool) -> None:
        """Finish the files.

        Args:
            numbers: how it went, for run.json. notes: what else it is to say.
            broken_off: whether something else than the video's end or the user has ended it.
        """
        self._masks.close()
        if self._overlay is not None:
            with self._or_without_overlay():
                if self._overlay.frames_written:
                    self._overlay.close()
                else:
                    self._overlay.abort()
        status = BROKEN_OFF if broken_off else COMPLETE
        write_json(self._folder.info, {"status": status, **self._info, **numbers, "notes": [*notes, *self._notes]})

    def abort(self) -> None:
        """Nothing was tracked: leave nothing."""
        self._masks.close()
        if self._overlay is not None:
            self._overlay.abort()
        self._folder.clear()

    @contextmanager
    def _or_without_overlay(self) -> Iterator[None]:
        """The overlay is for looking at: when it cannot be written, the masks are recorded all the same."""
        try:
            yield
        except VideoError as error:
            if self._overlay is not None:
                self._overlay.abort()
                self._overlay = None
            self._notes.append(f"without overlay.mp4: {error}")
            print(f"note: {self._notes[-1]}", file=sys.stderr)
