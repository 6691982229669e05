"""The tracker behind a project: its state on disk and back, prompts, passes over the video."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from sam2long.errors import PromptError, Sam2LongError, StateError
from sam2long.export.masks import decode_mask, encode_mask
from sam2long.known import Row
from sam2long.merging import Changes, Known, Merge, together
from sam2long.runs.states import StateSaver
from sam2long.tracking.prompts import check_frame, require_sense
from sam2long.tracking.session import FORWARD, REVERSE
from sam2long.tracking.tracked_object import UserPrompt
from sam2long.ui.project import Project
from sam2long.ui.prompt import Prompt
from sam2long.ui.store import Rle, is_empty, overlap


class Cancelled(Exception):
    """The user wants to stop; raised between two frames."""


class _Said(NamedTuple):
    """A prompt in pixels."""

    points: Any
    box: Any
    mask: np.ndarray | None


@dataclass(frozen=True, slots=True)
class Progress:
    """Of something long under way."""

    direction: str
    frame: int | None  # read last
    done: int
    total: int


class Tracker:
    """What the predictor knows of a project.

    Args:
        project: holds prompts and masks.
        predictor: a SAM2LongVideoPredictor.
        changed: called with (frame, object ids) whose masks are new.
        progressed: called now and then while tracking.
    """

    def __init__(
        self,
        project: Project,
        predictor: Any,
        changed: Callable[[int, Sequence[int]], None],
        progressed: Callable[[Progress], None],
    ) -> None:
        self.project, self.predictor = project, predictor
        self.source = project.source
        self.passes = 0  # counts the passes over the video
        self.unsaved = False  # whether the state on disk is behind
        self.changes = Changes()  # of the last `propagate`
        self._changed, self._progressed = changed, progressed
        self._saver = StateSaver(project.folder.resume)
        self.state = self._opened()

    # ---- on disk ------------------------------------------------------------------------------------------------

    def _opened(self) -> Any:
        """The saved state when it goes with the prompts, or else a new one that is given the prompts again."""
        saved = self.project.saved_state
        if saved and saved[1] == self.project.revision and (file := self.project.folder.resume / saved[0]).is_file():
            with contextlib.suppress(Sam2LongError):  # of another model or version: then it starts anew
                return self.predictor.load_state(file, self.source)
        state = self.predictor.init_state(self.source)
        for obj_id, prompts in self.project.prompts.items():
            for frame, prompt in sorted(prompts.items()):
                # The mask that the user saw, and not what the clicks give without the frames before them.
                mask = self.project.store.mask(frame, obj_id)
                if mask is not None and not is_empty(mask):
                    prompt = Prompt(mask=mask)
                with contextlib.suppress(PromptError):  # a mask of a few pixels: the other frames go on
                    self._given(state, obj_id, frame, prompt)
        return state

    def save(self) -> None:
        """The tracker's state, to disk, when prompts or tracks have changed since."""
        if not self.unsaved or not self.state.session.objects:
            return
        self._saver.save(self.predictor, self.state, f"{self.project.revision}-{os.getpid()}", self._record)
        self.unsaved = False

    def _record(self, name: str) -> None:
        with self.project.changing():
            self.project.saved_state = name, self.project.revision

    # ---- prompts ------------------------------------------------------------------------------------------------

    def give(self, obj_id: int, frame: int, prompt: Prompt) -> np.ndarray:
        """Say where an object is; returns its mask, [H, W] bool: as drawn, or what the tracker makes of the prompt."""
        self.unsaved = True
        made = self._given(self.state, obj_id, frame, prompt)
        return made if prompt.drawn is None else decode_mask(prompt.drawn).astype(bool)

    def _given(self, state: Any, obj_id: int, frame: int, prompt: Prompt) -> np.ndarray:
        require_sense(
            _Said(prompt.points, prompt.box, None if prompt.drawn is None else decode_mask(prompt.drawn)),
            height=self.source.height, width=self.source.width, image_size=self.predictor.image_size,
        )  # fmt: skip
        if prompt.drawn is not None:
            found = self.predictor.add_new_mask(state, frame, obj_id, decode_mask(prompt.drawn))
        else:
            found = self.predictor.add_new_points_or_box(
                state, frame, obj_id, points=list(prompt.points) or None, labels=list(prompt.labels) or None,
                box=prompt.box,
            )  # fmt: skip
        _, obj_ids, logits = found
        return (logits[obj_ids.index(obj_id), 0] > 0).cpu().numpy()

    def take_back(self, obj_id: int, frame: int) -> None:
        """Forget what was said of an object on a frame; one without prompts is none to the tracker."""
        self.unsaved = True
        tracked = self.state.session.objects.get(obj_id)
        if tracked is not None and set(tracked.prompts) <= {frame}:
            self.predictor.remove_object(self.state, obj_id, need_output=False)
        elif tracked is not None:
            self.predictor.clear_all_prompts_in_frame(self.state, frame, obj_id, need_output=False)

    def put_back(self, obj_id: int, frame: int, given: UserPrompt) -> None:
        """Undo: let what the tracker made of an earlier prompt count again."""
        self.unsaved = True
        self.state.session.put_back(frame, obj_id, given)

    def track_again(self, frame: int, backward: bool) -> None:
        """After a prompt was taken back from a tracked frame: the next one there is a correction again, with the
        tracked mask and the frames before it to go by."""
        with contextlib.suppress(StateError):  # no prompt is left anywhere
            for _ in self._tracked(-1 if backward else 1, frame, frame):
                pass

    def given(self, obj_id: int, frame: int) -> UserPrompt | None:
        """What the tracker made of a prompt."""
        tracked = self.state.session.objects.get(obj_id)
        return tracked.prompts.get(frame) if tracked else None

    def remove(self, obj_id: int) -> None:
        self.unsaved = True
        self.predictor.remove_object(self.state, obj_id, need_output=False)

    def reset(self) -> None:
        self.unsaved = True
        self.predictor.reset_state(self.state)

    # ---- tracking -----------------------------------------------------------------------------------------------

    def check_can_track(self, only: Sequence[int] | None = None) -> None:
        """Raise when there is nothing to track."""
        for obj_id in only or ():
            self.project.check_object(obj_id)
            if not self.project.prompts[obj_id]:
                raise StateError(f"object {obj_id} has no prompt; click on it first")
        if not any(self.project.prompts.values()):
            raise StateError("nothing to track: click on an object first")

    def ways(self, direction: str, start: int, end: int | None = None) -> list[tuple[int, int]]:
        """(1 or -1, the last frame) of each way to go.

        Raises:
            PromptError: a frame that is not there, or lies in the other direction.
        """
        last = len(self.source) - 1
        check_frame(start, self.source.num_frames)
        ways = {
            "forward": [(1, last if end is None else end)],
            "backward": [(-1, 0 if end is None else end)],
            "both": [(1, last), (-1, 0)],
        }[direction]
        for sign, stop in ways:
            if (check_frame(stop, self.source.num_frames) - start) * sign < 0:
                raise PromptError(f"frame {stop} is not {direction} of frame {start}; choose the other direction")
        return ways

    def propagate(
        self,
        direction: str,
        start: int,
        end: int | None = None,
        only: Sequence[int] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> int:
        """Track from a frame on. Stopped in between, it keeps the frames done.

        Args:
            direction: "forward", "backward", or "both": first one way and then the other, and what has come from the
                neighbouring prompts stays beyond where the passes meet (see `Merge`).
            start: the first frame. end: the last one, included; None for the end of the video. Not with "both".
            only: objects whose masks are replaced; None for all.
            cancelled: asked before each frame.
        Returns:
            how many frames have new masks.
        """
        self.check_can_track(only)
        ways = self.ways(direction, start, end)
        total = 1 + sum(abs(stop - start) for _, stop in ways)
        self.project.write_info(running=True)
        done: set[int] = set()
        changes: list[Changes] = []
        for sign, stop in ways:
            if not cancelled():
                with self.project.lock:
                    merges = {
                        obj_id: Merge(
                            sign, start, prompts, self.project.stale[obj_id], overlap, meets=direction == "both"
                        )
                        for obj_id, prompts in self.project.prompts.items()
                    }
                self._pass(sign, start, stop, only, cancelled, done, total, merges)
                changes += [merge.changes for merge in merges.values()]
        self.changes = together(changes)
        self.save()
        self.project.write_info()
        return len(done)

    def _pass(
        self,
        sign: int,
        start: int,
        stop: int,
        only: Sequence[int] | None,
        cancelled: Callable[[], bool],
        done: set[int],
        total: int,
        merges: dict[int, Merge[Rle]],
    ) -> None:
        """One way through the video; adds the frames that it gave to `done`."""
        name = "forward" if sign > 0 else "backward"
        read: list[int] = []
        before = len(done - {start})  # of the other way, which began on the same frame
        next_frame = start
        self.passes += 1
        self.unsaved = True

        def before_frame(frame: int) -> None:
            if cancelled():
                raise Cancelled
            read[:] = [frame]
            self._progressed(Progress(name, frame, min(before + abs(frame - start) + 1, total), total))
            if self._saver.is_due():
                self.save()
                self.unsaved = True

        try:
            with self.state.session.calling(before_frame):
                for frame, logits in self._tracked(sign, start, stop):
                    done |= self._keep(sign, frame, logits, only, merges)
                    next_frame = frame + sign
        except Cancelled:
            # Frames done on which the hypotheses do not agree yet: the best one decides.
            if read and (read[0] - next_frame) * sign >= 0:
                for frame, logits in self._tracked(sign, next_frame, read[0]):
                    done |= self._keep(sign, frame, logits, only, merges)
        finally:
            self._settle(merges)
            self.project.save()

    def _settle(self, merges: Mapping[int, Merge[Rle]]) -> None:
        """Where two passes have been over the same frames, store what stays of both."""
        for obj_id, merge in merges.items():
            for frame, known in merge.settled():
                self.project.store.put(frame, {obj_id: known.mask}, {obj_id: known.row})
                self._changed(frame, [obj_id])

    def _tracked(self, sign: int, start: int, stop: int) -> Iterator[tuple[int, torch.Tensor]]:
        if sign < 0 and start == 0:
            return  # sam2 tracks nothing backward from the first frame
        results = self.predictor.propagate_in_video(
            self.state, start_frame_idx=start, max_frame_num_to_track=abs(stop - start), reverse=sign < 0
        )
        with contextlib.closing(results):
            for frame, _, logits in results:
                yield frame, logits

    def _keep(
        self, sign: int, frame: int, logits: torch.Tensor, only: Sequence[int] | None, merges: Mapping[int, Merge[Rle]]
    ) -> set[int]:
        """Store the masks of a frame that are to be seen at once; returns the frame when the pass has found any."""
        before = self.project.store.masks(frame)
        masks: dict[int, Rle] = {}
        rows: dict[int, Row] = {}
        any_found: set[int] = set()
        direction = FORWARD if sign > 0 else REVERSE
        found = (logits[:, 0] > 0).cpu().numpy()
        for (obj_id, tracked), mask in zip(self.state.session.objects.items(), found, strict=True):
            prompted = sorted(self.project.prompts[obj_id])
            # Before its first prompt nothing is known of an object (after its last one, as time runs backward).
            known = frame >= prompted[0] if sign > 0 else frame <= prompted[-1]
            if not known or (only is not None and obj_id not in only):
                continue
            track = tracked.tracks[direction]
            report = track.log.at(track.time(frame))
            prompt = self.project.prompt(obj_id, frame)
            drawn = prompt.drawn if prompt else None
            rle = drawn or encode_mask(mask)
            row = Row.of(report, backward=sign < 0, empty=is_empty(drawn) if drawn else not mask.any())
            any_found = {frame}
            old = self.project.store.row(frame, obj_id)
            if merges[obj_id].takes(frame, old and Known(before[obj_id], old), Known(rle, row)):
                masks[obj_id], rows[obj_id] = rle, row
        if not masks:
            return any_found
        self.project.store.put(frame, masks, rows)
        with self.project.lock:
            for obj_id in masks:
                self.project.stale[obj_id].discard(frame)
        self._changed(frame, list(masks))
        return any_found
