"""The flags of `sam2long track`, of one video and of several, and what they say."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from sam2long.cli.flags import Finding, Frames, MethodOrOnline, Network, Pointing, asked, shown, values
from sam2long.errors import PromptError
from sam2long.runs.settings import Asked

if TYPE_CHECKING:
    from sam2long.runs.finding import Everything, Words
    from sam2long.runs.prompting import ObjectPrompt


@dataclass(frozen=True, kw_only=True)
class TrackedFrames(Frames):
    """Which frames are prompted and looked at."""

    frame: Annotated[int | None, shown("N")] = None
    """Frame of the video, by position from 0, that --box, --point, --mask, --auto or --text is about. Default: the
    first one tracked."""
    direction: Annotated[Literal["forward", "backward", "both"] | None, shown("{forward,backward,both}")] = None
    """Which way to track from the prompted frame. Default: forward."""

    def given(self) -> dict[str, Any]:
        """Fields of RunSettings; None where not given."""
        return {name: getattr(self, name) for name in ("start", "stride", "max_frames", "direction")}


@dataclass(kw_only=True)
class TrackFlags:
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
    pointing: Pointing = field(default_factory=Pointing)
    """Where the objects are."""
    finding: Finding = field(default_factory=Finding)
    """Objects that are found instead of pointed at."""
    frames: TrackedFrames = field(default_factory=TrackedFrames)
    """Which frames are prompted and looked at."""
    network: Network = field(default_factory=Network)
    """Which network, and where."""
    method: MethodOrOnline = field(default_factory=MethodOrOnline)
    """How hypotheses and memories are chosen; docs/method.md explains it."""

    def asked(self) -> Asked:
        """The settings that were named."""
        return asked(self.network, self.method, self.frames.given())

    def prompting(self) -> dict[str, Any]:
        """The flags about prompts that were given, by name."""
        frame = {} if self.frames.frame is None else {"frame": self.frames.frame}
        return values(self.pointing) | values(self.finding) | frame

    def prompts(self, video: str, start: int) -> list[ObjectPrompt] | Everything | Words:
        """What to track in a video, or how it is found.

        Args:
            video: file or folder. start: its first frame that is looked at.
        Raises:
            PromptError: flags that contradict each other, or none of them.
        """
        from sam2long.runs import prompting

        own, search = self.check_prompts(start)
        if search is not None:
            return search
        given = self.pointing.of_file(video) or own
        imported = self.pointing.imported(video)
        both = {(prompt.frame, prompt.obj_id) for prompt in given} & {(p.frame, p.obj_id) for p in imported}
        if both:
            frame, obj_id = min(both)
            raise PromptError(
                f"object {obj_id} on frame {frame} is prompted here and in {self.pointing.import_}; leave one of the "
                "two out"
            )
        if imported:
            frames = sorted({prompt.frame for prompt in imported})
            listed = ", ".join(map(str, frames[:10])) + (", ..." if len(frames) > 10 else "")
            s = "s" if len(frames) > 1 else ""
            self.say(f"{len(imported)} prompts from {self.pointing.import_}, on frame{s} {listed}")
        if note := prompting.numbered_otherwise([*given, *imported]):
            self.say(note)
        return [*given, *imported]

    def check_prompts(self, start: int) -> tuple[list[ObjectPrompt], Everything | Words | None]:
        """The prompts of --box, --point and --mask, and the search of --auto or --text.

        Raises:
            PromptError: flags that contradict each other, or none of them.
        """
        frame, pointing = self.frames.frame, self.pointing
        own, search = pointing.own(start if frame is None else frame), self.finding.search(frame)
        ways = {
            "--prompts": pointing.prompts is not None, "--auto": self.finding.auto,
            "--text": self.finding.text is not None, "--box, --point or --mask": bool(own),
        }  # fmt: skip
        chosen = [way for way, is_used in ways.items() if is_used]
        if not chosen and pointing.import_ is None:
            raise PromptError(
                "nothing to track: say where the object is with --box, --point, --mask, --prompts, --import or --auto, "
                "or what it is with --text"
            )
        if pointing.import_ is not None and search is not None:
            raise PromptError(f"{chosen[-1]} does not go with --import, for both number their objects; choose one")
        if len(chosen) > 1:
            raise PromptError(f"{' and '.join(chosen)} exclude each other; several objects go into --prompts")
        if pointing.label is not None and not own:
            raise PromptError("--label names the object of --box, --point or --mask; leave it out without them")
        if frame is not None and not own and search is None:
            way = "--prompts" if pointing.prompts is not None else "--import"
            raise PromptError(f"--frame does not go with {way}, where every prompt names its own frame")
        return own, search

    def say(self, text: str) -> None:
        if not self.quiet:
            print(text, flush=True)
