"""Many clips in one `sam2long track`: one model for all of them, a run folder for each, and a table."""

from __future__ import annotations

import hashlib
import multiprocessing
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2long.cli.exit_codes import INCOMPLETE, INTERRUPTED
from sam2long.cli.flags import Finding, Pointing
from sam2long.errors import ConfigError, DataError, Sam2LongError
from sam2long.runs import opening, processes, prompting
from sam2long.runs.batch_folder import COLUMNS, BatchFolder, Begun, Row, can_be_a_clip
from sam2long.runs.beginning import begin_run, resume_run
from sam2long.runs.opening import absolute, require_length
from sam2long.runs.run_folder import COMPLETE, STOPPED, RunFolder
from sam2long.runs.settings import RunSettings, flat, require_same
from sam2long.runs.stopping import say_stopping, stopping_politely

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

    from sam2long.cli.track_flags import TrackFlags

WAITING, FAILED = "waiting", "failed"  # beside the states of a run
PATHS = ("mask", "prompts", "import_")


def track_batch(flags: TrackFlags) -> int:
    """Track every clip; returns the exit code. A clip that fails costs the others nothing.

    Raises:
        ConfigError, DataError: what is wrong with all of them, before anything is written.
    """
    if flags.workers < 1:
        raise ConfigError(f"--workers is {flags.workers}; expected 1 or more")
    folder = BatchFolder(flags.out)
    begun = _gone_on(flags, folder) if flags.resume else _begun(flags, folder)
    flags = _with(flags, begun.prompting)
    with RunFolder(folder.path):
        if not flags.resume:
            folder.write(begun)
        return _track(flags, folder, begun)


def _track(flags: TrackFlags, folder: BatchFolder, begun: Begun) -> int:
    rows = {name: dict.fromkeys(COLUMNS, "") | {"clip": name, "video": video, "status": WAITING}
            for name, video in begun.clips.items()}  # fmt: skip
    frames = {}
    for name in begun.clips:
        row, frames[name] = _looked_at(_clip(flags, name, begun), flags.resume)
        rows[name] |= row
    open_clips = [name for name, row in rows.items() if row["status"] == WAITING]
    for name in rows:
        _say_failure(rows[name])
    folder.write_table(list(rows.values()))
    command = shlex.join(["sam2long", *sys.argv[1:]])
    job = _Clips(flags, begun, command, multiprocessing.get_context("spawn").Event())
    if open_clips and flags.workers == 1:
        job.start()  # a model that cannot be had is the whole batch's error
    if open_clips:
        with stopping_politely(lambda: _stop(job)):
            _work(job, open_clips, frames, rows, folder)
    return _ended(flags, folder, rows)


def _work(
    job: _Clips, names: Sequence[str], frames: Mapping[str, int], rows: dict[str, Row], folder: BatchFolder
) -> None:
    from tqdm import tqdm

    flags = job.flags
    total = sum(frames[name] for name in names)
    bar = tqdm(total=total, unit="frame", desc="track", disable=flags.quiet, dynamic_ncols=True)
    with bar:
        bar.set_postfix_str(f"0 of {len(names)} clips")
        for done, (name, row, error) in enumerate(
            processes.each(job, names, flags.workers, on_frame=lambda: bar.update(1)), start=1
        ):
            rows[name] |= row if error is None else {"status": FAILED, "error": error}
            folder.write_table(list(rows.values()))
            bar.set_postfix_str(f"{done} of {len(names)} clips")
            with bar.external_write_mode(file=sys.stderr):
                _say_failure(rows[name])


def _ended(flags: TrackFlags, folder: BatchFolder, rows: Mapping[str, Row]) -> int:
    counts = {state: sum(row["status"] == state for row in rows.values())
              for state in (COMPLETE, FAILED, STOPPED, WAITING)}  # fmt: skip
    if not flags.quiet:
        listed = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        print(f"{len(rows)} clips: {listed}; table in {folder.table}", flush=True)
    if counts[STOPPED] or counts[WAITING]:
        print(f"stopped; continue with: {RunFolder(flags.out).resume_command()}", file=sys.stderr)
        return INTERRUPTED
    return INCOMPLETE if counts[FAILED] else 0


