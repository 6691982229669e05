"""What a user can do to a project. Everything here runs in one thread, which owns the model (jobs.py).

The project holds what the user sees: prompts, and a mask for each frame and object. The tracker holds what it needs to
go on. Every action changes both, and is on disk when it returns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sam2long.errors import PromptError, StateError
from sam2long.export.masks import encode_mask
from sam2long.imports import ObjectPrompt
from sam2long.known import Row
from sam2long.tracking.prompts import check_frame
from sam2long.tracking.report import ABSENT, VISIBLE
from sam2long.tracking.tracked_object import UserPrompt
from sam2long.ui.project import Project
from sam2long.ui.prompt import AnnotatedObject, Prompt
from sam2long.ui.store import Rle, is_empty
from sam2long.ui.tracking import Progress, Tracker

ANYONE = ""  # a page that is not known by name
MOST_UNDO = 100  # steps; each keeps a mask of the decoder on the device


class Outdated(StateError):
    """Somebody else has changed what was to be changed."""


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
        self.project, self.changed = project, changed
        self.source = project.source
        self.tracker = Tracker(project, predictor, changed, progressed)
        self._undo: list[Before] = []
        self._page = ANYONE
        self._seen: int | None = None

    def asked_by(self, page: str, seen: int | None) -> None:
        """Whose request is carried out next.

        Args:
            page: any name that tells pages apart.
            seen: the revision that it has seen. What another page has changed since is not replaced unseen.
        """
        self._page, self._seen = page, seen

    @property
    def undo_steps(self) -> int:
        return len(self._undo)

    def close(self) -> None:
        """Save what the next start needs."""
        self.tracker.save()
        self.project.finish_files()

    # ---- objects ------------------------------------------------------------------------------------------------

    def new_object(self, name: str = "", label: str = "", colour: str = "") -> AnnotatedObject:
        with self.project.changing():
            return self.project.add_object(
                AnnotatedObject(id=self.project.next_id, name=name, label=label, colour=colour)
            )

    def change_object(self, obj_id: int, **fields: Any) -> AnnotatedObject:
        """Change name, label or colour."""
        with self.project.changing():
            return self.project.add_object(dataclasses.replace(self.project.check_object(obj_id), **fields))

    def remove_object(self, obj_id: int) -> None:
        """Forget an object with its prompts and masks."""
        self.project.check_object(obj_id)
        self._check_seen(obj_id)
        with self.project.changing():
            self._forget(obj_id)
            self.project.remove_object(obj_id)
        self._forgotten(obj_id)

    def reset_object(self, obj_id: int) -> None:
        """Forget an object's prompts and masks; its name stays."""
        self.project.check_object(obj_id)
        self._check_seen(obj_id)
        with self.project.changing():
            self._forget(obj_id)
        self._forgotten(obj_id)

    def reset(self, keep_masks: bool = False) -> None:
        """Forget all prompts and what has been tracked; objects keep their names, and their masks when asked for."""
        obj_ids = list(self.project.objects)
        for obj_id in obj_ids:
            self._check_seen(obj_id)
        with self.project.changing():
            self._forget(*obj_ids, masks=not keep_masks)
        self._forgotten(*obj_ids)
        self.tracker.reset()

    def _forget(self, *obj_ids: int, masks: bool = True) -> None:
        for obj_id in obj_ids:
            for frame in list(self.project.prompts[obj_id]):
                self.project.set_prompt(obj_id, frame, None, self._page)
            self.project.stale[obj_id].clear()
        if masks:
            self.project.store.drop(*obj_ids)

    def _forgotten(self, *obj_ids: int) -> None:
        """The disk has it: now the tracker may forget them, too."""
        for obj_id in obj_ids:
            self.tracker.remove(obj_id)
        self._undo = [step for step in self._undo if step.obj_id not in obj_ids]
        self.changed(-1, list(obj_ids))

    # ---- prompts ------------------------------------------------------------------------------------------------

    def click(self, obj_id: int, frame: int, x: float, y: float, positive: bool) -> None:
        """A point that is the object, or is not."""
        self._check(obj_id, frame)
        self._check_inside(x, y)
        said = self.project.prompt(obj_id, frame) or Prompt()
        if said.mask is not None:  # points are added to points, and take the place of a mask
            self._check_seen(obj_id, frame)
        mask = self.project.store.mask(frame, obj_id)
        if not positive and not said.points and said.box is None and (mask is None or is_empty(mask)):
            raise PromptError("say first what the object is: a positive point (q) or a box (r); then what it is not")
        prompt = Prompt(points=(*said.points, (x, y)), labels=(*said.labels, int(positive)), box=said.box)
        self._prompt(frame, {obj_id: prompt})

    def box(self, obj_id: int, frame: int, box: Sequence[float]) -> None:
        """A box around the object; clicks on this frame stay."""
        self._check(obj_id, frame)
        self._check_seen(obj_id, frame)
        said = self.project.prompt(obj_id, frame) or Prompt()
        x1, y1, x2, y2 = box
        width, height = self.source.width, self.source.height
        corners = max(min(x1, x2), 0), max(min(y1, y2), 0), min(max(x1, x2), width), min(max(y1, y2), height)
        self._prompt(frame, {obj_id: Prompt(points=said.points, labels=said.labels, box=corners)})

    def mask(self, obj_id: int, frame: int, mask: np.ndarray) -> None:
        """A mask [H, W] bool, drawn elsewhere."""
        self._check(obj_id, frame)
        self._check_seen(obj_id, frame)
        self._prompt(frame, {obj_id: Prompt(mask=encode_mask(mask))})

    def take(self, frame: int, prompts: Sequence[ObjectPrompt]) -> None:
        """Prompts of a frame that another editor has written; objects that are new are made."""
        check_frame(frame, self.source.num_frames)
        for prompt in prompts:
            self._check_seen(prompt.obj_id, frame)
        new = [
            AnnotatedObject(id=prompt.obj_id, label=prompt.label)
            for prompt in prompts
            if prompt.obj_id not in self.project.objects
        ]
        self._prompt(frame, {prompt.obj_id: Prompt.from_object_prompt(prompt) for prompt in prompts}, new)

    def lock(self, obj_id: int, frame: int) -> None:
        """Take the mask that a frame has for a prompt: a good frame to remember, whatever follows."""
        self._check(obj_id, frame)
        self._check_seen(obj_id, frame)
        mask = self.project.store.mask(frame, obj_id)
        if mask is None or is_empty(mask):
            raise PromptError(f"object {obj_id} has no mask on frame {frame} that could be locked; go to one that has")
        self._prompt(frame, {obj_id: Prompt(mask=mask)})

    def clear(self, obj_id: int, frame: int) -> None:
        """Take back what was said of an object on a frame, and the mask that came of it."""
        self._check(obj_id, frame)
        self._check_seen(obj_id, frame)
        if self.project.prompt(obj_id, frame) is None:
            raise PromptError(f"object {obj_id} has no prompt on frame {frame}; there is nothing to clear")
        tracked = next(
            (s for s in self._undo if (s.obj_id, s.frame, s.prompt) == (obj_id, frame, None) and s.mask is not None),
            None,
        )
        before = self._before(obj_id, frame)
        with self.project.changing():
            self.project.set_prompt(obj_id, frame, None, self._page)
            self.project.mark_stale(obj_id, frame)
            if tracked is None:
                self.project.store.drop_frame(obj_id, frame)
            elif tracked.mask is not None and tracked.row is not None:  # as the tracker had it before
                self.project.store.put(frame, {obj_id: tracked.mask}, {obj_id: tracked.row})
                self.project.stale[obj_id].add(frame)
        self._remember(before)
        self.tracker.take_back(obj_id, frame)
        if tracked is not None:
            self._track_again(frame, tracked.row)
        self.changed(frame, [obj_id])

    def undo(self) -> tuple[int, int]:
        """Take back the latest change of a prompt; returns object and frame."""
        if not self._undo:
            raise StateError("there is nothing to undo")
        step = self._undo[-1]
        obj_id, frame = step.obj_id, step.frame
        self._check_seen(obj_id, frame)
        with self.project.changing():
            self.project.set_prompt(obj_id, frame, step.prompt, self._page)
            if step.passes == self.tracker.passes:
                self.project.stale[obj_id] = set(step.stale)
            else:
                self.project.mark_stale(obj_id, frame)
            if step.mask is None or step.row is None:
                self.project.store.drop_frame(obj_id, frame)
            else:
                self.project.store.put(frame, {obj_id: step.mask}, {obj_id: step.row})
        self._undo.pop()
        self._back_to(step)
        self.changed(frame, [obj_id])
        return obj_id, frame

    def _prompt(self, frame: int, prompts: Mapping[int, Prompt], new: Sequence[AnnotatedObject] = ()) -> None:
        """Say where objects are on a frame: all of it is taken, or nothing. new: objects to make first."""
        done: list[Before] = []
        try:
            with self.project.changing():
                for entry in new:
                    self.project.add_object(entry)
                masks, rows = {}, {}
                for obj_id, prompt in prompts.items():
                    before = self._before(obj_id, frame)
                    mask = self.tracker.give(obj_id, frame, prompt)
                    done.append(before)
                    masks[obj_id] = encode_mask(mask)
                    rows[obj_id] = Row(VISIBLE if mask.any() else ABSENT, prompted=True, empty=not mask.any())
                for obj_id, prompt in prompts.items():
                    self.project.set_prompt(obj_id, frame, prompt, self._page)
                    self.project.mark_stale(obj_id, frame)
                self.project.store.put(frame, masks, rows)
        except BaseException:
            for before in reversed(done):
                self._back_to(before)
            raise
        for before in done:
            self._remember(before)
        self.changed(frame, list(prompts))

    def _back_to(self, step: Before) -> None:
        """Let the tracker know of an object on a frame what it knew before."""
        if step.prompt is None:
            self.tracker.take_back(step.obj_id, step.frame)
            if step.mask is not None:
                self._track_again(step.frame, step.row)
        elif step.given is not None:
            self.tracker.put_back(step.obj_id, step.frame, step.given)
        else:
            self.tracker.give(step.obj_id, step.frame, step.prompt)

    def _before(self, obj_id: int, frame: int) -> Before:
        return Before(
            obj_id=obj_id,
            frame=frame,
            prompt=self.project.prompt(obj_id, frame),
            given=self.tracker.given(obj_id, frame),
            mask=self.project.store.mask(frame, obj_id),
            row=self.project.store.row(frame, obj_id),
            stale=frozenset(self.project.stale[obj_id]),
            passes=self.tracker.passes,
        )

    def _remember(self, before: Before) -> None:
        self._undo = [*self._undo[1 - MOST_UNDO :], before]

    def _track_again(self, frame: int, row: Row | None) -> None:
        if row is not None and not row.prompted:
            self.tracker.track_again(frame, row.backward)

    def _check(self, obj_id: int, frame: int) -> None:
        self.project.check_object(obj_id)
        check_frame(frame, self.source.num_frames)

    def _check_seen(self, obj_id: int, frame: int | None = None) -> None:
        """Refuse to replace what another page has said here, or on any frame, since this one looked."""
        changed = [frame] if frame is not None else [at for known, at in self.project.changed_at if known == obj_id]
        for at in changed:
            revision, page = self.project.changed_at.get((obj_id, at), (0, ANYONE))
            if self._seen is not None and revision > self._seen and page != self._page:
                raise Outdated(
                    f"another page has just changed object {obj_id} on frame {at}; look at it, and do it again if it "
                    "is still right"
                )

    def _check_inside(self, x: float, y: float) -> None:
        if not (0 <= x <= self.source.width and 0 <= y <= self.source.height):
            raise PromptError(
                f"the point ({x:g}, {y:g}) lies outside the video of {self.source.width} x {self.source.height} pixels"
            )
