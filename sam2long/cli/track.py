"""`sam2long track`: a video and a prompt in, masks on every frame out."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction, arg

from sam2long.config import Sam2LongConfig
from sam2long.detection import DEFAULT_DETECTOR, check_search
from sam2long.errors import ConfigError, PromptError
from sam2long.runs.opening import absolute, build_predictor, index_of, require_length
from sam2long.runs.run_folder import COMPLETE, RunFolder
from sam2long.runs.settings import RunSettings, settings_from

if TYPE_CHECKING:
    from sam2long.runs.prompting import ObjectPrompt
    from sam2long.runs.run import Run

NO_LIMIT = "none"  # for --max-lag

EXAMPLES = """Track objects through a video; write masks, an overlay video, a report and a timeline.

examples:
  sam2long track dog.mp4 --box 100,80,300,260 --out runs/dog
  sam2long track dog.mp4 --point 200,150 --neg 400,90 --frame 30 --direction both --out runs/dog
  sam2long track frames/ --mask first_frame.png --model sam2.1-large --out runs/frames
  sam2long track street.mp4 --prompts prompts.json --config configs/online.yaml --out runs/street
  sam2long track dog.mp4 --box 100,80,300,260 --import corrected_frames/ --out runs/dog2
  sam2long track street.mp4 --auto --max-objects 5 --out runs/street
  sam2long track dog.mp4 --text "a brown dog. a ball." --out runs/dog
  sam2long track a.mp4 b.mp4 c/ --prompts prompts.json --out runs/batch
  sam2long track --resume --out runs/dog"""


def shown(metavar: str) -> Any:
    """How a flag without a fixed default looks in --help."""
    return arg(metavar=metavar, help_behavior_hint="")


@dataclass(frozen=True, kw_only=True)
class Prompting:
    """What is tracked."""

    box: Annotated[str | None, shown("X1,Y1,X2,Y2")] = None
    """A box around the object, in pixels."""
    point: Annotated[UseAppendAction[tuple[str, ...]], shown("X,Y")] = ()
    """A pixel of the object; may be repeated."""
    neg: Annotated[UseAppendAction[tuple[str, ...]], shown("X,Y")] = ()
    """A pixel that is not the object; may be repeated."""
    mask: Annotated[Path | None, shown("PNG")] = None
    """Image with the object in white, a cut-out with clear surroundings, or one colour per object (palette or not)."""
    prompts: Annotated[Path | None, shown("JSON")] = None
    """Prompts for several objects and frames: a list of {"frame": 0, "object": 1, "label": "dog", "box": [x1, y1,
    x2, y2]}, or with "points" [[x, y], ...] and "labels" [1, 0, ...], or with "mask" (an image beside the file). For
    several videos {"a.mp4": [...], "b.mp4": [...]}; a list counts for each of them."""
    import_: Annotated[Path | None, arg(name="import", metavar="PATH", help_behavior_hint="")] = None
    """Prompts from another program, alone or beside others: a LabelMe or X-AnyLabeling JSON, a COCO JSON, a mask PNG,
    or a folder of them, one per frame. Of a folder that `sam2long export` made, the frames that were changed there."""
    auto: bool = False
    """Segment everything on the prompted frame and track it."""
    text: Annotated[str | None, shown("WORDS")] = None
    """Find what the words name on the prompted frame and track it; a period between things: "a brown dog. a ball."
    Needs the extra [text]."""
    frame: Annotated[int | None, shown("N")] = None
    """Frame of the video, by position from 0, that --box, --point, --mask, --auto or --text is about. Default: the
    first one tracked."""
    label: Annotated[str, shown("NAME")] = ""
    """Name of the object, shown in the overlay."""
    max_objects: Annotated[int, arg(metavar="N")] = 20
    """With --auto: keep the largest objects only. With --text: those that score best."""
    points_per_side: Annotated[int, arg(metavar="N")] = 32
    """With --auto: the grid of points to segment from; fewer is quicker and finds less."""
    min_score: Annotated[float, arg(metavar="X")] = 0.2
    """With --text: what scores less, from 0 to 1, is not tracked."""
    detector: Annotated[str, arg(metavar="ID|FOLDER")] = DEFAULT_DETECTOR
    """With --text: hub id, or folder with a download, of a model for zero-shot object detection."""


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Which frames are looked at."""

    direction: Literal["forward", "backward", "both"] = "forward"
    """Which way to track from the prompted frame."""
    start: Annotated[int, arg(metavar="N")] = 0
    """First frame of the video to look at."""
    stride: Annotated[int, arg(metavar="N")] = 1
    """Look at every n-th frame only."""
    max_frames: Annotated[int | None, shown("N")] = None
    """Look at no more frames than this."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """Which network, where."""

    model: Annotated[str | None, shown("NAME")] = None
    """Short name (see `sam2long models`), hf:HUB_ID or hf:FOLDER for transformers, sam2 config name, or path of a YAML.
    Default: nano."""
    checkpoint: Annotated[Path | None, shown("FILE")] = None
    """Weights, .pt or .safetensors; needed when --model is a config name or a YAML."""
    device: Annotated[str | None, shown("DEVICE")] = None
    """cpu, cuda, cuda:1, mps, ... Default: the best there is."""
    dtype: Annotated[Literal["auto", "float32", "bfloat16", "float16"] | None, shown("DTYPE")] = None
    """What the network computes in: auto, float32, bfloat16 or float16. Default: auto."""
    compile: bool = False
    """Compile the network first: minutes at the start, then faster frames. Worth it on a GPU and for long videos."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """How hypotheses and memories are chosen; see docs/method.md."""

    config: Annotated[Path | None, shown("YAML")] = None
    """Settings that differ from the defaults, e.g. configs/online.yaml; flags win over it."""
    online: bool = False
    """Decide on each frame at once instead of waiting for the hypotheses to agree; same as --emit online."""
    num_pathways: Annotated[int | None, shown("N")] = None
    """Hypotheses kept per object; 1 is plain greedy tracking. Default: 3."""
    iou_threshold: Annotated[float | None, shown("X")] = None
    """A frame may become memory when its predicted IoU is above this. Default: 0.3."""
    certainty_threshold: Annotated[float | None, shown("X")] = None
    """A frame is certain when the absolute object logit is above this. Default: 2."""
    modulation: Annotated[tuple[float, float] | None, shown("LOW HIGH")] = None
    """Attention weight of the least and of the most visible memory. Default: 0.95 1.05."""
    object_aware_memory: Annotated[bool | None, shown("{True,False}")] = None
    """Remember only frames that show the object. Default: True."""
    twins: Annotated[Literal["keep", "merge"] | None, shown("{keep,merge}")] = None
    """Keep hypotheses with equal masks apart, or merge them. Default: keep."""
    emit: Annotated[Literal["settled", "online"] | None, shown("{settled,online}")] = None
    """Hand out a frame once all hypotheses agree on it, or at once. Default: settled."""
    max_lag: Annotated[int | Literal["none"] | None, shown("N|none")] = None
    """Frames that a mask may wait for agreement; none for no limit. Default: 256."""
    max_prompted_frames: Annotated[int | None, shown("N")] = None
    """Prompted frames that are read at once: the first and the nearest. Default: 8."""
    memory_tokens: Annotated[Literal["all", "sparse"] | None, shown("{all,sparse}")] = None
    """Read all of every memory, or of older ones only what was attended to: faster, not exact. Default: all."""


GROUPS = {"prompting": Prompting, "frames": Frames, "network": Network, "method": Method}


@dataclass(kw_only=True)
class Track:
    """Track objects through a video; write masks, an overlay video, a report and a timeline."""

    # The order here is the order in --help.
    videos: Annotated[Positional[tuple[str, ...]], arg(metavar="VIDEO [VIDEO ...]", help_behavior_hint="")] = ()
    """Video file, or folder of JPEG/PNG images. Of several, each gets a folder of its own in --out. Not needed with
    --resume."""
    out: Annotated[Path, arg(metavar="DIR")]
    """Folder for the results."""
    resume: bool = False
    """Go on with the stopped run in --out; the masks are those of a run that was never stopped."""
    overwrite: bool = False
    """Replace the run in --out."""
    workers: Annotated[int, arg(metavar="N")] = 1
    """With several videos: processes, each with a model of its own; they share out the GPUs."""
    quiet: bool = False
    """No progress bar and no summary."""
    prompting: Prompting = field(default_factory=Prompting)
    """What is tracked."""
    frames: Frames = field(default_factory=Frames)
    """Which frames are looked at."""
    network: Network = field(default_factory=Network)
    """Which network, and where."""
    method: Method = field(default_factory=Method)
    """How hypotheses and memories are chosen; docs/method.md explains them."""

    def run(self) -> int:
        from sam2long.cli.batch import BatchFolder, track_batch

        if self.resume and self.overwrite:
            raise ConfigError("--resume and --overwrite exclude each other; choose one")
        if not self.resume and not self.videos:
            raise ConfigError("no video given; name a video file or a folder of images")
        if len(self.videos) > 1 or (self.resume and BatchFolder(self.out).exists()):
            return track_batch(self)
        if self.workers != 1:
            raise ConfigError(f"--workers {self.workers} is for several videos; leave it out for one")
        BatchFolder(self.out).refuse_a_single_run()
        folder = RunFolder(self.out)
        if self.resume:
            info = folder.read_info()  # before the lock: a folder that is not there is not made
            self._check_same(info)
            if info["status"] == COMPLETE:
                self._say(f"the run in {self.out} is complete; nothing to do")
                return 0
        else:
            folder.require_usable(self.overwrite, "go on with --resume, or replace it with --overwrite")
        with folder:
            return self._carry_out(self.open_run(folder))

    def open_run(self, folder: RunFolder) -> Run:
        """The run, prompted or as it was stopped. folder: held by the caller."""
        return self._resumed(folder) if self.resume else self._begun(folder)

    # ---- one of many -----------------------------------------------------------------------------------------

    batch = None  # the batch that this clip is one of, a `runs.run.Batch`
    predictor = None  # its model, for all clips

    @property
    def video(self) -> str | None:
        return self.videos[0] if self.videos else None

    def built_predictor(self, settings: RunSettings) -> Any:
        return self.predictor or build_predictor(settings)

    def built_detector(self, device: Any) -> Any:
        """For --text; its network is loaded once per process."""
        from sam2long.detection import TextDetector

        given = self.prompting
        return TextDetector(given.text, given.detector, given.min_score, device)

    # ---- beginning --------------------------------------------------------------------------------------------

    def _begun(self, folder: RunFolder) -> Run:
        from sam2long.cli import text
        from sam2long.runs import prompting
        from sam2long.runs.run import Run, Span, versions
        from sam2long.video import open_source

        settings = self.settings()
        prompts = self._prompts()  # before anything slow
        if said := prompting.numbered_otherwise(prompts):
            self._say(said)
        clock = _Clock()
        source = open_source(settings.video, start=settings.start, stop=settings.stop(), stride=settings.stride)
        require_length(source, settings.video)
        first_prompted = settings.start if self.prompting.frame is None else self.prompting.frame
        indices = {p.frame: index_of(p.frame, source) for p in prompts} or {
            first_prompted: index_of(first_prompted, source)
        }
        clock.stage("open video")
        predictor = self.built_predictor(settings)
        clock.stage("load model")
        state = predictor.init_state(source)
        if self.prompting.auto:
            image = source.frame(indices[first_prompted])
            from sam2long.cli.auto import segment_everything

            prompts = segment_everything(
                predictor, image, first_prompted, self.prompting.points_per_side, self.prompting.max_objects
            )
            self._say(f"found {len(prompts)} objects on frame {first_prompted}")
        found = []
        if self.prompting.text is not None:
            self._say(f"searching frame {first_prompted} with {self.prompting.detector}")  # may fetch it first
            image = source.frame(indices[first_prompted])
            detector = self.built_detector(predictor.device)
            found = text.find_by_words(detector, image, first_prompted, self.prompting.max_objects)
            prompts = text.as_prompts(found, first_prompted)
            self._say(text.table(found))
        for prompt in prompts:
            prompt.give(predictor, state, indices[prompt.frame])
        clock.stage("prompt")
        labels, spans = prompting.labels_of(prompts), {}
        for obj_id in labels:
            frames = [indices[prompt.frame] for prompt in prompts if prompt.obj_id == obj_id]
            spans[obj_id] = Span(min(frames), max(frames))
        info = {
            "command": shlex.join(["sam2long", *sys.argv[1:]]),
            "settings": settings.to_dict(),
            "prompts": [prompt.describe() for prompt in prompts],
            "versions": versions(),
            "device": str(predictor.device),
            "dtype": str(predictor.compute_dtype()).removeprefix("torch."),
            "video": {"height": source.height, "width": source.width, "fps": source.fps, "frames": source.num_frames},
        }
        run = Run(
            folder=folder, settings=settings, source=source, predictor=predictor, state=state, objects=spans,
            labels=labels, info=info, quiet=self.quiet, batch=self.batch, seconds=clock.seconds,
        )  # fmt: skip
        # Only now is everything known to be in order: an older run is not lost to a mistyped flag.
        folder.clear()
        run.begin()
        if found:
            text.save_picture(image, found, folder.detections)
        return run

    def _resumed(self, folder: RunFolder) -> Run:
        from sam2long.runs.run import Run, Span, load_progress
        from sam2long.video import open_source

        info = folder.read_info()
        progress = load_progress(folder)
        settings = RunSettings.from_dict(info["settings"])
        source = open_source(settings.video, start=settings.start, stop=settings.stop(), stride=settings.stride)
        predictor = self.built_predictor(settings)
        state = predictor.load_state(folder.resume / progress["state"], source)
        objects = {int(obj_id): entry for obj_id, entry in info["objects"].items()}
        labels = {obj_id: entry["label"] for obj_id, entry in objects.items()}
        kept = ("command", "settings", "prompts", "versions", "device", "dtype", "video")
        run = Run(
            folder=folder,
            settings=settings,
            source=source,
            predictor=predictor,
            state=state,
            objects={obj_id: Span(entry["first"], entry["last"]) for obj_id, entry in objects.items()},
            labels=labels,
            info={key: info[key] for key in kept} | {"resumed": info.get("resumed", 0) + 1},
            quiet=self.quiet,
            batch=self.batch,
        )
        run.go_back_to(progress)
        return run

    def _check_same(self, info: Mapping[str, Any]) -> None:
        """Flags beside --resume may repeat what the run was started with, but not change it."""
        stored = info["settings"]
        if self.video is not None and absolute(self.video) != stored["video"]:
            raise ConfigError(f"the run in {self.out} is of {stored['video']}, not of {self.video}; leave VIDEO out")
        given = {key: value for key, value in self._run_flags().items() if value is not None}
        if self.method.config is None:  # otherwise its values and the flags are compared as one
            given |= {"sam2long." + key: value for key, value in self._field_flags().items() if value is not None}
        else:
            ours = self.settings().to_dict()
            given |= {"sam2long." + key: value for key, value in ours["sam2long"].items()}
        if self.prompting != Prompting():
            raise ConfigError(
                f"the run in {self.out} has its prompts already; leave prompts, --frame and --label out with --resume, "
                "or start anew with --overwrite"
            )
        defaults = self.defaults()
        for key, value in given.items():
            group, _, name = key.rpartition(".")
            was = stored["sam2long"][name] if group else stored[name]
            value = list(value) if isinstance(value, tuple) else None if value == NO_LIMIT else value
            if value != was and value != defaults.get(name):
                raise ConfigError(
                    f"--{name.replace('_', '-')} is {value} but the run in {self.out} has {was}; "
                    "leave it out with --resume, or start anew with --overwrite"
                )

    # ---- carrying out -----------------------------------------------------------------------------------------

    def _carry_out(self, run: Run) -> int:
        from sam2long.cli.exit_codes import INTERRUPTED

        complete = run.track()
        again = run.folder.resume_command()
        try:
            notes = run.finish(complete)
        except KeyboardInterrupt:
            print(f"\nleft before all files were finished; continue with: {again}", file=sys.stderr)
            return INTERRUPTED
        for note in notes:
            print(f"note: {' '.join(note.split())}", file=sys.stderr)
        self._say(_summary_line(run))
        if not complete:
            print(f"stopped; continue with: {again}", file=sys.stderr)
            return INTERRUPTED
        return 0

    def _say(self, text: str) -> None:
        if not self.quiet:
            print(text, flush=True)

    def groups(self) -> dict[str, Any]:
        """The flags that count for each of several videos, by their group in --help."""
        return {name: getattr(self, name) for name in GROUPS}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Flag -> default, whatever group it is in."""
        return {entry.name: entry.default for group in GROUPS.values() for entry in fields(group)}

    # ---- flags ------------------------------------------------------------------------------------------------

    def check_prompts(self) -> list[ObjectPrompt]:
        """The prompts of --box, --point and --mask.

        Raises:
            PromptError: flags that contradict each other, or none of them.
        """
        from sam2long.runs import prompting

        given = self.prompting
        frame = self.frames.start if given.frame is None else given.frame
        flags = prompting.from_flags(frame, given.box, given.point, given.neg, given.mask, given.label)
        if given.text is not None:
            check_search(given.text, given.min_score)
        ways = {
            "--prompts": given.prompts is not None, "--auto": given.auto, "--text": given.text is not None,
            "--box, --point or --mask": bool(flags),
        }  # fmt: skip
        chosen = [way for way, is_used in ways.items() if is_used]
        if not chosen and given.import_ is None:
            raise PromptError(
                "nothing to track: say where the object is with --box, --point, --mask, --prompts, --import or --auto, "
                "or what it is with --text"
            )
        if given.import_ is not None and (own := next((way for way in ("--auto", "--text") if way in chosen), None)):
            raise PromptError(f"{own} does not go with --import, for both number their objects; choose one")
        if len(chosen) > 1:
            raise PromptError(f"{' and '.join(chosen)} exclude each other; several objects go into --prompts")
        if given.prompts is not None and given.frame is not None:
            raise PromptError("--frame does not go with --prompts, where every prompt names its own frame")
        return flags

    def _prompts(self) -> list[ObjectPrompt]:
        from sam2long.runs import prompting

        flags = self.check_prompts()
        name = os.path.basename(os.path.normpath(self.video or ""))
        given = prompting.from_file(self.prompting.prompts, name) if self.prompting.prompts is not None else flags
        return given if self.prompting.import_ is None else self._with_imported(given)

    def _with_imported(self, given: list[ObjectPrompt]) -> list[ObjectPrompt]:
        from sam2long.imports import read_prompts
        from sam2long.video import open_source

        path = self.prompting.import_
        names = open_source(self.video).names if os.path.isdir(self.video or "") else None
        imported = read_prompts(path, names)
        both = {(prompt.frame, prompt.obj_id) for prompt in given} & {(p.frame, p.obj_id) for p in imported}
        if both:
            frame, obj_id = min(both)
            raise PromptError(
                f"object {obj_id} on frame {frame} is prompted here and in {path}; leave one of the two out"
            )
        frames = sorted({prompt.frame for prompt in imported})
        shown = ", ".join(map(str, frames[:10])) + (", ..." if len(frames) > 10 else "")
        self._say(f"{len(imported)} prompts from {path}, on frame{'s' if len(frames) > 1 else ''} {shown}")
        return [*given, *imported]

    def _run_flags(self) -> dict[str, Any]:
        return {
            "model": None if self.network.model is None else absolute(self.network.model),
            "checkpoint": None if self.network.checkpoint is None else absolute(str(self.network.checkpoint)),
            "device": self.network.device,
            "dtype": self.network.dtype,
            "compile": self.network.compile or None,
            "direction": self.frames.direction,
            "start": self.frames.start,
            "stride": self.frames.stride,
            "max_frames": self.frames.max_frames,
        }

    def _field_flags(self) -> dict[str, Any]:
        values = {entry.name: getattr(self.method, entry.name) for entry in fields(Sam2LongConfig)}
        if self.method.online:
            if self.method.emit == "settled":
                raise ConfigError("--online and --emit settled contradict each other; choose one")
            values["emit"] = "online"
        return values

    def settings(self) -> RunSettings:
        values = self._field_flags()
        unlimited = values["max_lag"] == NO_LIMIT
        if unlimited:
            values["max_lag"] = None
        settings = settings_from(absolute(self.video or ""), self.method.config, self._run_flags(), values)
        if unlimited:  # None means "not given" among flags
            settings.sam2long["max_lag"] = None
        return settings


def _summary_line(run: Run) -> str:
    objects: Sequence[dict[str, Any]] = list(run.info.get("summary", {}).items())
    lines = [f"{run.frames_tracked} frames tracked; results in {run.folder.path}"]
    for obj_id, entry in objects[:10]:
        name = f"{obj_id} {entry['label']}".strip()
        lines.append(
            f"  object {name}: visible on {entry['visible']} of {entry['frames']} frames, "
            f"uncertain on {entry['uncertain']}, absent on {entry['absent']}"
        )
    return "\n".join(lines)


class _Clock:
    """Seconds per stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def stage(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name] = now - self._last
        self._last = now
