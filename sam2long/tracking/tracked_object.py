"""One object of a video: its prompts, and a track for each direction that has been asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from sam2long.method.memory import PROMPTED_LOGIT, FrameMemory
from sam2long.network.protocol import Points, PromptOutput
from sam2long.tracking.checkpoints import Checkpoints
from sam2long.tracking.track import Prompted, Track
from sam2long.tracking.window import Window

CONTRADICTS_BELOW = 0.5  # IoU of a correction with what was tracked: less means another object, not a better outline


@dataclass(frozen=True, slots=True, eq=False)
class UserPrompt:
    """What the user gave for one object on one frame, and what SAM 2 made of it. Masks are of `view`."""

    points: Points | None  # coordinates [1, n, 2] in model pixels of the whole picture, labels [1, n]
    mask: Tensor | None  # bool [S, S]
    output: PromptOutput
    object_logit: float
    seen_from_before: bool  # given before anything was tracked: frames before it may attend to it too
    corrects: int | None = None  # the direction of the pass that had tracked this frame already
    tracked: Tensor | None = None  # bool [1, 1, 4h, 4w]: the object as that pass had it
    contradicts: bool = False  # whether that was something else: see `contradicts`
    mask_features: Tensor | None = None  # its spatial memory, once it is needed
    view: Window | None = None  # None: the whole picture
    scattered: bool = False  # whether it marks things in a window that are far from each other

    def for_track(self, time: int) -> Prompted:
        return Prompted(
            mask=self.output.mask,
            object_logit=self.object_logit,
            memory=FrameMemory(
                time=time,
                mask_features=self.mask_features,
                object_ptr=self.output.object_ptr,
                iou=1.0,
                object_logit=PROMPTED_LOGIT,
            ),
            seen_from_before=self.seen_from_before,
            starts_afresh=self.contradicts,
            view=self.view,
            scattered=self.scattered,
        )


def contradicts(prompted: Tensor, tracked: Tensor | None) -> bool:
    """Whether the tracker was after something else: it had a mask on this frame, and hardly any of it is left.

    Args:
        prompted: logits of the mask that the prompt gave. tracked: bool; the mask before.
    """
    if tracked is None or not tracked.any():
        return False
    prompted = prompted > 0
    return float((prompted & tracked).sum() / (prompted | tracked).sum()) < CONTRADICTS_BELOW


@dataclass(eq=False)
class TrackedObject:
    """One object: its prompts, and a track for each direction that has been asked for.

    When prompts change, tracks stay as the last pass left them until the next one begins: what a user still sees can
    be corrected further.
    """

    prompts: dict[int, UserPrompt] = field(default_factory=dict)  # by frame
    tracks: dict[int, Track] = field(default_factory=dict)  # by direction; the latest pass is the last
    checkpoints: dict[int, Checkpoints] = field(default_factory=dict)  # by direction
    last_seen: dict[int, int] = field(default_factory=dict)  # frame -> direction it was handed out in last, of two

    @property
    def is_stale(self) -> bool:
        """Whether prompts have changed since the last pass."""
        return any(track.stale_after is not None for track in self.tracks.values())

    def tracked_in(self, frame: int) -> int | None:
        """The direction in which a frame has been tracked already; of two, the one whose mask was seen last."""
        last = self.last_seen.get(frame, next(reversed(self.tracks), None))
        for direction, track in sorted(self.tracks.items(), key=lambda each: each[0] != last):
            time = track.time(frame)
            if track.stale_after is not None and time in track.prompts:
                continue  # its prompt has been taken back: nothing was tracked there
            if track.log.rank_at(time) is not None or track.waits(time):
                return direction
        return None

    def has_been_tracked(self) -> bool:
        """Whether any frame has been handed out that still follows from the prompts."""
        return any(True for track in self.tracks.values() for _ in track.reports())

    def prompts_changed(self, frame: int, everywhere: bool) -> None:
        """What was tracked from `frame` on is stale, what came before stays.

        Args:
            everywhere: frames before it may attend to the prompt too, so all of the track is stale.
        """
        for track in self.tracks.values():
            good = track.time(frame) - 1
            first = track.log.first()
            if everywhere and first is not None:
                good = first - 1
            track.stale_after = good if track.stale_after is None else min(good, track.stale_after)

    def forget_stale(self) -> None:
        """Let tracks end where they no longer follow from the prompts."""
        for direction, track in self.tracks.items():
            if track.stale_after is not None:
                self.checkpoints[direction].drop_after(track.stale_after)
                track.forget_stale()

    def follow_prompts(self) -> None:
        """Have tracks go by the prompts as they are now; all have their memories."""
        self.forget_stale()
        for track in self.tracks.values():
            track.prompts = {
                track.time(frame): prompt.for_track(track.time(frame)) for frame, prompt in self.prompts.items()
            }
