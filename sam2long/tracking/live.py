"""A stream that the caller feeds: frames are seen once, prompts go on the latest one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np

from sam2long.config import Sam2LongConfig
from sam2long.errors import StateError
from sam2long.method import memory
from sam2long.network.batched import Batched
from sam2long.tracking.checkpoints import Checkpoints
from sam2long.tracking.frames import EncodedFrame, LiveSource
from sam2long.tracking.session import FORWARD, FrameMasks, Session
from sam2long.tracking.track import EMPTY, Track
from sam2long.tracking.tracked_object import TrackedObject
from sam2long.video.source import FrameSource

REPORTS_KEPT = 20_000  # per object; a stream has no end, so its report has to have one


class LiveSession(Session):
    """The state of an endless stream: the same tracker, nothing kept of past frames.

    Args:
        height, width: of every frame.
        model, config, **options: as for Session.
    """

    def __init__(self, height: int, width: int, model: Batched, config: Sam2LongConfig, **options: Any) -> None:
        super().__init__(cast(FrameSource, LiveSource(height, width)), model, config, **options)
        self.frame = -1  # the latest frame
        self.stepped = False  # whether the tracks have been taken over it
        self.next_out = 0  # the frame to be handed out next

    def feed(self, image: np.ndarray | EncodedFrame) -> None:
        """Take in the next frame; the one before is stepped first if nobody has asked for it."""
        if self.frame >= 0 and not self.stepped:
            self._take_step()
        if isinstance(image, EncodedFrame):
            self._look_at_all()
        self.reader.push(self.frame + 1, image)
        for view in {track.now.view for track in self._tracks(FORWARD)} or {None}:
            self.reader.seen(self.frame + 1, view)  # a frame that cannot be encoded is not taken in
        self.frame += 1
        self.stepped = False

    def _look_at_all(self) -> None:
        """Frames that come without their pictures can only be looked at as a whole."""
        if self.close_up is None:
            return
        self.look_closely(False)
        for obj in self.objects.values():
            for track in obj.tracks.values():
                track.close_up = None
                track.now = replace(track.now, view=None)

    def advance(self) -> list[FrameMasks]:
        """Track the latest frame; returns the frames that have settled."""
        if not self.stepped:
            self._take_step()
        return self._out()

    def finish(self) -> list[FrameMasks]:
        """The stream has ended: everything that still waits."""
        if self.frame >= 0 and not self.stepped:
            self._take_step()
        for track in self._tracks(FORWARD):
            track.flush()
        return self._out()

    def new_track(self, direction: int) -> tuple[Track, Checkpoints]:
        track, checkpoints = super().new_track(direction)
        track.log.limit = REPORTS_KEPT
        return track, checkpoints

    def _take_step(self) -> None:
        self._prepare_all_prompts()
        tracks = self._tracks(FORWARD)
        pending = [
            track for track in tracks if track.now.time != self.frame
        ]  # a prompt may have taken it there already
        if pending:
            self._step(pending, self.frame)
        self.stepped = True

    def _out(self) -> list[FrameMasks]:
        tracks = self._tracks(FORWARD)
        for track in tracks:
            while track.ready and track.ready[0][0] < self.next_out:
                track.ready.popleft()  # corrected after the caller had been given it
        ready = list(self._hand_out(tracks, self.frame, FORWARD, self.passes))
        if ready or not tracks:
            self.next_out = ready[-1].frame + 1 if ready else self.frame + 1
        return ready

    def _stepped(self, tracks: list[Track]) -> None:
        """No checkpoints: a stream cannot be replayed."""

    def _failed(self, tracks: list[Track]) -> None:
        """Tracks change only once the network has answered: they stand where they stood; the frame is tried again."""

    def prompt(self, frame: int, obj_id: Any, **given: Any) -> None:
        if frame != self.frame:
            raise StateError(f"frame {frame} is not the latest frame of the stream; prompts go on frame {self.frame}")
        super().prompt(frame, obj_id, **given)

    def _prompts_changed(self, obj: TrackedObject, frame: int, everywhere: bool) -> None:
        self.revision += 1
        new = FORWARD not in obj.tracks
        self._tracks(FORWARD)
        track = obj.tracks[FORWARD]
        if new:
            track.ready.extend((at, EMPTY) for at in range(self.next_out, frame))
        elif track.now.time == frame:
            track.undo()
        self._forget_unreadable_prompts(obj)
        with self.model.running():
            self._remember_prompts(obj)
        obj.follow_prompts()
        if frame in obj.prompts:
            track.restart(frame)
        else:
            self.stepped = False  # without its prompt the frame has to be tracked after all

    def _forget_unreadable_prompts(self, obj: TrackedObject) -> None:
        """Time runs forward only: of the prompts, the first and the latest are all that can still be read."""
        limit = self.config.most_prompted
        if len(obj.prompts) > limit:
            first, *others = sorted(obj.prompts)
            keep = {first, *others[len(others) - (limit - 1) :]} if limit > 1 else {others[-1]}
            obj.prompts = {at: prompt for at, prompt in obj.prompts.items() if at in keep}

    def _reading_of(self, obj: TrackedObject, direction: int, frame: int) -> memory.Reading | None:
        self._remember_prompts(obj)
        obj.follow_prompts()
        track = obj.tracks[direction].copy()
        if track.now.time == frame:
            track.undo()
        return self._leading_reading(track, frame)
