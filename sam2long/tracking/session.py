"""A video under way: its objects, their prompts and tracks, and how to go on, back or elsewhere in it.

Past frames are not kept. A correction on a frame long gone starts from a checkpoint (checkpoints.py: a bounded number
of them, on disk) and replays the frames in between, which gives the same tensors again.

Callers name frames, here and in `FrameMasks`; in between, time counts upwards as it does in tracks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sam2long.config import Sam2LongConfig
from sam2long.errors import StateError
from sam2long.method import memory
from sam2long.network.batched import Batched
from sam2long.network.devices import Outgoing, moved_together
from sam2long.network.masks import fill_small_holes
from sam2long.network.protocol import Points
from sam2long.tracking.answering import Answering, Shown
from sam2long.tracking.checkpoints import Checkpoints
from sam2long.tracking.close_up import CloseUp, scattered
from sam2long.tracking.frames import FrameReader
from sam2long.tracking.redraw import Redraw
from sam2long.tracking.stills import Stills
from sam2long.tracking.track import NOWHERE, Hypothesis, Track, step, with_settings
from sam2long.tracking.tracked_object import TrackedObject, UserPrompt, contradicts
from sam2long.tracking.window import Window
from sam2long.video import FrameSource

FORWARD, REVERSE = 1, -1
BACK_BYTES = 64 << 20  # of masks that come back from the host at a time


@dataclass(frozen=True, slots=True, eq=False)
class FrameMasks:
    """All objects on one frame, in the order of `Session.objects`."""

    frame: int
    masks: list[Tensor | None]  # [1, 1, 4h, 4w] float32 logits; None: absent
    views: list[Window | None]  # what of the picture each mask is of; None: all


class Session:
    """The state behind `init_state`. Everything lives here and nothing on the model, so sessions do not meet.

    Args:
        source: where frames come from.
        model: the network.
        config: settings; fixed for the session.
        storage: where spatial memories are kept, None for the model's device.
        hole_area: holes up to this many low-resolution pixels are filled in masks; 0 fills none.
        stills: a network for still pictures answers prompts instead of the model: see `stills`.
        redraw: tracked masks are drawn once more by that network: see `redraw`.
        close_up: something small is tracked in a window that goes with it: see `close_up`.
    """

    def __init__(
        self,
        source: FrameSource,
        model: Batched,
        config: Sam2LongConfig,
        *,
        storage: torch.device | None = None,
        hole_area: int = 0,
        stills: bool = False,
        redraw: bool = False,
        close_up: bool = False,
    ) -> None:
        self.source = source
        self.model = model
        self.config = config
        self.storage = storage
        self.hole_area = hole_area
        self.reader = FrameReader(source, model)
        self.stills = Stills(self.reader) if stills else None
        self.draw_again(redraw)
        self.look_closely(close_up)
        self._before_frame: Callable[[int], None] | None = None
        self.outgoing = Outgoing()
        self.objects: dict[Any, TrackedObject] = {}
        self.revision = 0  # counts the changes that make masks of earlier passes stale
        self.passes = 0  # counts the passes that have begun
        self.next_time: dict[int, tuple[int, int]] = {}  # direction -> (time of the frame to hand out next, revision)

    def draw_again(self, again: bool) -> None:
        """Whether tracked masks are drawn once more, from now on."""
        self.redraw = Redraw(self.reader) if again else None

    def look_closely(self, closely: bool) -> None:
        """Whether something small is tracked in a window of its own, from now on."""
        size = self.model.network.image_size
        self.close_up = CloseUp(self.source.height, self.source.width, size) if closely else None

    # ---- prompts ---------------------------------------------------------------------------------------------

    def prompt(
        self, frame: int, obj_id: Any, *, points: Points | None = None, mask: Tensor | None = None, refine: bool = False
    ) -> None:
        """Show where an object is. Refused prompts raise and change nothing.

        Args:
            frame: where; an index of the video, or the latest frame of a stream.
            obj_id: any hashable; a new one starts a new object.
            points: clicks and box corners in model pixels, [1, n, 2] and [1, n].
            mask: bool [S, S].
            refine: the points come on top of those already given on this frame.
        """
        obj = self.objects.get(obj_id) or TrackedObject()
        earlier = obj.prompts.get(frame)
        if points is not None and refine and earlier is not None and earlier.points is not None:
            points = tuple(torch.cat(pair, dim=1) for pair in zip(earlier.points, points, strict=True))
        corrects = earlier.corrects if earlier else obj.tracked_in(frame)
        answering = Answering(
            reader=self.reader,
            model=self.model,
            hole_area=self.hole_area,
            stills=self.stills,
            close_up=self.close_up,
        )
        with self.model.running():
            known, view = self._mask_on(obj, frame)
            tracked = earlier.tracked if earlier else None if known is None else known > 0
            shown = Shown(mask=known, view=view, prompted=earlier is not None)
            memories = None if corrects is None else partial(self._memories_of, obj, corrects, frame)
            found = answering.answer(frame, points, mask, shown, memories)
            tracked = answering.moved(tracked, view, found.view)
        seen_from_before = earlier.seen_from_before if earlier else not obj.has_been_tracked()
        obj.prompts[frame] = UserPrompt(
            points,
            found.mask,
            found.output,
            float(found.output.object_logit),
            seen_from_before=seen_from_before,
            corrects=corrects,
            tracked=tracked,
            contradicts=contradicts(found.output.mask, tracked),
            view=found.view,
            scattered=scattered(found.output.mask, found.view),
        )
        self.objects[obj_id] = obj
        self._prompts_changed(obj, frame, everywhere=seen_from_before)
        if obj.prompts[frame].contradicts:
            obj.forget_stale()  # it was after something else: no mask of it is worth correcting

    def clear_prompt(self, frame: int, obj_id: Any) -> None:
        """Take back an object's prompts on one frame."""
        obj = self.objects[obj_id]
        if (earlier := obj.prompts.pop(frame, None)) is not None:
            self._prompts_changed(obj, frame, everywhere=earlier.seen_from_before)
            if not obj.prompts:
                obj.forget_stale()  # the next prompt begins anew

    def put_back(self, frame: int, obj_id: Any, earlier: UserPrompt) -> None:
        """Undo: let a prompt of this session count again, in place of those given since, to the bit."""
        obj = self.objects.setdefault(obj_id, TrackedObject())
        obj.prompts[frame] = earlier
        self._prompts_changed(obj, frame, everywhere=earlier.seen_from_before)

    def remove(self, obj_id: Any) -> None:
        """Forget an object; the others are not disturbed."""
        del self.objects[obj_id]

    def clear(self) -> None:
        """Forget all objects."""
        self.objects.clear()
        self.next_time.clear()
        self.revision += 1

    def _prompts_changed(self, obj: TrackedObject, frame: int, everywhere: bool) -> None:
        self.revision += 1
        obj.prompts_changed(frame, everywhere)

    # ---- looking at one frame --------------------------------------------------------------------------------

    def masks_on(self, frame: int) -> FrameMasks:
        """Every object's mask on one frame, as far as it has been prompted or tracked there."""
        with self.model.running():
            found = [self._mask_on(obj, frame) for obj in self.objects.values()]
        return FrameMasks(frame, [mask for mask, _ in found], [view for _, view in found])

    def _mask_on(self, obj: TrackedObject, frame: int) -> tuple[Tensor | None, Window | None]:
        """An object's mask on one frame, and what of the picture it is of."""
        if frame in obj.prompts:
            return obj.prompts[frame].output.mask, obj.prompts[frame].view
        direction = obj.tracked_in(frame)
        if direction is None:
            return None, None
        track = obj.tracks[direction]
        time = track.time(frame)
        if track.now.time == time and track.latest is not None:
            found = track.latest
        elif track.waits(time):
            found = track.best(time)
        else:
            aside = self._standing_before(obj, direction, time)
            self._advance([aside], time)
            aside.flush()
            found = aside.ready[-1][1]
        return self._filled([found.mask])[0], found.view

    def _standing_before(self, obj: TrackedObject, direction: int, time: int) -> Track:
        """A copy of a track that stands just before a frame; the track itself stays where it is."""
        if not obj.is_stale:
            self._remember_prompts(obj)
            obj.follow_prompts()
        aside = obj.tracks[direction].copy()
        self._seek(aside, obj.checkpoints[direction], time - 1)
        return aside

    def _memories_of(self, obj: TrackedObject, direction: int, frame: int) -> tuple[memory.Reading | None, int]:
        """What the object attends to on a frame that is being corrected, and the most pointers in it."""
        return self._reading_of(obj, direction, frame), obj.tracks[direction].rules.num_pointers

    def _reading_of(self, obj: TrackedObject, direction: int, frame: int) -> memory.Reading | None:
        """None when there is nothing to attend to."""
        time = obj.tracks[direction].time(frame)
        return self._leading_reading(self._standing_before(obj, direction, time), time)

    def _leading_reading(self, track: Track, time: int) -> memory.Reading | None:
        """What a track's leading pathway attends to, without the prompt that is being replaced."""
        leading = track.now.leading()
        prompted = {at: entry for at, entry in track.visible_prompts(time).items() if at != time}
        if leading is None or not prompted:
            return None
        return memory.read(time, leading.memories, prompted, track.rules)

    def _filled(self, masks: list[Tensor | None]) -> list[Tensor | None]:
        """On the device, with their holes filled, in one go."""
        there = self._on_device(masks)
        if self.hole_area > 0 and any(mask is not None for mask in there):
            known = torch.cat([mask for mask in there if mask is not None])
            filled = iter(fill_small_holes(known, self.hole_area).split(1))
            return [None if mask is None else next(filled) for mask in there]
        return there

    def _on_device(self, masks: list[Tensor | None]) -> list[Tensor | None]:
        """Masks back from the host, in one copy."""
        back = iter(moved_together([mask for mask in masks if mask is not None], self.model.device))
        return [None if mask is None else next(back) for mask in masks]

    # ---- propagation -----------------------------------------------------------------------------------------

    def propagate(self, start: int, end: int, direction: int) -> Generator[FrameMasks, None, None]:
        """Track all objects from `start` to `end`, both included; frames come in order, once each.

        Prompts may be added, and objects removed, between two frames: what is yielded next knows of it.
        Leaving off and starting again at the next frame goes on as if nothing had happened.
        """
        time, last = start * direction, end * direction
        while time <= last:
            for masks in self._run(time, last, direction):
                time = masks.frame * direction + 1
                seen = self.revision, len(self.objects)
                yield masks
                if seen != (self.revision, len(self.objects)):
                    break
            else:
                return

    @contextmanager
    def calling(self, before_frame: Callable[[int], None]) -> Iterator[None]:
        """Have passes call `before_frame` with the index of each frame that they are about to track.

        Everything fits together then: it may save the session, and what it raises ends the pass there.
        """
        self._before_frame = before_frame
        try:
            yield
        finally:
            self._before_frame = None

    def _run(self, start: int, end: int, direction: int) -> Iterator[FrameMasks]:
        if not self.objects:
            return
        self.passes += 1
        this_pass = self.passes
        tracks = self._begin(start, direction)
        yield from self._hand_out(tracks, end, direction, this_pass)
        first = max([start, *(track.now.time + 1 for track in tracks if track.now.time is not None)])
        in_parts = any(prompt.view for obj in self.objects.values() for prompt in obj.prompts.values())
        for frame, _, encode_next in self.reader.sequence(first * direction, end - first + 1, direction, in_parts):
            self._check_pass(this_pass)
            if self._before_frame is not None:
                self._before_frame(frame)
            self._step(tracks, frame * direction, encode_next)
            yield from self._hand_out(tracks, end, direction, this_pass)
        self._check_pass(this_pass)
        for track in tracks:
            track.flush()
        yield from self._hand_out(tracks, end, direction, this_pass)

    def _check_pass(self, this_pass: int) -> None:
        if this_pass != self.passes:
            raise StateError(
                "another pass over this state has begun since; one state has one pass at a time, "
                "so finish or leave one before the next, or open the video twice"
            )

    def _step(self, tracks: list[Track], time: int, while_waiting: Callable[[], None] | None = None) -> None:
        try:
            with self.model.running():
                self._advance(tracks, time, while_waiting, self.outgoing)
        except BaseException:
            self._failed(tracks)
            raise
        self._stepped(tracks)

    def _advance(
        self,
        tracks: list[Track],
        time: int,
        while_waiting: Callable[[], None] | None = None,
        outgoing: Outgoing | None = None,
    ) -> None:
        """`step` with the frame that it is about."""
        frame = tracks[0].frame(time)
        redraw = None
        if self.redraw is not None and self.redraw.can(frame):
            redraw = partial(self.redraw.drawn, frame)
        step(self.model, tracks, time, partial(self.reader.seen, frame), while_waiting, outgoing, redraw)

    def _failed(self, tracks: list[Track]) -> None:
        """A step broke off: some tracks may have taken it and others not, so each goes back to a checkpoint."""
        for track in tracks:
            track.stand(NOWHERE)
            track.ready.clear()
        self.next_time.clear()

    def _stepped(self, tracks: list[Track]) -> None:
        """After a step: keep a way back, and none into a past that has been replaced."""
        for obj, track in zip(self.objects.values(), tracks, strict=True):
            checkpoints, last = obj.checkpoints[track.direction], track.log.last()
            now = track.now.time
            if now is not None and (last is None or last <= now):
                checkpoints.drop_after(now)
            checkpoints.offer(track.now, self.outgoing)

    def _hand_out(self, tracks: list[Track], end: int, direction: int, this_pass: int) -> Iterator[FrameMasks]:
        """Frames up to `end` on which every object has settled, in order; what has to wait goes to the host.

        A frame leaves its tracks when it is asked for, so a caller who stops in between loses none.
        """
        count = min((track.ready_until(end) for track in tracks), default=0)
        for track in tracks:
            track.offload(self.outgoing, out=count)
        size = 4 * self.model.network.mask_size**2 * max(1, len(tracks))
        together = max(1, BACK_BYTES // size)
        back: list[Tensor | None] = []
        for at in range(count):
            self._check_pass(this_pass)
            if at % together == 0:
                back = self._on_device([hypothesis.mask for hypothesis in _next(tracks, min(together, count - at))])
            views = [track.ready[0][1].view for track in tracks]
            time = [track.ready.popleft()[0] for track in tracks][0]
            self.next_time[direction] = time + 1, self.revision
            for obj in self.objects.values():
                if len(obj.tracks) > 1:
                    obj.last_seen[time * direction] = direction
            masks, back = back[: len(tracks)], back[len(tracks) :]
            yield FrameMasks(time * direction, self._filled(masks), views)

    # ---- getting tracks to where a pass starts ---------------------------------------------------------------

    def _tracks(self, direction: int) -> list[Track]:
        """Every object's track in one direction."""
        for obj in self.objects.values():
            if direction not in obj.tracks:
                obj.tracks[direction], obj.checkpoints[direction] = self.new_track(direction)
        return [obj.tracks[direction] for obj in self.objects.values()]

    def new_track(self, direction: int) -> tuple[Track, Checkpoints]:
        """An empty track, and its checkpoints."""
        rules = with_settings(self.model.network.rules(self.source.num_frames), self.config)
        return Track(
            rules=rules, config=self.config, direction=direction, storage=self.storage, close_up=self.close_up
        ), Checkpoints()

    def _begin(self, start: int, direction: int) -> list[Track]:
        """All tracks, standing just before `start`, or further on with the masks from `start` on waiting."""
        for obj in self.objects.values():
            if direction in obj.tracks:
                obj.tracks[direction] = obj.tracks.pop(direction)  # the latest pass is the last in the dictionary
        tracks = self._tracks(direction)
        self._prepare_all_prompts()
        times = {track.now.time for track in tracks}
        if self.next_time.get(direction) == (start, self.revision) and len(times) == 1:
            return tracks  # nothing has happened in between
        self.next_time.pop(direction, None)  # whatever breaks off from here on, there is nothing to go on with
        with self.model.running():
            for obj, track in zip(self.objects.values(), tracks, strict=True):
                self._seek(track, obj.checkpoints[direction], start - 1)
                self._enter(track, start)
        return tracks

    def _enter(self, track: Track, start: int) -> None:
        """Root the tree on the last prompt before `start` when the frames from there on have not been tracked."""
        last = max((at for at in track.prompts if at < start), default=None)
        if last is not None and track.log.rank_at(last) is None:
            track.restart(last)
            track.ready.clear()

    def _seek(self, track: Track, checkpoints: Checkpoints, time: int) -> None:
        """Let a track stand where it stood after a frame: from a checkpoint, with the frames since replayed."""
        standing = NOWHERE
        if track.now.time is not None and track.now.time <= time:
            track.flush()  # what waits is decided now, and goes to the log
            standing = track.now
        track.ready.clear()
        waiting = [frame.time for frame in track.now.waiting]
        tracked = [at for at in (*track.log.times(), *waiting) if at <= time]
        if not tracked:
            track.stand(NOWHERE)
            return
        checkpoint = checkpoints.latest(tracked[-1], self.model.device, track.storage)
        if checkpoint and (not standing.pathways or (checkpoint.time or 0) > (standing.time or 0)):
            standing = checkpoint
        track.stand(standing if standing.pathways else NOWHERE)
        for at in tracked:
            if not standing.pathways or at > (standing.time or 0):
                self._advance([track], at)
        track.flush()
        track.ready.clear()

    # ---- memories of prompts ---------------------------------------------------------------------------------

    def _prepare_all_prompts(self) -> None:
        for obj_id, obj in self.objects.items():
            if not obj.prompts:
                raise StateError(
                    f"object {obj_id!r} has no prompt left; give it points, a box or a mask, or remove it first"
                )
        with self.model.running():
            for obj in self.objects.values():
                self._remember_prompts(obj)
        for obj in self.objects.values():
            obj.follow_prompts()

    def _remember_prompts(self, obj: TrackedObject) -> None:
        """Make the spatial memories of new prompts."""
        # More prompts than are ever read at once wait on the host: the device holds a bounded number.
        crowded = len(obj.prompts) > self.config.most_prompted
        for frame, prompt in obj.prompts.items():
            if prompt.mask_features is None:
                seen = self.reader.seen(frame, prompt.view)
                features = self.model.remember_prompt(seen, prompt.output, _hard(prompt.mask))
                home = torch.device("cpu") if crowded else self.storage or features.device
                obj.prompts[frame] = dataclasses.replace(prompt, mask_features=features.to(home))


def _next(tracks: list[Track], count: int) -> Iterator[Hypothesis]:
    """What is ready on the next so many frames, frame by frame."""
    for at in range(count):
        for track in tracks:
            yield track.ready[at][1]


def _hard(mask: Tensor | None) -> Tensor | None:
    """A mask that was given, as bool; soft values of the model's own size stay as they are until here."""
    return mask if mask is None or mask.dtype == torch.bool else mask > 0.5
