"""What a user can do to a project. Everything here runs in one thread, which owns the model (jobs.py).

The project holds what the user sees: prompts, and a mask for each frame and object. The tracker holds what it needs to
go on. Every action changes both, and is on disk when it returns.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sam2long.errors import PromptError, Sam2LongError, StateError
from sam2long.export.masks import decode_mask, encode_mask
from sam2long.prompts import check_frame
from sam2long.report import ABSENT, VISIBLE
from sam2long.session import FORWARD, REVERSE, UserPrompt
from sam2long.ui.project import AnnotatedObject, Project, Prompt, state_name
from sam2long.ui.store import Rle, Row, is_empty

MOST_UNDO = 100  # steps; each keeps a mask of the decoder on the device
SAVE_SECONDS = 60.0  # while tracking, the state is saved this often, and
SAVE_SHARE = 0.05  # saving may take this share of the time
BOTH = "both"
DIRECTIONS = ("forward", "backward", BOTH)


class Cancelled(Exception):
    """The user wants to stop; raised between two frames."""


@dataclass(frozen=True, slots=True, eq=False)
class Before:
    """How an object was on a frame before a prompt changed."""

    obj_id: int
    frame: int
    prompt: Prompt | None  # what the project had
    given: UserPrompt | None  # what the tracker made of it; None also after the project was opened again
    mask: Rle | None
    row: Row | None
    stale: frozenset[int]  # of the object, anywhere
    passes: int  # how often had been tracked


@dataclass(frozen=True, slots=True)
class Progress:
    """Of a propagation under way."""

    direction: str
    frame: int  # read last
    done: int
    total: int


class Annotator:
    """A project and its tracker.

    Args:
        project: opened by the caller, who also closes it.
        predictor: a SAM2LongVideoPredictor.
        changed: called with (frame, object ids) whose masks are new.
        progressed: called now and then while tracking.
    """

    def __init__(
        self,
        project: Project,
        predictor: Any,
        changed: Callable[[int, Sequence[int]], None] = lambda frame, obj_ids: None,
        progressed: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self.project, self.predictor = project, predictor
        self.changed, self.progressed = changed, progressed
        self.source = project.source
        self._undo: list[Before] = []
        self._passes = 0
        self._unsaved = False  # whether the state on disk is behind
        self._saved_at, self._save_cost = time.monotonic(), 0.0
        self.state = self._opened()

    @property
    def undo_steps(self) -> int:
        return len(self._undo)

    # ---- the tracker's state ------------------------------------------------------------------------------------

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
                    self._give(state, obj_id, frame, prompt)
        return state

    def save_state(self) -> None:
        """The tracker's state, to disk, when prompts or tracks have changed since."""
        if not self._unsaved or not self.state.session.objects:
            return
        begun = time.monotonic()
        resume = self.project.folder.resume
        resume.mkdir(exist_ok=True)
        before = set(resume.glob("state-*.safetensors"))
        name = state_name(self.project.revision)
        self.predictor.save_state(self.state, resume / name)
        self.project.saved_state = name, self.project.revision
        self.project.save()
        for old in before - {resume / name}:
            old.unlink(missing_ok=True)
        self._unsaved = False
        self._saved_at = time.monotonic()
        self._save_cost = self._saved_at - begun

    def close(self) -> None:
        """Save what the next start needs."""
        self.save_state()
        self.project.finish_files()

    # ---- objects ------------------------------------------------------------------------------------------------

    def new_object(self, name: str = "", label: str = "", colour: str = "") -> AnnotatedObject:
        entry = AnnotatedObject(id=self.project.next_id, name=name, label=label, colour=colour)
        entry = self.project.add_object(entry)
        self.project.save()
        return entry

    def change_object(self, obj_id: int, **fields: str) -> AnnotatedObject:
        """Change name, label or colour."""
        entry = self.project.add_object(dataclasses.replace(self._object(obj_id), **fields))
        self.project.save()
        return entry

    def remove_object(self, obj_id: int) -> None:
        """Forget an object with its prompts and masks."""
        self._object(obj_id)
        self._forget(obj_id)
        self.project.remove_object(obj_id)
        self._masks_gone(obj_id)

    def reset_object(self, obj_id: int) -> None:
        """Forget an object's prompts and masks; its name stays."""
        self._object(obj_id)
        self._forget(obj_id)
        self._masks_gone(obj_id)

    def reset(self, keep_masks: bool = False) -> None:
        """Forget all prompts and what has been tracked; objects keep their names, and their masks when asked for."""
        for obj_id in list(self.project.objects):
            self._forget(obj_id)
        self.predictor.reset_state(self.state)
        self.project.save()
        if not keep_masks:
            self.project.store.drop(*self.project.objects)
        self.changed(-1, list(self.project.objects))

    def _object(self, obj_id: int) -> AnnotatedObject:
        if obj_id not in self.project.objects:
            known = ", ".join(map(str, self.project.objects)) or "none yet"
            raise StateError(f"there is no object {obj_id}; the objects are: {known}")
        return self.project.objects[obj_id]

    def _forget(self, obj_id: int) -> None:
        self.predictor.remove_object(self.state, obj_id, need_output=False)
        for frame in list(self.project.prompts[obj_id]):
            self.project.set_prompt(obj_id, frame, None)
        self.project.stale[obj_id].clear()
        self._undo = [step for step in self._undo if step.obj_id != obj_id]

    def _masks_gone(self, obj_id: int) -> None:
        self.project.save()
        self.project.store.drop(obj_id)
        self.changed(-1, [obj_id])

    # ---- prompts ------------------------------------------------------------------------------------------------

    def click(self, obj_id: int, frame: int, x: float, y: float, positive: bool) -> None:
        """A point that is the object, or is not."""
        self._object(obj_id)
        frame = check_frame(frame, self.source.num_frames)
        self._check_inside(x, y)
        said = self.project.prompt(obj_id, frame) or Prompt()
        mask = self.project.store.mask(frame, obj_id)
        if not positive and not said.points and said.box is None and (mask is None or is_empty(mask)):
            raise PromptError("say first what the object is: a positive point (q) or a box (r); then what it is not")
        prompt = Prompt(points=(*said.points, (x, y)), labels=(*said.labels, int(positive)), box=said.box)
        self._prompt(obj_id, frame, prompt)

    def box(self, obj_id: int, frame: int, box: Sequence[float]) -> None:
        """A box around the object; clicks on this frame stay."""
        self._object(obj_id)
        frame = check_frame(frame, self.source.num_frames)
        said = self.project.prompt(obj_id, frame) or Prompt()
        x1, y1, x2, y2 = box
        width, height = self.source.width, self.source.height
        corners = max(min(x1, x2), 0), max(min(y1, y2), 0), min(max(x1, x2), width), min(max(y1, y2), height)
        self._prompt(obj_id, frame, Prompt(points=said.points, labels=said.labels, box=corners))

    def mask(self, obj_id: int, frame: int, mask: np.ndarray) -> None:
        """A mask [H, W] bool, drawn elsewhere."""
        self._object(obj_id)
        frame = check_frame(frame, self.source.num_frames)
        self._prompt(obj_id, frame, Prompt(mask=encode_mask(mask)))

    def lock(self, obj_id: int, frame: int) -> None:
        """Take the mask that a frame has for a prompt: a good frame to remember, whatever follows."""
        self._object(obj_id)
        frame = check_frame(frame, self.source.num_frames)
        mask = self.project.store.mask(frame, obj_id)
        if mask is None or is_empty(mask):
            raise PromptError(f"object {obj_id} has no mask on frame {frame} that could be locked; go to one that has")
        self._prompt(obj_id, frame, Prompt(mask=mask))

    def clear(self, obj_id: int, frame: int) -> None:
        """Take back what was said of an object on a frame, and the mask that came of it."""
        self._object(obj_id)
        frame = check_frame(frame, self.source.num_frames)
        if self.project.prompt(obj_id, frame) is None:
            raise PromptError(f"object {obj_id} has no prompt on frame {frame}; there is nothing to clear")
        tracked = next(
            (s for s in self._undo if (s.obj_id, s.frame, s.prompt) == (obj_id, frame, None) and s.mask is not None),
            None,
        )
        self._remember(obj_id, frame)
        self._take_back(obj_id, frame)
        self.project.mark_stale(obj_id, frame)
        if tracked is None:
            self.project.store.drop_frame(obj_id, frame)
        else:  # as the tracker had it before anything was said here
            self.project.store.put(frame, {obj_id: tracked.mask}, {obj_id: tracked.row})
            self.project.stale[obj_id].add(frame)
        self._saved_prompt(obj_id, frame)

    def undo(self) -> tuple[int, int]:
        """Take back the latest change of a prompt; returns object and frame."""
        if not self._undo:
            raise StateError("there is nothing to undo")
        step = self._undo.pop()
        obj_id, frame = step.obj_id, step.frame
        session = self.state.session
        if step.prompt is None:
            self._take_back(obj_id, frame)
        elif step.given is not None:
            session.put_back(frame, obj_id, step.given)
        else:
            self._give(self.state, obj_id, frame, step.prompt)
        self.project.set_prompt(obj_id, frame, step.prompt)
        if step.passes == self._passes:
            self.project.stale[obj_id] = set(step.stale)
        else:
            self.project.mark_stale(obj_id, frame)
        if step.mask is None:
            self.project.store.drop_frame(obj_id, frame)
        else:
            self.project.store.put(frame, {obj_id: step.mask}, {obj_id: step.row})
        self._saved_prompt(obj_id, frame)
        return obj_id, frame

    def _prompt(self, obj_id: int, frame: int, prompt: Prompt) -> None:
        before = self._before(obj_id, frame)
        mask = self._give(self.state, obj_id, frame, prompt)
        self._undo = [*self._undo[1 - MOST_UNDO :], before]
        rle = encode_mask(mask)
        row = Row(VISIBLE if mask.any() else ABSENT, prompted=True, empty=not mask.any())
        self.project.set_prompt(obj_id, frame, prompt)
        self.project.store.put(frame, {obj_id: rle}, {obj_id: row})
        self.project.mark_stale(obj_id, frame)
        self._saved_prompt(obj_id, frame)

    def _saved_prompt(self, obj_id: int, frame: int) -> None:
        self._unsaved = True
        self.project.save()
        self.changed(frame, [obj_id])

    def _give(self, state: Any, obj_id: int, frame: int, prompt: Prompt) -> np.ndarray:
        """Pass a prompt to the tracker; returns the mask [H, W] bool that it makes of it."""
        if prompt.mask is not None and not prompt.points and prompt.box is None:
            found = self.predictor.add_new_mask(state, frame, obj_id, decode_mask(prompt.mask))
        else:
            found = self.predictor.add_new_points_or_box(
                state, frame, obj_id, points=list(prompt.points) or None, labels=list(prompt.labels) or None,
                box=prompt.box,
            )  # fmt: skip
        _, obj_ids, logits = found
        return (logits[obj_ids.index(obj_id), 0] > 0).cpu().numpy()

    def _take_back(self, obj_id: int, frame: int) -> None:
        """Of the tracker; an object without prompts is none to it."""
        tracked = self.state.session.objects.get(obj_id)
        if tracked is not None and set(tracked.prompts) <= {frame}:
            self.predictor.remove_object(self.state, obj_id, need_output=False)
        elif tracked is not None:
            self.predictor.clear_all_prompts_in_frame(self.state, frame, obj_id, need_output=False)
        self.project.set_prompt(obj_id, frame, None)

    def _before(self, obj_id: int, frame: int) -> Before:
        tracked = self.state.session.objects.get(obj_id)
        return Before(
            obj_id=obj_id,
            frame=frame,
            prompt=self.project.prompt(obj_id, frame),
            given=tracked.prompts.get(frame) if tracked else None,
            mask=self.project.store.mask(frame, obj_id),
            row=self.project.store.row(frame, obj_id),
            stale=frozenset(self.project.stale[obj_id]),
            passes=self._passes,
        )

    def _remember(self, obj_id: int, frame: int) -> None:
        self._undo = [*self._undo[1 - MOST_UNDO :], self._before(obj_id, frame)]

    def _check_inside(self, x: float, y: float) -> None:
        if not (0 <= x <= self.source.width and 0 <= y <= self.source.height):
            raise PromptError(
                f"the point ({x:g}, {y:g}) lies outside the video of {self.source.width} x {self.source.height} pixels"
            )

    # ---- tracking -----------------------------------------------------------------------------------------------

    def check_can_track(self, only: Sequence[int] | None = None) -> None:
        """Raise when there is nothing to track."""
        for obj_id in only or ():
            self._object(obj_id)
            if not self.project.prompts[obj_id]:
                raise StateError(f"object {obj_id} has no prompt; click on it first")
        if not any(self.project.prompts.values()):
            raise StateError("nothing to track: click on an object first")

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
            direction: "forward", "backward", or "both": first one way and then the other.
            start: the first frame. end: the last one, included; None for the end of the video. Not with "both".
            only: objects whose masks are replaced; None for all.
            cancelled: asked before each frame.
        Returns:
            how many frames have new masks.
        """
        self.check_can_track(only)
        last = self.source.num_frames - 1
        start = check_frame(start, self.source.num_frames)
        ways = [(1, last if end is None else end)] if direction == "forward" else []
        ways = [(-1, 0 if end is None else end)] if direction == "backward" else ways or [(1, last), (-1, 0)]
        for sign, stop in ways:
            if (check_frame(stop, self.source.num_frames) - start) * sign < 0:
                raise PromptError(f"frame {stop} is not {direction} of frame {start}; choose the other direction")
        total = sum(abs(stop - start) + 1 for _, stop in ways)
        self.project.write_info(running=True)
        done = 0
        for sign, stop in ways:
            if not cancelled():
                done += self._pass(sign, start, stop, only, cancelled, done, total)
        self.save_state()
        self.project.write_info()
        return done

    def _pass(
        self,
        sign: int,
        start: int,
        stop: int,
        only: Sequence[int] | None,
        cancelled: Callable[[], bool],
        before: int,
        total: int,
    ) -> int:
        """One way through the video; returns how many frames it gave."""
        name = "forward" if sign > 0 else "backward"
        read: list[int] = []
        kept = 0
        next_frame = start
        self._passes += 1
        self._unsaved = True

        def before_frame(frame: int) -> None:
            if cancelled():
                raise Cancelled
            read[:] = [frame]
            self.progressed(Progress(name, frame, before + min(abs(frame - start) + 1, total), total))
            if time.monotonic() - self._saved_at > max(SAVE_SECONDS, self._save_cost / SAVE_SHARE):
                self.save_state()
                self._unsaved = True

        self.source.before_frame = before_frame
        try:
            for frame, logits in self._tracked(sign, start, stop):
                kept += self._keep(sign, frame, logits, only)
                next_frame = frame + sign
        except Cancelled:
            self.source.before_frame = None
            # Frames done on which the hypotheses do not agree yet: the best one decides.
            if read and (read[0] - next_frame) * sign >= 0:
                for frame, logits in self._tracked(sign, next_frame, read[0]):
                    kept += self._keep(sign, frame, logits, only)
        finally:
            self.source.before_frame = None
            self.project.save()
        return kept

    def _tracked(self, sign: int, start: int, stop: int) -> Iterator[tuple[int, torch.Tensor]]:
        if sign < 0 and start == 0:
            return  # sam2 tracks nothing backward from the first frame
        results = self.predictor.propagate_in_video(
            self.state, start_frame_idx=start, max_frame_num_to_track=abs(stop - start), reverse=sign < 0
        )
        with contextlib.closing(results):
            for frame, _, logits in results:
                yield frame, logits

    def _keep(self, sign: int, frame: int, logits: torch.Tensor, only: Sequence[int] | None) -> int:
        """Store the masks of a frame; 1 when there is one to store."""
        masks: dict[int, Rle] = {}
        rows: dict[int, Row] = {}
        direction = FORWARD if sign > 0 else REVERSE
        found = (logits[:, 0] > 0).cpu().numpy()
        for (obj_id, tracked), mask in zip(self.state.session.objects.items(), found, strict=True):
            prompted = sorted(self.project.prompts[obj_id])
            # Before its first prompt nothing is known of an object (after its last one, as time runs backward).
            known = frame >= prompted[0] if sign > 0 else frame <= prompted[-1]
            if not known or (only is not None and obj_id not in only):
                continue
            report = tracked.tracks[direction].log.at(frame)
            masks[obj_id] = encode_mask(mask)
            rows[obj_id] = Row(
                report.status, report.iou, report.object_logit, report.pathways, report.margin, report.prompted,
                backward=sign < 0, empty=not mask.any(),
            )  # fmt: skip
        if not masks:
            return 0
        self.project.store.put(frame, masks, rows)
        with self.project.lock:
            for obj_id in masks:
                self.project.stale[obj_id].discard(frame)
        self.changed(frame, list(masks))
        return 1
