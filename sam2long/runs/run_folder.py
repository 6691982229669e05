"""The folder of a run: what is where in it, and who may write there."""

from __future__ import annotations

import shlex
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sam2long.errors import DataError, StateError
from sam2long.json_file import read_json
from sam2long.runs.settings import RunSettings

RUNNING, STOPPED, COMPLETE, BROKEN_OFF = "running", "stopped", "complete", "broken off"  # status in run.json


class RunFolder:
    """Names of the files of a run, and the lock that `track`, `live` and `annotate` share.

    As a context manager it holds the lock: the folder is made, and goes again when nothing was written to it.

    Raises:
        StateError: on entering, when another program writes there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.masks = path / "masks.jsonl"
        self.pngs = path / "masks"
        self.overlay = path / "overlay.mp4"
        self.report = path / "report.csv"
        self.timeline = path / "timeline.png"
        self.page = path / "report.html"
        self.detections = path / "detections.jpg"  # of a run that was prompted by words
        self.info = path / "run.json"
        self.resume = path / ".resume"
        self.progress = self.resume / "progress.json"
        self._lock = FileLock(path / ".lock")
        self._made: list[Path] = []

    def resume_command(self) -> str:
        """How `sam2long track` goes on with what was stopped here."""
        return shlex.join(["sam2long", "track", "--resume", "--out", str(self.path)])

    def annotate_command(self, video: str) -> list[str]:
        """How this run is opened in the browser."""
        return ["sam2long", "annotate", video, "--out", str(self.path)]

    def holds_a_run(self) -> bool:
        """Whether there is something to lose; a run killed before its first frame has left a bare header at most."""
        if self.info.exists():
            return True
        if not self.masks.exists():
            return False
        with open(self.masks, "rb") as file:
            file.readline()
            return bool(file.read(1))

    def require_usable(self, overwrite: bool, instead: str) -> None:
        """Before anything slow: the folder can be made, or is one, and nothing in it would be lost unasked.

        Args:
            overwrite: a run may be replaced. instead: what else to do about a run that is there, for the message.
        Raises:
            DataError: a file in the way, a run, or files that no run wrote.
        """
        for path in (self.path, *self.path.absolute().parents):
            if path.is_dir():
                break
            if path.exists():
                raise DataError(f"{path} is a file; expected a folder for the results, or a name that is still free")
        if self.holds_a_run():
            if not overwrite:
                raise DataError(f"{self.path} holds a run already; {instead}")
        elif not self.masks.exists():
            ours = (self.overlay, self.report, self.timeline, self.page, self.detections, self.pngs)
            foreign = [path.name for path in ours if path.exists()]
            if foreign:
                raise DataError(
                    f"{self.path} holds {', '.join(foreign)} that no run wrote and that a run would replace; "
                    "choose another --out"
                )

    def clear(self) -> None:
        """Remove what a run has written, and nothing else; run.json last, which says whose it is."""
        for folder in (self.pngs, self.resume):
            shutil.rmtree(folder, ignore_errors=True)
        pictures = (self.overlay, self.timeline, self.detections)
        for file in (self.masks, *pictures, self.report, self.page, self.info):
            file.unlink(missing_ok=True)

    def read_info(self) -> dict[str, Any]:
        if not self.info.exists():
            raise DataError(f"{self.path} holds no run that could be resumed; leave --resume out")
        info = read_json(self.info, "that of a run; start again with --overwrite")
        if not isinstance(info, dict) or not {"status", "settings"} <= info.keys():
            raise DataError(f"{self.info} is damaged; start again with --overwrite")
        return info

    def read_settings(self) -> RunSettings:
        """What the run in run.json was made with."""
        stored = self.read_info()["settings"]
        try:
            return RunSettings.from_dict(stored)
        except (TypeError, AttributeError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{self.info} is damaged; start again with --overwrite") from None

    def __enter__(self) -> RunFolder:
        self._made = [path for path in (self.path, *self.path.parents) if not path.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise StateError(
                f"another sam2long command (track, live or annotate) has {self.path} open; end it, or choose another "
                "--out"
            ) from None
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(OSError):  # Windows: not while it is open
            Path(self._lock.lock_file).unlink()
        self._lock.release()
        for path in self._made:
            if not path.is_dir() or any(path.iterdir()):
                break
            path.rmdir()
