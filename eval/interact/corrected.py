"""One object of a video while it is corrected, as on the page: its masks, its prompts, what the tracker thought."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eval.interact import annotator
from eval.metrics.masks import region_and_boundary
from sam2long.known import Row
from sam2long.meeting import agreement
from sam2long.merging import Known, Merge
from sam2long.tracking.frames import FrameReader
from sam2long.tracking.session import FORWARD, REVERSE

OBJECT = 1


@dataclass(frozen=True, eq=False)
class Clip:
    """A video with the true masks of one object."""

    name: str
    images: np.ndarray  # [T, H, W, 3] uint8
    truth: list[np.ndarray]  # [H, W] bool each

    @property
    def shown(self) -> list[int]:
        return [t for t, mask in enumerate(self.truth) if mask.any()]


class Remembered(FrameReader):
    """Encodes each frame of a video once, for all that is tried on it."""

    def __init__(self, source: Any, model: Any, known: dict[int, Any]) -> None:
        super().__init__(source, model)
        self.known = known

    def sequence(self, start: int, count: int, direction: int, when_asked: bool = True) -> Iterator[Any]:
        return super().sequence(start, count, direction, when_asked=True)

    def features(self, frame: int) -> Any:
        if frame not in self.known:
            (self.known[frame],) = self.encode([self.prepare(self.source.frame(frame))])
        return self.known[frame]


@dataclass(eq=False)
class Corrected:
    """A clip under correction.

    Args:
        predictor: a SAM2LongVideoPredictor. features: of the clip's frames, shared by all that is tried on it.
        both_ways: False: a correction is tracked forward to the end only, as in SAM 2's online setting.
    """

    predictor: Any
    clip: Clip
    features: dict[int, Any] = field(default_factory=dict)
    both_ways: bool = True
    masks: list[np.ndarray] = field(init=False)
    seen: list[Row | None] = field(init=False)
    prompts: dict[int, str] = field(default_factory=dict)
    clicks: int = 0
    frames_tracked: int = 0
    _scores: dict[int, float] = field(default_factory=dict)  # of the masks as they are now

    def __post_init__(self) -> None:
        empty = np.zeros(self.clip.truth[0].shape, bool)
        self.masks = [empty] * len(self.clip.truth)
        self.seen = [None] * len(self.clip.truth)
        self.state = self.predictor.init_state(self.clip.images)
        self._remember()

    def _remember(self) -> None:
        session = self.state.session
        session.reader = Remembered(session.source, session.model, self.features)

    # ---- what the annotator does --------------------------------------------------------------------------------

    def begin(self, kind: str) -> None:
        """Prompt the first frame that shows the object, and track to the end (and to the beginning)."""
        first = self.clip.shown[0]
        mask = annotator.begin(self.predictor, self.state, first, OBJECT, self.clip.truth[first], kind)
        self._set(first, mask, Row(prompted=True))
        self.prompts[first] = kind
        self._track(first, FORWARD, len(self.masks) - 1)

    def correct(self, frame: int, kind: str) -> None:
        """Correct a frame, and track from it both ways as far as the neighbouring prompts."""
        mask, clicks = annotator.correct(
            self.predictor, self.state, frame, OBJECT, self.clip.truth[frame], self.masks[frame], kind
        )
        self.clicks += clicks
        if kind != "mask" and not clicks:
            self.predictor.add_new_mask(self.state, frame, OBJECT, mask)  # all is right: locked
        self._set(frame, mask, Row(prompted=True))
        self.prompts[frame] = kind
        # The tracker has to know the masks that are clicked on next; true masks need no more than the gap.
        whole = kind != "mask"
        after = min((p for p in self.prompts if p > frame and not whole), default=len(self.masks))
        self._track(frame, FORWARD, after - 1)
        before = max((p for p in self.prompts if p < frame and not whole), default=-1)
        if self.both_ways:
            self._track(frame, REVERSE, before + 1)

    def fork(self) -> Corrected:
        """The same once more, to try something else on it."""
        other = copy.copy(self)
        with tempfile.TemporaryDirectory() as folder:
            saved = Path(folder) / "state.safetensors"
            self.predictor.save_state(self.state, saved)
            other.state = self.predictor.load_state(saved, self.clip.images)
        other._remember()
        other.masks, other.seen, other.prompts = list(self.masks), list(self.seen), dict(self.prompts)
        other._scores = dict(self._scores)
        return other

    # ---- scores -------------------------------------------------------------------------------------------------

    def score(self, frame: int) -> float:
        """J&F of one frame, in percent."""
        if frame not in self._scores:
            truth = self.clip.truth[frame].astype(np.uint8)
            self._scores[frame] = 50 * sum(region_and_boundary(truth, self.masks[frame].astype(np.uint8)))
        return self._scores[frame]

    def iou(self, frame: int) -> float:
        """J of one frame, in percent."""
        return 100 * agreement(self.clip.truth[frame], self.masks[frame])

    def j_and_f(self, but: Sequence[int] = ()) -> float:
        """Mean over the frames after the first prompt, the corrected ones included. but: frames left out."""
        first = self.clip.shown[0]
        return float(np.mean([self.score(t) for t in range(first + 1, len(self.masks)) if t not in but]))

    # ---- inside -------------------------------------------------------------------------------------------------

    def _set(self, frame: int, mask: np.ndarray, seen: Row) -> None:
        self.masks[frame], self.seen[frame] = mask, seen
        self._scores.pop(frame, None)

    def _track(self, start: int, direction: int, stop: int) -> None:
        if (stop - start) * direction <= 0:
            return
        merge: Merge[np.ndarray] = Merge(direction, start, self.prompts, (), agreement)
        results = self.predictor.propagate_in_video(
            self.state, start_frame_idx=start, max_frame_num_to_track=abs(stop - start), reverse=direction < 0
        )
        for frame, _, logits in results:
            if frame == start:
                continue
            self.frames_tracked += 1
            if frame not in self.prompts:
                self._take(merge, frame, (logits[0, 0] > 0).cpu().numpy(), direction)
        for frame, known in merge.settled():
            self._set(frame, known.mask, known.row)

    def _take(self, merge: Merge[np.ndarray], frame: int, mask: np.ndarray, direction: int) -> None:
        track = self.state.session.objects[OBJECT].tracks[direction]
        row = Row.of(track.log.at(track.time(frame)), backward=direction < 0, empty=not mask.any())
        old = self.seen[frame]
        if merge.takes(frame, old and Known(self.masks[frame], old), Known(mask, row)):
            self._set(frame, mask, row)
