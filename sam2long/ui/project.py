"""A project: the folder that `sam2long annotate` works in, saved at every step.

    prompts.json    objects and prompts; `sam2long track --prompts` reads it too
    masks.jsonl     every mask, see store.py
    run.json        settings, versions, objects: with masks.jsonl this is a run, as `sam2long track` leaves one
    report.csv      what the tracker thought
    view.json       where the user was
    .resume/        the tracker's state, so that tracking goes on as if nothing had happened

prompts.json names the state that goes with it. When that is missing or older, the prompts are given again.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from sam2long.atomic import write_json
from sam2long.errors import DataError, StateError, VideoError
from sam2long.export.masks import MaskReader, decode_mask
from sam2long.export.page import write_page
from sam2long.export.report import write_report
from sam2long.naming import free_id
from sam2long.runs.prompting import ObjectPrompt, from_file
from sam2long.runs.run_folder import COMPLETE, RUNNING, RunFolder
from sam2long.runs.settings import RunSettings
from sam2long.runs.versions import versions
from sam2long.tracking.report import COLUMNS
from sam2long.ui import takeover
from sam2long.ui.prompt import AnnotatedObject, Prompt, default_colour
from sam2long.ui.store import MaskStore
from sam2long.video import FrameSource, open_source

FORMAT = "sam2long-project"
KEPT_IN_MEMORY = ("objects", "prompts", "stale", "_most_id", "revision", "changed_at", "saved_state")
VERSION = 1


class Project:
    """Objects, prompts and masks of one video. Written by one thread, read by any.

    Args:
        path: the folder; made when missing. A run of `sam2long track` becomes a project.
        source: the video.
        settings: of model and tracker.
    Raises:
        StateError: another program has the project open.
        DataError: damaged, or of another video.
    """

    def __init__(self, path: Path, source: FrameSource, settings: RunSettings) -> None:
        self.folder = RunFolder(path)
        self.prompts_file = path / "prompts.json"
        self.view_file = path / "view.json"
        self.source, self.settings = source, settings
        self.lock = threading.RLock()
        self.objects: dict[int, AnnotatedObject] = {}
        self.prompts: dict[int, dict[int, Prompt]] = {}  # object -> frame -> prompt
        self.stale: dict[int, set[int]] = {}  # object -> frames tracked before something they depend on was changed
        self._most_id = 0  # the highest one that there ever was
        self.revision = 0  # counts the changes of prompts
        self.changed_at: dict[tuple[int, int], tuple[int, str]] = {}  # (object, frame) -> revision, page; since opened
        self.saved_state: tuple[str, int] | None = None  # file in .resume/, and the revision that it belongs to
        with ExitStack() as undo:
            undo.enter_context(self.folder)
            self._load()
            self._closing = undo.pop_all()

    # ---- opening and closing ------------------------------------------------------------------------------------

    def _load(self) -> None:
        if self.prompts_file.exists():
            self._load_prompts()
        elif self.folder.info.exists():
            info = self.folder.read_info()
            for found in takeover.objects(info):
                self.add_object(found)
            self.prompts |= takeover.prompts(info, self.index_of)
            self.revision = 1
        self.store = MaskStore(self.folder.masks, self._header(), self._place)
        if (frames := self.store.frames()) and max(frames) >= len(self.source):
            raise DataError(
                f"{self.folder.path} has masks up to frame {max(frames)}, but this video has {self.source.num_frames} "
                "frames; open the video that it was made from, or choose another --out"
            )
        for obj_id in self.store.objects():
            if obj_id not in self.objects:
                self.add_object(AnnotatedObject(id=obj_id))
        if not self.prompts_file.exists():
            if rows := takeover.report(self.folder.report):
                self.store.amend(rows)
            self.prompts = takeover.with_masks(self.prompts, self.store)
        self.store.tidy()
        self.save()
        self.write_info()

    def _load_prompts(self) -> None:
        try:
            content = json.loads(self.prompts_file.read_text(encoding="utf-8"))
            if content.get("format") != FORMAT or content.get("version") != VERSION:
                raise DataError(
                    f"{self.prompts_file} is not of a project of version {VERSION}; choose another --out, "
                    "or move that file away"
                )
            self._check_video(content["video"])
            for entry in content["objects"]:
                self.add_object(AnnotatedObject(**entry))
            self._most_id = max(self._most_id, content["next_id"] - 1)
            self.revision = content["revision"]
            self.saved_state = content["state"] and (content["state"]["file"], content["state"]["revision"])
            self.stale = {int(key): set(_spread(spans)) for key, spans in content["stale"].items()}
            if content["prompts"]:
                for prompt in from_file(self.prompts_file):
                    self._add_prompt(prompt)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"{self.prompts_file} is damaged ({type(error).__name__}: {error}); restore it, or choose another --out"
            ) from None

    def _check_video(self, video: Mapping[str, Any]) -> None:
        here = self._video()
        told_apart = {
            "num_frames": "frames", "height": "pixels high", "width": "pixels wide", "start": "as its first frame",
            "stride": "as its stride",
        }  # fmt: skip
        for key, shown in told_apart.items():
            if video.get(key) != here[key]:
                raise DataError(
                    f"{self.folder.path} is a project of a video with {video.get(key)} {shown}; this one has "
                    f"{here[key]}. Open that video ({video.get('path')}), or choose another --out"
                )

    def close(self) -> None:
        self.store.close()
        self._closing.close()

    # ---- objects and prompts ------------------------------------------------------------------------------------

    def add_object(self, entry: AnnotatedObject) -> AnnotatedObject:
        entry = dataclasses.replace(entry, colour=entry.colour or default_colour(entry.id))
        with self.lock:
            self.objects[entry.id] = entry
            self._most_id = max(self._most_id, entry.id)
            self.prompts.setdefault(entry.id, {})
            self.stale.setdefault(entry.id, set())
        return entry

    @property
    def next_id(self) -> int:
        """A number that no object has; if there are any left, one that none ever had."""
        return free_id([*self.objects, self._most_id])

    def check_object(self, obj_id: int) -> AnnotatedObject:
        if obj_id not in self.objects:
            known = ", ".join(map(str, self.objects)) or "none yet"
            raise StateError(f"there is no object {obj_id}; the objects are: {known}")
        return self.objects[obj_id]

    def remove_object(self, obj_id: int) -> None:
        with self.lock:
            for table in (self.objects, self.prompts, self.stale):
                table.pop(obj_id, None)
            self.changed_at = {at: change for at, change in self.changed_at.items() if at[0] != obj_id}

    def prompt(self, obj_id: int, frame: int) -> Prompt | None:
        with self.lock:
            return self.prompts.get(obj_id, {}).get(frame)

    def set_prompt(self, obj_id: int, frame: int, prompt: Prompt | None, page: str = "") -> None:
        """page: whose change it is."""
        with self.lock:
            if prompt is None:
                self.prompts[obj_id].pop(frame, None)
            else:
                self.prompts[obj_id][frame] = prompt
            self.revision += 1
            self.changed_at[obj_id, frame] = self.revision, page

    def mark_stale(self, obj_id: int, frame: int) -> None:
        """What was tracked from `frame` on, in either direction, no longer follows from the prompts; beyond the next
        prompt it follows from that one."""
        rows = self.store.rows(obj_id)
        with self.lock:
            prompts = self.prompts[obj_id]
            first = max((at for at in prompts if at < frame), default=-1)
            last = min((at for at in prompts if at > frame), default=len(self.source))
            self.stale[obj_id].discard(frame)
            self.stale[obj_id].update(
                at for at, row in rows.items() if (first < at < frame if row.backward else frame < at < last)
            )

    def _add_prompt(self, prompt: ObjectPrompt) -> None:
        if index := self.index_of(prompt.frame):
            if prompt.obj_id not in self.objects:
                self.add_object(AnnotatedObject(id=prompt.obj_id, label=prompt.label))
            self.prompts[prompt.obj_id][index[0]] = Prompt.from_object_prompt(prompt)

    def index_of(self, source_frame: int) -> tuple[int] | None:
        """The index of a frame of the video, in a tuple; None when it is not among those looked at."""
        index, rest = divmod(source_frame - self.settings.start, self.settings.stride)
        return (index,) if rest == 0 and 0 <= index < len(self.source) else None

    # ---- all or nothing -----------------------------------------------------------------------------------------

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Changes of objects, prompts and masks, on disk when this ends; where anything fails, none of them is made,
        in memory or on disk."""
        with self.lock:
            before = {name: copy.copy(getattr(self, name)) for name in KEPT_IN_MEMORY}
            for name in ("prompts", "stale"):
                before[name] = {obj_id: copy.copy(entry) for obj_id, entry in before[name].items()}
        mark = self.store.mark()
        try:
            yield
            self.save()
        except BaseException:
            with self.lock:
                for name, value in before.items():
                    setattr(self, name, value)
            self.store.back_to(mark)
            raise
        with suppress(OSError):  # masks that were dropped stay in the file until there is room to write it anew
            self.store.tidy()

    # ---- saving -------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Objects and prompts, to disk, whole or not at all."""
        with self.lock:
            labels = {obj_id: entry.title for obj_id, entry in self.objects.items()}
            content = {
                "format": FORMAT,
                "version": VERSION,
                "video": self._video(),
                "objects": [dataclasses.asdict(entry) for entry in self.objects.values()],
                "next_id": self.next_id,
                "revision": self.revision,
                "state": self.saved_state and {"file": self.saved_state[0], "revision": self.saved_state[1]},
                "stale": {str(obj_id): _spans(frames) for obj_id, frames in self.stale.items()},
                "prompts": [
                    {"frame": self.source.source_index(frame), "object": obj_id, "label": labels[obj_id]}
                    | prompt.to_json()
                    for obj_id, prompts in self.prompts.items()
                    for frame, prompt in sorted(prompts.items())
                ],
            }
        self.store.set_header(self._header())
        write_json(self.prompts_file, content)

    def write_info(self, running: bool = False) -> None:
        """run.json, as `sam2long track` writes it, so that other tools take the project for a run."""
        with self.lock:
            objects, prompts = dict(self.objects), {obj_id: dict(said) for obj_id, said in self.prompts.items()}
        first_last = {}
        for obj_id, entry in objects.items():
            frames = sorted(prompts[obj_id]) or sorted(self.store.rows(obj_id)) or [0]
            first_last[str(obj_id)] = {"first": frames[0], "last": frames[-1], "label": entry.title}
        write_json(
            self.folder.info,
            {
                "status": RUNNING if running else COMPLETE,
                "command": "sam2long annotate",
                "settings": self.settings.to_dict(),
                "prompts": [
                    ObjectPrompt(
                        frame=self.source.source_index(frame), obj_id=obj_id, label=objects[obj_id].title,
                        points=said.points, point_labels=said.labels, box=said.box,
                        mask=decode_mask(said.mask) if said.mask else None,
                    ).describe()
                    for obj_id, by_frame in prompts.items()
                    for frame, said in sorted(by_frame.items())
                ],
                "versions": versions(),
                "video": {
                    "height": self.source.height, "width": self.source.width, "fps": self.source.fps,
                    "frames": self.source.num_frames,
                },
                "objects": first_last,
                "frames_tracked": len(self.store.frames()),
                "notes": [*self.source.notes, *([self.source.damage] if self.source.damage else [])],
            },
        )  # fmt: skip

    def finish_files(self) -> None:
        """Everything that other tools read, up to date: before an export, and when the page is closed."""
        self.store.tidy()
        self.write_info()
        report = self.report()
        labels = {obj_id: entry.title for obj_id, entry in self.objects.items()}
        write_report(
            report, self.folder.report, labels=labels, source_frame=self.source.source_index, time=self.source.time
        )
        if len(report):
            self._write_page(report, labels)

    def _write_page(self, report: Any, labels: Mapping[int, str]) -> None:
        settings, page = self.settings, self.folder.page
        # It is for looking at: a video that is gone by now must not stop an export.
        with MaskReader(self.folder.masks) as masks, suppress(VideoError, OSError):
            # A source of its own: another thread may read pictures for the browser.
            frames = open_source(settings.video, start=settings.start, stop=settings.stop(), stride=settings.stride)
            with frames:
                write_page(
                    report, page, source=frames, masks=masks, labels=labels, title=Path(settings.video).name,
                    annotate=self.folder.annotate_command(settings.video),
                )  # fmt: skip

    def report(self) -> Any:
        """A table as `track_report` gives it, of all masks that are kept."""
        import pandas as pd

        rows = [
            (frame, obj_id, row.prompted, row.iou, row.object_logit, row.status, row.pathways, row.margin, "")
            for obj_id in self.objects
            for frame, row in self.store.rows(obj_id).items()
        ]
        return pd.DataFrame(sorted(rows, key=lambda row: row[:2]), columns=list(COLUMNS))

    def view(self) -> dict[str, Any]:
        """Where the user was."""
        try:
            view = json.loads(self.view_file.read_text(encoding="utf-8"))
            return view if isinstance(view, dict) else {}
        except (OSError, ValueError, RecursionError):
            return {}  # it is of no great value

    def save_view(self, view: Mapping[str, Any]) -> None:
        with self.lock:  # pages call this from several threads
            write_json(self.view_file, dict(view))

    def _place(self, frame: int) -> tuple[int, float | None]:
        return self.source.source_index(frame), self.source.time(frame)

    def _video(self) -> dict[str, Any]:
        source = self.source
        return {
            "path": self.settings.video, "height": source.height, "width": source.width,
            "num_frames": source.num_frames, "start": self.settings.start, "stride": self.settings.stride,
        }  # fmt: skip

    def _header(self) -> dict[str, Any]:
        video = self._video()
        objects = {str(obj_id): entry.title for obj_id, entry in sorted(self.objects.items())}
        return {"video": video.pop("path"), **video, "fps": self.source.fps, "objects": objects}


def _spans(frames: Iterable[int]) -> list[list[int]]:
    """Runs of neighbouring frames, as [first, last]."""
    spans: list[list[int]] = []
    for frame in sorted(frames):
        if spans and spans[-1][1] == frame - 1:
            spans[-1][1] = frame
        else:
            spans.append([frame, frame])
    return spans


def _spread(spans: Iterable[list[int]]) -> Iterator[int]:
    for first, last in spans:
        yield from range(first, last + 1)