def _say_failure(row: Row) -> None:
    if row["status"] == FAILED:
        print(f"sam2long: {row['clip']}: {' '.join(str(row['error']).split())}", file=sys.stderr, flush=True)


def _stop(job: _Clips) -> None:
    job.stop.set()
    say_stopping()


# ---- the clips -------------------------------------------------------------------------------------------------------


def _begun(flags: TrackFlags, folder: BatchFolder) -> Begun:
    """A new batch: nothing that is there is lost unasked, and everything that can be checked early is."""
    clips = _named(flags.videos)
    instead = "go on with --resume, or replace it with --overwrite"
    if RunFolder(folder.path).holds_a_run():
        raise DataError(f"{folder.path} holds the run of one video; choose another --out for several")
    RunFolder(folder.path).require_usable(flags.overwrite, instead)
    if folder.exists() and not flags.overwrite:
        raise DataError(f"{folder.path} holds a batch already; {instead}")
    for name in clips:
        RunFolder(folder.path / name).require_usable(flags.overwrite, instead)
    settings = flags.asked().settings("")  # a mistyped flag is not the clips' fault
    flags.check_prompts(settings.start)
    if flags.pointing.prompts is not None:
        listed = prompting.clips_in(flags.pointing.prompts)
        known = {name for video in clips.values() for name in (Path(video).name, Path(video).stem)}
        if unknown := [name for name in listed if name not in known]:
            note = f"{flags.pointing.prompts} has prompts for {prompting.some(unknown)}, not among the clips"
            print(f"note: {' '.join(note.split())}", file=sys.stderr)
    runs = {name: RunFolder(folder.path / name) for name in clips}
    return Begun(
        clips=clips, settings=settings, prompting=_to_json(flags.prompting()),
        replaces={name: _stamp(run) for name, run in runs.items() if run.holds_a_run()},
    )  # fmt: skip


def _gone_on(flags: TrackFlags, folder: BatchFolder) -> Begun:
    """The batch as it was begun. Flags may be repeated, but not changed."""
    begun = folder.read()
    if flags.videos and _named(flags.videos) != begun.clips:
        raise ConfigError(f"the batch in {folder.path} is of other clips ({', '.join(begun.clips)}); leave them out")
    asked = flags.asked().flat() | {_flag(name): value for name, value in _to_json(flags.prompting()).items()}
    stored = flat(begun.settings.to_dict()) | {_flag(name): value for name, value in begun.prompting.items()}
    require_same(asked, stored, f"the batch in {folder.path}")
    return begun


def _named(videos: Sequence[str]) -> dict[str, str]:
    """Clip -> video, absolute. A clip is called like its file or folder, without the ending."""
    clips: dict[str, str] = {}
    for video in videos:
        path = Path(absolute(video))
        name = path.name if path.is_dir() else path.stem
        if not can_be_a_clip(name):
            raise ConfigError(f"{video!r} cannot have a folder of its name in --out; track it alone, or rename it")
        if clips.get(name) == str(path):
            raise ConfigError(f"{path} is named twice; leave one of the two out")
        if name in clips:
            raise ConfigError(f"{clips[name]} and {path} would both be {name} in --out; track them into two folders")
        clips[name] = str(path)
    return clips


def _stamp(run: RunFolder) -> str:
    """Tells a run from another one in the same folder."""
    return hashlib.sha256(run.info.read_bytes()).hexdigest() if run.info.exists() else ""


@dataclass(frozen=True, slots=True)
class _Clip:
    """What is to be done with one clip."""

    settings: RunSettings
    run: RunFolder
    goes_on: bool  # with where it was stopped
    overwrite: bool  # a run that is there since before the batch, for so it was asked for


def _clip(flags: TrackFlags, name: str, begun: Begun) -> _Clip:
    run = RunFolder(flags.out / name)
    is_older = begun.replaces.get(name) == _stamp(run)
    goes_on = flags.resume and not is_older and run.info.exists() and run.progress.exists()
    return _Clip(begun.of(name), run, goes_on, is_older)


