"""Re-seeding: a detector looks again every N frames, and a lost object may be found by it.

A detection that agrees with a live mask changes nothing. One that contradicts a lost or unsure object becomes a
challenger: it is tracked beside the object, in a tree of its own, and has to win on score for K frames. It also has to
recognise the object where the user marked it. Only then does it count as a prompt of the object, on the frame on which
it was detected; frames wait until that is known. Otherwise nothing has happened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from sam2long.detection import box_iou
from sam2long.errors import ConfigError, PromptError
from sam2long.tracking.report import VISIBLE, FrameReport
from sam2long.tracking.session import FORWARD, REVERSE, Session

Box = Sequence[float]  # x1, y1, x2, y2 in pixels
Found = tuple[Sequence[Box], Sequence[str] | None]  # boxes, best first, and their labels
VideoMasks = tuple[int, list[Any], Tensor]


@dataclass(frozen=True, kw_only=True)
class Reseeding:
    """When a detector is asked, and when it is believed.

    Args:
        detect: takes a frame, [H, W, 3] uint8 RGB, and returns boxes, best first, and labels (or None).
        every: frames between two looks.
        frames: K, the frames in a row that a challenger has to win.
        agreement: IoU of boxes from which a detection and a mask are the same thing.
        recognition: IoU that a challenger's memory has to reach on the object's own prompted frame.
        labels: object id -> what it is called; detections called otherwise are not it. Others take any.
    """

    detect: Callable[[np.ndarray], Found]
    every: int
    frames: int = 5
    agreement: float = 0.3
    recognition: float = 0.25
    labels: Mapping[Any, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.every < 1 or self.frames < 1:
            raise ConfigError(
                f"re-seeding looks every {self.every} frames and asks for {self.frames} to be won; expected 1 or more"
            )

    def look(self, image: np.ndarray) -> list[tuple[Box, str | None]]:
        """(box, label) of what the detector finds in a frame.

        Raises:
            PromptError: what it returned is not boxes and labels.
        """
        found = self.detect(image)
        try:
            boxes, labels = found
            boxes = [tuple(float(number) for number in box) for box in boxes]
            labels = [None] * len(boxes) if labels is None else list(labels)
        except (TypeError, ValueError):
            raise PromptError(f"the detector returned {found!r}; expected boxes [[x1, y1, x2, y2], ...] and labels or "
                              "None") from None  # fmt: skip
        if len(labels) != len(boxes) or not all(len(box) == 4 and all(map(math.isfinite, box)) for box in boxes):
            raise PromptError("the detector returned boxes that are not four numbers each, or another number of labels")
        height, width = image.shape[:2]
        clipped = [(max(0.0, b[0]), max(0.0, b[1]), min(float(width), b[2]), min(float(height), b[3])) for b in boxes]
        return [(b, label) for b, label in zip(clipped, labels, strict=True) if b[2] - b[0] >= 1 and b[3] - b[1] >= 1]


CHALLENGER = "sam2long: challenger of "  # before an object's id: what challengers are called, also in a saved state


def challenger(obj_id: Any) -> str:
    return f"{CHALLENGER}{obj_id!r}"


def is_challenger(obj_id: Any) -> bool:
    return isinstance(obj_id, str) and obj_id.startswith(CHALLENGER)


def propagate(
    predictor: Any,
    state: Any,
    reseeding: Reseeding,
    start_frame_idx: int | None = None,
    max_frame_num_to_track: int | None = None,
    reverse: bool = False,
) -> Iterator[VideoMasks]:
    """As `propagate_in_video`, with re-seeding. Challengers are never yielded.

    Args:
        predictor, state: of this package; the state of a video.
        reseeding: the detector, and its terms.
        start_frame_idx, max_frame_num_to_track, reverse: as for `propagate_in_video`.
    """
    session: Session = state.session
    _drop_challengers(predictor, state)  # of a pass that broke off
    step = REVERSE if reverse else FORWARD
    start = min(f for o in session.objects.values() for f in o.prompts) if start_frame_idx is None else start_frame_idx
    last = 0 if reverse else session.source.num_frames - 1
    if max_frame_num_to_track is not None:
        end = start + step * max_frame_num_to_track
        last = max(end, last) if reverse else min(end, last)
    first, looked = start, None
    while (last - start) * step >= 0:
        results = predictor.propagate_in_video(state, start, abs(last - start), reverse)
        with closing(results):
            for frame, obj_ids, logits in results:
                start = frame + step
                boxes = {}
                if frame != looked and frame != first and (frame - first) % reseeding.every == 0:
                    looked = frame
                    boxes = _contradictions(session, reseeding, frame, obj_ids, logits, step)
                if boxes and frame != last:
                    break
                yield frame, obj_ids, logits
            else:
                return
        stop = frame + step * min(reseeding.frames, abs(last - frame))
        won, frames = _contest(predictor, state, boxes, frame, stop, reverse)
        won = {o: box for o, box in won.items() if _recognised(session, o, frame) >= reseeding.recognition}
        _drop_challengers(predictor, state)
        if not won:
            yield from frames
            start = stop + step
            continue
        for obj_id, box in won.items():
            predictor.add_new_points_or_box(state, frame, obj_id, box=box)
        start = frame


def _drop_challengers(predictor: Any, state: Any) -> None:
    for obj_id in list(filter(is_challenger, state.session.objects)):
        predictor.remove_object(state, obj_id, need_output=False)


def _contradictions(
    session: Session, reseeding: Reseeding, frame: int, obj_ids: Sequence[Any], logits: Tensor, step: int
) -> dict[Any, Box]:
    """Object -> the box of the best detection that is not what the tracker has; only of objects that are lost."""
    masks = (logits[:, 0] > 0).cpu().numpy()
    there = {obj_id: box_of(mask) for obj_id, mask in zip(obj_ids, masks, strict=True) if mask.any()}
    lost = [o for o in obj_ids if frame not in session.objects[o].prompts and _is_lost(session, o, frame, step, there)]
    if not lost:
        return {}
    found = reseeding.look(session.source.frame(frame))
    chosen: dict[Any, Box] = {}
    for obj_id in lost:
        wanted = reseeding.labels.get(obj_id)
        mine = [box for box, label in found if not wanted or label is None or label == wanted]
        if any(box_iou(box, there[obj_id]) >= reseeding.agreement for box in mine if obj_id in there):
            continue  # it is where the detector sees it
        others = [box for other, box in (there | chosen).items() if other != obj_id]
        free = [box for box in mine if all(box_iou(box, other) < reseeding.agreement for other in others)]
        if free:
            chosen[obj_id] = free[0]
    return chosen


def _is_lost(session: Session, obj_id: Any, frame: int, step: int, there: Mapping[Any, Box]) -> bool:
    return obj_id not in there or session.objects[obj_id].tracks[step].log.at(frame).status != VISIBLE


def _contest(
    predictor: Any, state: Any, boxes: Mapping[Any, Box], frame: int, stop: int, reverse: bool
) -> tuple[dict[Any, Box], list[VideoMasks]]:
    """Track the challengers beside the objects; which of them won every frame, and the objects' own masks."""
    step = REVERSE if reverse else FORWARD
    for obj_id, box in boxes.items():
        predictor.add_new_points_or_box(state, frame, challenger(obj_id), box=box)
    own: list[VideoMasks] = []
    for at, obj_ids, logits in predictor.propagate_in_video(state, frame, abs(stop - frame), reverse):
        rows = [row for row, obj_id in enumerate(obj_ids) if not is_challenger(obj_id)]
        own.append((at, [obj_ids[row] for row in rows], logits[rows]))
    objects = state.session.objects

    def score(obj_id: Any, at: int) -> float:
        return _score(objects[obj_id].tracks[step].log.at(at))

    contested = range(frame + step, stop + step, step)
    won = {o: b for o, b in boxes.items() if all(score(challenger(o), at) > max(0.0, score(o, at)) for at in contested)}
    return won, own


def _score(report: FrameReport) -> float:
    """The tree's signed IoU: negative when the object is believed to be absent."""
    return report.iou if report.object_logit > 0 else -report.iou


def _recognised(session: Session, obj_id: Any, frame: int) -> float:
    """How well the challenger's memory alone finds the object on the frame where it was marked: IoU with the prompt."""
    prompts = session.objects[obj_id].prompts
    marked = min(prompts, key=lambda at: abs(at - frame))
    return session.finds(challenger(obj_id), frame, marked, prompts[marked].output.mask)


def box_of(mask: np.ndarray) -> Box:
    """The box around a mask, [H, W] bool, that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def from_detector(detector: Callable[[np.ndarray], Iterable[Any]]) -> Callable[[np.ndarray], Found]:
    """A `sam2long.detection` detector as re-seeding asks it."""

    def detect(image: np.ndarray) -> Found:
        found = list(detector(image))
        return [one.box for one in found], [one.label for one in found]

    return detect
