"""Many clips in one `sam2long track`: one model for all of them, a run folder for each, and a table."""

from __future__ import annotations

import hashlib
import multiprocessing
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2long.cli.exit_codes import INCOMPLETE, INTERRUPTED
from sam2long.errors import ConfigError, DataError, Sam2LongError
from sam2long.export.atomic import replacing, write_json
from sam2long.export.report import as_text
from sam2long.json_file import read_json
from sam2long.runs import processes, prompting
from sam2long.runs.opening import absolute, require_length
from sam2long.runs.run import say_stopping, stopping_politely
from sam2long.runs.run_folder import COMPLETE, STOPPED, RunFolder

if TYPE_CHECKING:
    from sam2long.runs.run import Run

WAITING, FAILED = "waiting", "failed"  # beside the states of a run
COLUMNS = (
    "clip", "video", "status", "frames", "objects", "visible", "uncertain", "absent", "frames_per_second", "error",
)  # fmt: skip
PATHS = ("mask", "prompts", "import_", "checkpoint", "config")

Row = dict[str, Any]  # of batch.csv
Track = Any  # `cli.track.Track`, the flags; it imports this module


class BatchFolder:
    """What is where in the folder of a batch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.info = path / "batch.json"
        self.table = path / "batch.csv"

    def exists(self) -> bool:
        return self.info.exists()

    def refuse_a_single_run(self) -> None:
        if self.exists():
            raise DataError(f"{self.path} holds a batch of several videos; choose another --out for one")

    def read(self) -> _Begun:
        """The batch as it was begun."""
        content = read_json(self.info, "that of a batch; start again with --overwrite")
        try:
            flags = {name: _from_json(name, value) for name, value in content["flags"].items()}
            begun = _Begun(content["clips"], flags, content.get("replaces", {}))
            if not begun.clips or not all(map(_can_be_a_clip, begun.clips)):
                raise ValueError
            if not all(isinstance(video, str) for video in begun.clips.values()):
                raise ValueError
            return begun
        except (TypeError, KeyError, ValueError, AttributeError):
            raise DataError(f"{self.info} is damaged; start again with --overwrite") from None

    def write_table(self, rows: Sequence[Row]) -> None:
        import pandas as pd

        with replacing(self.table) as partial:
            table = pd.DataFrame(rows, columns=list(COLUMNS))
            for name in table.select_dtypes(object):
                table[name] = [as_text(value) if isinstance(value, str) else value for value in table[name]]
            table.to_csv(partial, index=False, errors="backslashreplace")  # names of files need not be text


@dataclass(frozen=True, slots=True)
class _Begun:
    """What batch.json says."""

    clips: dict[str, str]  # clip -> video
    flags: dict[str, Any]  # flag -> value, of the flags given
    replaces: dict[str, str]  # clip -> stamp of the earlier run, which --overwrite gave up


def track_batch(flags: Track) -> int:
    """Track every clip; returns the exit code. A clip that fails costs the others nothing.

    Raises:
        ConfigError, DataError: what is wrong with all of them, before anything is written.
    """
    if flags.workers < 1:
        raise ConfigError(f"--workers is {flags.workers}; expected 1 or more")
    folder = BatchFolder(flags.out)
    flags, begun = _gone_on(flags, folder) if flags.resume else _begun(flags, folder)
    with RunFolder(folder.path):
        if not flags.resume:
            write_json(folder.info, {"clips": begun.clips, "flags": _to_json(flags), "replaces": begun.replaces})
        return _track(flags, folder, begun)


def _track(flags: Track, folder: BatchFolder, begun: _Begun) -> int:
    clips = begun.clips
    rows = {name: dict.fromkeys(COLUMNS, "") | {"clip": name, "video": video, "status": WAITING}
            for name, video in clips.items()}  # fmt: skip
    frames = {}
    for name in clips:
        row, frames[name] = _looked_at(_clip(flags, name, begun), flags.resume)
        rows[name] |= row
    open_clips = [name for name, row in rows.items() if row["status"] == WAITING]
    for name in rows:
        _say_failure(rows[name])
    folder.write_table(list(rows.values()))
    job = _Clips(flags, begun, multiprocessing.get_context("spawn").Event())
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


def _ended(flags: Track, folder: BatchFolder, rows: Mapping[str, Row]) -> int:
    counts = {state: sum(row["status"] == state for row in rows.values())
              for state in (COMPLETE, FAILED, STOPPED, WAITING)}  # fmt: skip
    if not flags.quiet:
        said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        print(f"{len(rows)} clips: {said}; table in {folder.table}", flush=True)
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


def _begun(flags: Track, folder: BatchFolder) -> tuple[Track, _Begun]:
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
    flags.settings()  # a mistyped flag is not the clips' fault
    flags.check_prompts()
    if flags.prompting.prompts is not None:
        listed = prompting.clips_in(flags.prompting.prompts)
        known = {name for video in clips.values() for name in (Path(video).name, Path(video).stem)}
        if unknown := [name for name in listed if name not in known]:
            said = f"{flags.prompting.prompts} has prompts for {prompting.some(unknown)}, not among the clips"
            print(f"note: {' '.join(said.split())}", file=sys.stderr)
    runs = {name: RunFolder(folder.path / name) for name in clips}
    return flags, _Begun(clips, {}, {name: _stamp(run) for name, run in runs.items() if run.holds_a_run()})


def _gone_on(flags: Track, folder: BatchFolder) -> tuple[Track, _Begun]:
    """The batch as it was begun. Flags may be repeated, but not changed."""
    begun = folder.read()
    clips, stored = begun.clips, {name: _plain(name, value) for name, value in begun.flags.items()}
    if flags.videos and _named(flags.videos) != clips:
        raise ConfigError(f"the batch in {folder.path} is of other clips ({', '.join(clips)}); leave them out")
    defaults = flags.defaults()
    for name, value in _to_json(flags).items():
        if value != stored.get(name, _plain(name, defaults[name])):
            raise ConfigError(
                f"--{name.strip('_').replace('_', '-')} is not what the batch in {folder.path} was begun with; "
                "leave it out with --resume, or start anew with --overwrite"
            )
    return _with(flags, begun.flags), begun


def _named(videos: Sequence[str]) -> dict[str, str]:
    """Clip -> video, absolute. A clip is called like its file or folder, without the ending."""
    clips: dict[str, str] = {}
    for video in videos:
        path = Path(absolute(video))
        name = path.name if path.is_dir() else path.stem
        if not _can_be_a_clip(name):
            raise ConfigError(f"{video!r} cannot have a folder of its name in --out; track it alone, or rename it")
        if clips.get(name) == str(path):
            raise ConfigError(f"{path} is named twice; leave one of the two out")
        if name in clips:
            raise ConfigError(f"{clips[name]} and {path} would both be {name} in --out; track them into two folders")
        clips[name] = str(path)
    return clips


def _can_be_a_clip(name: str) -> bool:
    return Path(name).name == name and name not in ("", "..", "batch.json", "batch.csv", ".lock")


def _stamp(run: RunFolder) -> str:
    """Tells a run from another one in the same folder."""
    return hashlib.sha256(run.info.read_bytes()).hexdigest() if run.info.exists() else ""


def _clip(flags: Track, name: str, begun: _Begun) -> Track:
    """The flags of one clip: begun, or gone on with where it was stopped. Only a run that is there since before the
    batch may be replaced, for so it was asked for."""
    run = RunFolder(flags.out / name)
    is_older = begun.replaces.get(name) == _stamp(run)
    goes_on = flags.resume and not is_older and run.info.exists() and run.progress.exists()
    return replace(
        flags, videos=(begun.clips[name],), out=run.path, resume=goes_on, overwrite=is_older, workers=1, quiet=True,
        prompting=type(flags.prompting)() if goes_on else flags.prompting,  # a run keeps its prompts
    )  # fmt: skip


def _looked_at(clip: Track, going_on: bool) -> tuple[Row, int]:
    """What is to be said of a clip before it is tracked, and its frames: done already, cannot be opened, or waiting."""
    from sam2long.video import open_source

    folder = RunFolder(clip.out)
    try:
        if going_on and not clip.overwrite and folder.info.exists():
            info = folder.read_info()
            if info["status"] == COMPLETE:
                return _row(info, folder), 0
        if not clip.resume:
            folder.require_usable(clip.overwrite, "track it alone into --out of its own, or move that run away")
        settings = clip.settings()
        with open_source(
            settings.video, start=settings.start, stop=settings.stop(), stride=settings.stride
        ) as source:  # fmt: skip
            require_length(source, settings.video)
            return {}, source.num_frames
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

    flags: Track
    begun: _Begun
    stop: Any  # multiprocessing's Event
    predictor: Any = None
    device: str | None = None

    def start(self) -> None:
        if multiprocessing.parent_process() is not None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
        self.device = _device_of(processes.worker_number(), self.flags)
        self.predictor = self.predictor or self.flags.built_predictor(self._with_device(self.flags).settings())
        if self.flags.prompting.text is not None and not self.flags.resume:  # clips that were begun need it no more
            self.flags.built_detector(self.predictor.device)

    def run(self, name: str, on_frame: Callable[[], None]) -> Row:
        if self.stop.is_set():
            return {"status": WAITING}
        clip = _clip(self.flags, name, self.begun)
        clip = clip if clip.resume else self._with_device(clip)
        clip.predictor, clip.batch = self.predictor, _Told(on_frame, self.stop)
        folder = RunFolder(clip.out)
        with folder:
            run: Run = clip.open_run(folder)
            complete = run.track()
            run.finish(complete)
            return _row(folder.read_info(), folder)

    def _with_device(self, flags: Track) -> Track:
        return flags if self.device is None else replace(flags, network=replace(flags.network, device=self.device))


@dataclass(frozen=True, slots=True)
class _Told:
    """A `runs.run.Batch`."""

    on_frame: Callable[[], None]
    stop: Any

    def frame_done(self) -> None:
        self.on_frame()

    def stop_requested(self) -> bool:
        return self.stop.is_set()


def _device_of(worker: int, flags: Track) -> str | None:
    """Workers share out the GPUs, unless one was named."""
    import torch

    several = flags.workers > 1 and flags.network.device in (None, "cuda") and torch.cuda.device_count() > 1
    return f"cuda:{worker % torch.cuda.device_count()}" if several else None


# ---- flags in batch.json ---------------------------------------------------------------------------------------------


def _to_json(flags: Track) -> dict[str, Any]:
    """The flags that are not at their defaults and count for all of a batch."""
    given = {name: getattr(group, name) for group in flags.groups().values() for name in vars(group)}
    return {name: _plain(name, value) for name, value in given.items() if value != flags.defaults()[name]}


def _with(flags: Track, values: Mapping[str, Any]) -> Track:
    """The flags with other values in their groups; what is not known any more is left out."""
    return replace(flags, **{
        name: replace(group, **{key: value for key, value in values.items() if hasattr(group, key)})
        for name, group in flags.groups().items()
    })  # fmt: skip


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Path) or (name in ("model", "detector") and value is not None):
        return absolute(str(value))
    return list(value) if isinstance(value, tuple) else value


def _from_json(name: str, value: Any) -> Any:
    if name in PATHS:
        return Path(value)
    return tuple(value) if isinstance(value, list) else value
