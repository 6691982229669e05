"""How a run begins, and how it goes on: for the command line, for batches, and for Python."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2long.errors import PromptError, StateError
from sam2long.imports.prompt import ObjectPrompt, labels_of
from sam2long.runs import opening
from sam2long.runs.batch_folder import BatchFolder
from sam2long.runs.finding import Everything, Words, save_picture
from sam2long.runs.run_folder import COMPLETE, RunFolder
from sam2long.runs.settings import RunSettings

if TYPE_CHECKING:
    from sam2long.runs.run import Batch, Run

KEPT = ("command", "settings", "prompts", "versions", "device", "dtype", "video")  # of run.json, when it goes on


def begin_run(
    out: Path | str,
    settings: RunSettings,
    prompts: Sequence[ObjectPrompt] | Everything | Words,
    *,
    overwrite: bool = False,
    quiet: bool = False,
    predictor: Any = None,
    batch: Batch | None = None,
    command: str | None = None,
) -> Run:
    """A new run, prompted; `track` and `finish` do the rest.

    Args:
        out: folder for the results; no other program may write there until the run is left.
        settings: the video, the model, and how it is tracked.
        prompts: where the objects are, by frames of the video; or how they are found.
        overwrite: replace the run in `out`, once everything is known to be in order.
        quiet: no progress bar, and nothing printed.
        predictor: to track with, built with these settings; None builds one.
        batch: of many clips that this run is one of.
        command: that asked for it, for run.json.
    Raises:
        DataError: a run is there already, or files that no run wrote.
        ConfigError, PromptError, VideoError, ModelError: what cannot be used; nothing is left behind.
    """
    BatchFolder(Path(out)).refuse_a_single_run()
    folder = RunFolder(Path(out))
    folder.require_usable(overwrite, "go on with --resume, or replace it with --overwrite")
    with ExitStack() as undo:
        undo.enter_context(folder)
        run = _begun(folder, settings, prompts, quiet, predictor, batch, command)
        undo.pop_all()  # the run holds the folder now
    return run


def resume_run(out: Path | str, *, quiet: bool = False, predictor: Any = None, batch: Batch | None = None) -> Run:
    """A stopped run, as it was when its state was saved last; its masks become those of a run never stopped.

    Args:
        out: the run's folder. quiet, predictor, batch: as for `begin_run`.
    Raises:
        StateError: the run is complete, or another program has it open.
        DataError: there is no run, or it is damaged.
    """
    folder = RunFolder(Path(out))
    folder.read_info()  # before the lock: a folder that is not there is not made
    with ExitStack() as undo:
        undo.enter_context(folder)
        run = _resumed(folder, quiet, predictor, batch)
        undo.pop_all()
    return run


def _begun(
    folder: RunFolder,
    settings: RunSettings,
    prompts: Sequence[ObjectPrompt] | Everything | Words,
    quiet: bool,
    predictor: Any,
    batch: Batch | None,
    command: str | None,
) -> Run:
    from sam2long.runs.run import Run, Span
    from sam2long.runs.versions import versions
    from sam2long.video import open_source

    clock = _Clock()
    searches = isinstance(prompts, (Everything, Words))
    if not searches and not prompts:
        raise PromptError("nothing to track: give at least one prompt")
    source = open_source(settings.video, start=settings.start, stop=settings.stop(), stride=settings.stride)
    opening.require_length(source, settings.video)
    if isinstance(prompts, (Everything, Words)):
        searched = settings.start if prompts.frame is None else prompts.frame
        indices = {searched: opening.index_of(searched, source)}
    else:
        indices = {prompt.frame: opening.index_of(prompt.frame, source) for prompt in prompts}
    clock.stage("open video")
    predictor = predictor or opening.build_predictor(settings)
    clock.stage("load model")
    state = predictor.init_state(source)
    found = None
    if isinstance(prompts, (Everything, Words)):
        if isinstance(prompts, Words) and not quiet:
            print(f"searching frame {searched} with {prompts.detector}", flush=True)  # may fetch it first
        image = source.frame(indices[searched])
        found = prompts.find(predictor, image, searched)
        prompts = found.prompts
        if not quiet:
            print(found.says, flush=True)
    from sam2long.tracking.prompts import require_sense  # here: torch is slow to import

    for prompt in prompts:
        require_sense(prompt, height=source.height, width=source.width, image_size=predictor.image_size)
        prompt.give(predictor, state, indices[prompt.frame])
    clock.stage("prompt")
    labels, spans = labels_of(prompts), {}
    for obj_id in labels:
        frames = [indices[prompt.frame] for prompt in prompts if prompt.obj_id == obj_id]
        spans[obj_id] = Span(min(frames), max(frames))
    info = {
        **({} if command is None else {"command": command}),
        "settings": settings.to_dict(),
        "prompts": [prompt.describe() for prompt in prompts],
        "versions": versions(),
        "device": str(predictor.device),
        "dtype": str(predictor.compute_dtype()).removeprefix("torch."),
        "video": {"height": source.height, "width": source.width, "fps": source.fps, "frames": source.num_frames},
    }
    run = Run(
        folder=folder, settings=settings, source=source, predictor=predictor, state=state, objects=spans,
        labels=labels, info=info, quiet=quiet, batch=batch, seconds=clock.seconds,
    )  # fmt: skip
    # Only now is everything known to be in order: an older run is not lost to a mistyped flag.
    folder.clear()
    run.begin()
    if found is not None and found.boxes:
        save_picture(image, found.boxes, folder.detections)
    return run


def _resumed(folder: RunFolder, quiet: bool, predictor: Any, batch: Batch | None) -> Run:
    from sam2long.runs.run import Run, Span, load_progress
    from sam2long.video import open_source

    info = folder.read_info()
    if info["status"] == COMPLETE:
        raise StateError(f"the run in {folder.path} is complete; there is nothing to go on with")
    progress = load_progress(folder)
    settings = folder.read_settings()
    source = open_source(settings.video, start=settings.start, stop=settings.stop(), stride=settings.stride)
    predictor = predictor or opening.build_predictor(settings)
    state = predictor.load_state(folder.resume / progress["state"], source)
    objects = {int(obj_id): entry for obj_id, entry in info["objects"].items()}
    run = Run(
        folder=folder,
        settings=settings,
        source=source,
        predictor=predictor,
        state=state,
        objects={obj_id: Span(entry["first"], entry["last"]) for obj_id, entry in objects.items()},
        labels={obj_id: entry["label"] for obj_id, entry in objects.items()},
        info={key: info[key] for key in KEPT if key in info} | {"resumed": info.get("resumed", 0) + 1},
        quiet=quiet,
        batch=batch,
    )
    run.go_back_to(progress)
    return run


class _Clock:
    """Seconds per stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def stage(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name] = now - self._last
        self._last = now
