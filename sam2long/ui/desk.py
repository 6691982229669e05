"""A project on the desk: annotator, thread and events together, and what the page is shown of them."""

from __future__ import annotations

import base64
import math
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sam2long.doubt import looks
from sam2long.errors import DataError, Sam2LongError, short
from sam2long.known import Row
from sam2long.ui.annotator import Annotator
from sam2long.ui.jobs import Hub, Worker
from sam2long.ui.pictures import JpegFrames
from sam2long.ui.project import Project
from sam2long.ui.tracking import Cancelled, Progress

PROGRESS_SECONDS = 0.1  # pages hear of progress this often
NOTHING, PRESENT_CELL, ABSENT_CELL = ".", "p", "a"
STALE_BIT, LOOK_BIT = 1, 2
MOST_LOOKS, MARKED_LOOKS = 50, 5  # that can be asked for; of each object in the timeline


class Desk:
    """Everything behind one page.

    Args:
        project, predictor: opened by the caller.
        roots: folders that exports may be written below.
        title: shown on the page.
    """

    def __init__(self, project: Project, predictor: Any, roots: Collection[Path], title: str) -> None:
        self.project, self.title = project, title
        self.roots = [project.folder.path, *roots]
        self.hub, self.worker = Hub(), Worker()
        self.pictures = JpegFrames(project.source)
        self.annotator = Annotator(project, predictor, self._changed, self.progressed)
        self._exports: dict[str, Path] = {}  # name -> folder, of this session
        self.reading = ThreadPoolExecutor(1, "sam2long-reading")  # uploads are read one after the other
        self._touched: set[int] = set()
        self._busy: dict[str, Any] | None = None
        self._told_at = 0.0

    def close(self) -> None:
        """Stop what is under way, and save."""
        self.reading.shutdown(wait=False, cancel_futures=True)
        self.worker.close(self.annotator.close)

    # ---- doing --------------------------------------------------------------------------------------------------

    def acted(self, page: str, seen: int | None, action: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Carry out a short action in the model's thread, and tell the pages what it changed.

        Args:
            page, seen: as for `Annotator.asked_by`.
        """
        self._touched.clear()
        self.annotator.asked_by(page, seen)
        try:
            return action(*args, **kwargs)
        finally:
            self._tell(self._touched)

    def begin(self, what: str, work: Callable[[Callable[[], bool]], dict[str, Any]]) -> None:
        """Start something long; the pages hear of its progress, and of its end."""

        def taken() -> None:
            self._busy = {"what": what, "direction": "", "frame": None, "done": 0, "total": 0}

        def begun(cancelled: Callable[[], bool]) -> dict[str, Any]:
            self._tell()
            return work(cancelled)

        self.worker.submit_long(what, begun, taken, lambda future: self._ended(what, future))

    def save(self) -> None:
        """The tracker's state, and the files that other tools read."""
        self.annotator.tracker.save()
        self.project.write_info()

    def exported(self, folder: Path) -> str:
        """The name under which an export can be downloaded: its own, whatever other exports are called."""
        for name, known in self._exports.items():
            if known == folder:
                return name
        name, number = folder.name, 1
        while name in self._exports:
            number += 1
            name = f"{folder.name}-{number}"
        self._exports[name] = folder
        return name

    def export_folder(self, name: str) -> Path:
        folder = self._exports.get(name)
        if folder is None or not folder.is_dir():
            raise DataError(f"there is no export {short(name)} of this session; export it first")
        return folder

    def _ended(self, what: str, future: Future) -> None:
        event: dict[str, Any] = {"type": "done", "what": what, "error": None}
        try:
            event |= future.result()
        except (Cancelled, CancelledError):
            event["text"] = "Cancelled"
        except Sam2LongError as error:
            event["error"] = " ".join(str(error).split())
        except Exception as error:  # whatever happens in the thread, the page must not wait for ever
            traceback.print_exception(error)
            event["error"] = f"{what} broke off ({type(error).__name__}: {error}); what was done is kept"
        self._tell(self.project.objects)
        self.hub.publish(event)

    def progressed(self, progress: Progress) -> None:
        if self._busy is not None and time.monotonic() - self._told_at > PROGRESS_SECONDS:
            self._told_at = time.monotonic()
            self._busy |= {
                "direction": progress.direction, "frame": progress.frame, "done": progress.done,
                "total": progress.total,
            }  # fmt: skip
            self.hub.publish({"type": "progress", "busy": self._busy})

    def _changed(self, frame: int, obj_ids: Sequence[int]) -> None:
        self._touched.update(obj_ids)
        if self.worker.busy and frame >= 0:
            rows = {obj_id: self.project.store.row(frame, obj_id) for obj_id in obj_ids}
            cells = {str(obj_id): self._cell(row, False) for obj_id, row in rows.items() if row is not None}
            self.hub.publish({"type": "masks", "frame": frame, "cells": cells})

    def _tell(self, obj_ids: Collection[int] = ()) -> None:
        self.hub.publish({"type": "state", "state": self.state(), "objects": sorted(obj_ids)})

    # ---- showing ------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything but masks and timelines."""
        project, source = self.project, self.project.source
        with project.lock:
            objects = [
                {
                    "id": entry.id, "name": entry.name, "label": entry.label, "colour": entry.colour,
                    "prompts": sorted(project.prompts[entry.id]),
                }
                for entry in project.objects.values()
            ]  # fmt: skip
            revision = project.revision
        return {
            "title": self.title,
            "project": str(project.folder.path),
            "model": project.settings.model,
            "device": str(self.annotator.tracker.predictor.device),
            "video": {
                "width": source.width, "height": source.height, "frames": source.num_frames, "fps": source.fps,
                "start": project.settings.start, "stride": project.settings.stride, "damage": source.damage,
            },
            "objects": objects,
            "undo": self.annotator.undo_steps,
            "revision": revision,
            "busy": self._busy if self.worker.busy else None,
        }  # fmt: skip

    def timeline(self, obj_ids: Sequence[int] | None = None) -> dict[str, Any]:
        """For each object one character a frame (p, a: the mask shows it, or is empty; "." no mask), and flags
        (1 stale, 2 one of the first frames to look at) as base64 of a byte a frame."""
        count = len(self.project.source)
        with self.project.lock:
            chosen = [o for o in self.project.objects if obj_ids is None or o in obj_ids]
            stale = {obj_id: set(self.project.stale[obj_id]) for obj_id in chosen}
        found = {}
        for obj_id in chosen:
            status, flags = [NOTHING] * count, bytearray(count)
            rows = self.project.store.rows(obj_id)
            for frame, row in rows.items():
                status[frame], flags[frame] = self._cell(row, frame in stale[obj_id])
            for look in looks(rows, MARKED_LOOKS):
                flags[look.frame] |= LOOK_BIT
            found[str(obj_id)] = {
                "status": "".join(status),
                "flags": base64.b64encode(flags).decode(),
            }
        return {"frames": count, "objects": found}

    def on_frame(self, frame: int) -> dict[str, Any]:
        """Masks, prompts and doubts of a frame."""
        project = self.project
        masks = project.store.masks(frame)
        found = {}
        with project.lock:
            said = {o: (project.prompt(o, frame), frame in project.stale[o]) for o in project.objects}
        for obj_id, (prompt, stale) in said.items():
            row = project.store.row(frame, obj_id)
            if row is None and prompt is None:
                continue
            found[str(obj_id)] = {
                "mask": masks.get(obj_id),
                "prompt": prompt and {
                    "points": prompt.points, "labels": prompt.labels, "box": prompt.box,
                    "mask": prompt.mask is not None,
                },
                "row": row and _row(row, stale),
            }  # fmt: skip
        return {"frame": frame, "objects": found}

    def looks(self, limit: int = MOST_LOOKS) -> list[dict[str, Any]]:
        """The frames to look at, of all objects; the one in the longest stretch that nobody has looked at first."""
        found = []
        for obj_id in list(self.project.objects):
            rows = self.project.store.rows(obj_id)
            found += [
                {"object": obj_id, **look._asdict(), **_row(rows[look.frame], False)} for look in looks(rows, limit)
            ]
        return sorted(found, key=lambda look: (-look["stretch"], look["frame"], look["object"]))[:limit]

    @staticmethod
    def _cell(row: Row, stale: bool) -> tuple[str, int]:
        """A frame of the timeline by itself; whether it is one to look at depends on the others."""
        shown = ABSENT_CELL if row.empty else PRESENT_CELL
        return shown, STALE_BIT * stale


def _row(row: Row, stale: bool) -> dict[str, Any]:
    return {
        "status": row.status,
        "prompted": row.prompted,
        "iou": round(row.iou, 3) if math.isfinite(row.iou) else None,
        "pathways": row.pathways,
        "margin": round(row.margin, 3) if math.isfinite(row.margin) else None,
        "reasons": row.reasons,
        "stale": stale,
    }


def formats() -> list[dict[str, Any]]:
    """What a project can be exported to."""
    from sam2long.export.convert import FORMATS

    return [
        {
            "name": name, "description": entry.description, "shapes": list(entry.shapes),
            "images": entry.takes_images, "needs_video": entry.needs_video, "feather": entry.takes_feather,
            "band": entry.band, "is_video": entry.is_video,
        }
        for name, entry in FORMATS.items()
    ]  # fmt: skip