def _looked_at(clip: _Clip, going_on: bool) -> tuple[Row, int]:
    """What is to be said of a clip before it is tracked, and its frames: done already, cannot be opened, or waiting."""
    from sam2long.video import open_source

    settings = clip.settings
    try:
        if going_on and not clip.overwrite and clip.run.info.exists():
            info = clip.run.read_info()
            if info["status"] == COMPLETE:
                return _row(info, clip.run), 0
        if not clip.goes_on:
            clip.run.require_usable(clip.overwrite, "track it alone into --out of its own, or move that run away")
        with open_source(
            settings.video, start=settings.start, stop=settings.stop(), stride=settings.stride
        ) as source:  # fmt: skip
            return {}, require_length(source, settings.video)
    except (Sam2LongError, OSError) as error:
        return {"status": FAILED, "error": processes.reason(error)}, 0


def _row(info: Mapping[str, Any], folder: RunFolder) -> Row:
    """A clip's line of the table, from its run.json."""
    try:
        counted = {state: sum(entry[state] for entry in info.get("summary", {}).values())
                   for state in ("visible", "uncertain", "absent")}  # fmt: skip
        return counted | {
            "status": info["status"], "frames": info["frames_tracked"], "objects": len(info["objects"]),
            "frames_per_second": info["frames_per_second"], "error": "",
        }  # fmt: skip
    except (KeyError, TypeError, AttributeError):
        raise DataError(f"{folder.info} is damaged; restore it, or move {folder.path} away") from None


# ---- in a process of its own, or in this one -------------------------------------------------------------------------


@dataclass
class _Clips:
    """What a process does with a clip; it keeps its model for the next."""

    flags: TrackFlags
    begun: Begun
    command: str
    stop: Event
    predictor: Any = None  # of any back end
    device: str | None = None

    def start(self) -> None:
        if multiprocessing.parent_process() is not None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
        self.device = processes.own_device(self.begun.settings.device)
        self.predictor = self.predictor or opening.build_predictor(self._on_device(self.begun.settings))
        search = self.flags.finding.search(None)
        if search is not None and not self.flags.resume:  # clips that were begun need it no more
            search.load(self.predictor.device)

    def run(self, name: str, on_frame: Callable[[], None]) -> Row:
        if self.stop.is_set():
            return {"status": WAITING}
        clip, batch = _clip(self.flags, name, self.begun), _Batch(on_frame, self.stop)
        if clip.goes_on:
            run = resume_run(clip.run.path, quiet=True, predictor=self.predictor, batch=batch)
        else:
            settings = self._on_device(clip.settings)
            prompts = replace(self.flags, quiet=True).prompts(settings.video, settings.start)
            run = begin_run(
                clip.run.path, settings, prompts, overwrite=clip.overwrite, quiet=True, predictor=self.predictor,
                batch=batch, command=self.command,
            )  # fmt: skip
        with run:
            run.track()
            run.finish()
            return _row(clip.run.read_info(), clip.run)

    def _on_device(self, settings: RunSettings) -> RunSettings:
        return settings if self.device is None else replace(settings, device=self.device)


@dataclass(frozen=True, slots=True)
class _Batch:
    """A `runs.run.Batch`."""

    on_frame: Callable[[], None]
    stop: Event

    def frame_done(self) -> None:
        self.on_frame()

    def stop_requested(self) -> bool:
        return self.stop.is_set()


# ---- flags about prompts in batch.json -------------------------------------------------------------------------------


def _flag(name: str) -> str:
    return f"--{name.strip('_').replace('_', '-')}"


def _to_json(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(name, value) for name, value in given.items()}


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Path) or name == "detector":
        return absolute(str(value))
    return list(value) if isinstance(value, tuple) else value


def _with(flags: TrackFlags, stored: Mapping[str, Any]) -> TrackFlags:
    """The flags with those of batch.json about prompts."""
    given: dict[str, Any] = {
        name: Path(value) if name in PATHS else tuple(value) if isinstance(value, list) else value
        for name, value in stored.items()
    }
    frame = given.pop("frame", None)
    found = {name: given.pop(name) for name in [entry.name for entry in fields(Finding)] if name in given}
    if unknown := sorted(given.keys() - {entry.name for entry in fields(Pointing)}):
        raise DataError(f"the batch was begun with {', '.join(map(_flag, unknown))}, which this version does not have")
    frames = replace(flags.frames, frame=frame)
    return replace(flags, pointing=Pointing(**given), finding=Finding(**found), frames=frames)
