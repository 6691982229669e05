"""One object of a video: what was said of it, its tracks, and what the last pass said for prompts to correct."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from sam2long.method.memory import PROMPTED_LOGIT, FrameMemory
from sam2long.network.tracker_model import Points, PromptOutput
from sam2long.tracking.checkpoints import Checkpoints
from sam2long.tracking.track import Prompted, Track

CONTRADICTS_BELOW = 0.5  # IoU of a correction with what was tracked: less means another object, not a better outline


@dataclass(frozen=True, slots=True, eq=False)
class UserPrompt:
    """What the user said of one object on one frame, and what SAM 2 made of it."""

    points: Points | None  # coordinates [1, n, 2] in model pixels, labels [1, n]
    mask: Tensor | None  # bool [S, S]
    output: PromptOutput
    object_logit: float
    seen_from_before: bool  # given before anything was tracked: frames before it may attend to it too
    corrects: int | None = None  # the direction of the pass that had tracked this frame already
    tracked: Tensor | None = None  # bool [1, 1, 4h, 4w]: the object as that pass had it
    contradicts: bool = False  # whether that was something else: see `contradicts`
    mask_features: Tensor | None = None  # its spatial memory, once it is needed

    def for_tracker(self, frame: int) -> Prompted:
        return Prompted(
            mask=self.output.mask,
            object_logit=self.object_logit,
            memory=FrameMemory(
                frame=frame,
                mask_features=self.mask_features,
                object_ptr=self.output.object_ptr,
                iou=1.0,
                object_logit=PROMPTED_LOGIT,
            ),
            seen_from_before=self.seen_from_before,
            starts_afresh=self.contradicts,
        )


def contradicts(said: Tensor, tracked: Tensor | None) -> bool:
    """Whether the tracker was after something else: it had a mask on this frame, and hardly any of it is left.

    Args:
        said: logits of the prompted mask. tracked: bool; the mask before.
    """
    if tracked is None or not tracked.any():
        return False
    said = said > 0
    return float((said & tracked).sum() / (said | tracked).sum()) < CONTRADICTS_BELOW


@dataclass(eq=False)
class TrackedObject:
    """One object: its prompts, and a track for each direction that has been asked for."""

    prompts: dict[int, UserPrompt] = field(default_factory=dict)
    tracks: dict[int, Track] = field(default_factory=dict)
    checkpoints: dict[int, Checkpoints] = field(default_factory=dict)
    replaced: dict[int, tuple[Track, Checkpoints]] = field(default_factory=dict)  # as the last pass left them

    def past(self, direction: int) -> tuple[Track, Checkpoints]:
        """What the last pass said, for further prompts to correct, whatever prompts since have made stale of it."""
        return self.replaced.get(direction) or (self.tracks[direction], self.checkpoints[direction])

    def tracked_in(self, frame: int) -> int | None:
        """The direction in which a frame has been tracked already, the latest one first."""
        for direction in reversed(self.tracks):
            track, _ = self.past(direction)
            if direction in self.replaced and frame in track.prompts:
                continue  # its prompt has been taken back: nothing was tracked there
            if track.log.slot_of(frame) is not None or frame in track.frames:
                return direction
        return None

    def has_been_tracked(self) -> bool:
        return any(len(track.log) for track in self.tracks.values())

    def stale_from(self, frame: int, everywhere: bool) -> None:
        """Its prompts on `frame` have changed: what was tracked from there on is stale, what came before stays.

        Args:
            everywhere: frames before it may attend to the prompt too, so all of the track is stale.
        """
        for direction, track in self.tracks.items():
            if direction not in self.replaced:
                self.replaced[direction] = track.copy(), self.checkpoints[direction].copy()
            last_good = frame - direction
            if everywhere and len(track.log):
                last_good = track.log.first_frame() - direction
            if track.head is not None and (track.head - last_good) * direction > 0:
                track.stand(None)
            track.log.truncate(last_good, direction)
            self.checkpoints[direction].drop_after(last_good, direction)
