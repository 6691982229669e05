"""Flags that several commands share, in groups, and what each group says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import UseAppendAction, arg

from sam2long.detection import DEFAULT_DETECTOR
from sam2long.errors import ConfigError, PromptError
from sam2long.runs.opening import absolute
from sam2long.runs.settings import METHOD_FIELDS, Asked, asked_for, from_text

if TYPE_CHECKING:
    from sam2long.runs.finding import Everything, Words
    from sam2long.runs.prompting import ObjectPrompt


def shown(metavar: str, name: str | None = None) -> Any:
    """How a flag without a fixed default looks in --help."""
    return arg(metavar=metavar, help_behavior_hint="", name=name)


@dataclass(frozen=True, kw_only=True)
class Pointing:
    """Where the objects are."""

    box: Annotated[str | None, shown("X1,Y1,X2,Y2")] = None
    """A box around the object, in pixels."""
    point: Annotated[UseAppendAction[tuple[str, ...]], shown("X,Y")] = ()
    """A pixel of the object; may be repeated."""
    neg: Annotated[UseAppendAction[tuple[str, ...]], shown("X,Y")] = ()
    """A pixel that is not the object; may be repeated."""
    mask: Annotated[Path | None, shown("PNG")] = None
    """Image with the object in white, a cut-out with clear surroundings, or one colour per object (palette or not)."""
    label: Annotated[str | None, shown("NAME")] = None
    """Name of the object, shown in the overlay."""
    prompts: Annotated[Path | None, shown("JSON")] = None
    """Prompts for several objects and frames: a list of {"frame": 0, "object": 1, "label": "dog", "box": [x1, y1,
    x2, y2]}, or with "points" [[x, y], ...] and "labels" [1, 0, ...], or with "mask" (an image beside the file). For
    several videos {"a.mp4": [...], "b.mp4": [...]}; a list counts for each of them."""
    import_: Annotated[Path | None, shown("PATH", "import")] = None
    """Prompts from another program, alone or beside others: a LabelMe or X-AnyLabeling JSON, a COCO JSON, a mask PNG,
    or a folder of them, one per frame. Of a folder that `sam2long export` made, the frames that were changed there."""

    def own(self, frame: int) -> list[ObjectPrompt]:
        """The prompts of --box, --point, --neg and --mask."""
        from sam2long.runs import prompting

        return prompting.from_flags(frame, self.box, self.point, self.neg, self.mask, self.label or "")

    def of_file(self, video: str) -> list[ObjectPrompt]:
        """The prompts of --prompts."""
        from sam2long.runs import prompting

        return (
            [] if self.prompts is None else prompting.from_file(self.prompts, os.path.basename(os.path.normpath(video)))
        )

    def imported(self, video: str) -> list[ObjectPrompt]:
        """The prompts of --import."""
        from sam2long.imports import read_prompts
        from sam2long.video import open_source

        if self.import_ is None:
            return []
        return read_prompts(self.import_, open_source(video).names if os.path.isdir(video) else None)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Objects that are found instead of pointed at."""

    auto: bool = False
    """Segment everything on the prompted frame and track it."""
    text: Annotated[str | None, shown("WORDS")] = None
    """Find what the words name on the prompted frame and track it; a period between things: "a brown dog. a ball."
    Needs the extra [text]."""
    max_objects: Annotated[int | None, shown("N")] = None
    """With --auto: keep the largest objects only. With --text: those that score best. Default: 20."""
    min_score: Annotated[float | None, shown("X")] = None
    """With --text: what scores less, from 0 to 1, is not tracked. Default: 0.2."""
    detector: Annotated[str | None, shown("ID|FOLDER")] = None
    """With --text: hub id, or folder with a download, of a model for zero-shot object detection. Default:
    google/owlv2-base-patch16-ensemble."""

    def search(self, frame: int | None) -> Everything | Words | None:
        """What is to be found on a frame of the video; None where neither --auto nor --text was given."""
        from sam2long.runs.finding import LEAST_SCORE, MOST_OBJECTS, Everything, Words

        for name, needed in (("min_score", self.text is not None), ("detector", self.text is not None),
                             ("max_objects", self.auto or self.text is not None)):  # fmt: skip
            if getattr(self, name) is not None and not needed:
                beside = "--auto or --text" if name == "max_objects" else "--text"
                raise PromptError(f"--{name.replace('_', '-')} goes with {beside} only; leave it out")
        most = MOST_OBJECTS if self.max_objects is None else self.max_objects
        if self.text is None:
            return Everything(frame=frame, max_objects=most) if self.auto else None
        return Words(
            text=self.text,
            frame=frame,
            max_objects=most,
            min_score=LEAST_SCORE if self.min_score is None else self.min_score,
            detector=self.detector or DEFAULT_DETECTOR,
        )


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Which frames are looked at."""

    start: Annotated[int | None, shown("N")] = None
    """First frame of the video to look at. Default: 0."""
    stride: Annotated[int | None, shown("N")] = None
    """Look at every n-th frame only. Default: 1."""
    max_frames: Annotated[int | None, shown("N")] = None
    """Look at no more frames than this."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """Which network, and where."""

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

    def given(self) -> dict[str, Any]:
        """Fields of RunSettings; None where not given."""
        return {
            "model": None if self.model is None else absolute(self.model),
            "checkpoint": None if self.checkpoint is None else absolute(str(self.checkpoint)),
            "device": self.device,
            "dtype": self.dtype,
            "compile": self.compile or None,
        }


@dataclass(frozen=True, kw_only=True)
class Method:
    """How hypotheses and memories are chosen; docs/method.md explains it."""

    config: Annotated[Path | None, shown("YAML")] = None
    """Settings that differ from the defaults, e.g. configs/online.yaml; flags win over it."""
    set: Annotated[UseAppendAction[tuple[str, ...]], shown("NAME=VALUE")] = ()
    """One setting of docs/method.md, e.g. num_pathways=1, modulation=0.9,1.1 or max_lag=none; may be repeated."""

    def given(self) -> dict[str, Any]:
        """Fields of Sam2LongConfig, only those given."""
        return from_text(self.set)


@dataclass(frozen=True, kw_only=True)
class MethodOrOnline(Method):
    __doc__ = Method.__doc__

    online: bool = False
    """Decide on each frame at once instead of waiting for the hypotheses to agree; the same as --set emit=online."""

    def given(self) -> dict[str, Any]:
        given = from_text(self.set)
        if self.online and given.get("emit", "online") != "online":
            raise ConfigError(f"--online and --set emit={given['emit']} contradict each other; choose one")
        return given | ({"emit": "online"} if self.online else {})


def asked(network: Network, method: Method, frames: Mapping[str, Any], **forced: Any) -> Asked:
    """The settings that the flags name, over those of --config.

    Args:
        frames: of RunSettings; None where not given. forced: settings of the method that the command is bound to.
    """
    return asked_for({**network.given(), **frames}, {**method.given(), **forced}, method.config)


def values(group: Pointing | Finding) -> dict[str, Any]:
    """The flags of a group that were given."""
    return {entry.name: value for entry in fields(group) if (value := getattr(group, entry.name)) != entry.default}


def refuse_settings(arguments: list[str]) -> None:
    """A setting is no flag of its own.

    Raises:
        ConfigError: with what to write instead.
    """
    for at, argument in enumerate(arguments):
        flag, _, value = argument.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if flag.startswith("--") and name in METHOD_FIELDS:
            following = [text for text in arguments[at + 1 : at + 3] if not text.startswith("--")]
            value = value or ",".join(following[: 2 if name == "modulation" else 1]) or "VALUE"
            raise ConfigError(f"{flag} is a setting and no flag; write --set {name}={value}")
