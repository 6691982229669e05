"""A video of a viewer under way: prompts as they change, tracks that can be undone, what is worth a look."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from sam2long.doubt import looks
from sam2long.errors import PromptError, StateError
from sam2long.hosts.napari.masks import MaskStack
from sam2long.hosts.napari.prompts import Prompts, same
from sam2long.hosts.napari.video import LayerVideo

FORWARD, BACKWARD, BOTH = "forward", "backward", "both ways"
SIGNS = {FORWARD: (1,), BACKWARD: (-1,), BOTH: (1, -1)}


class Tracker:
    """The predictor's state for one video, and the masks that come of it.

    Args:
        predictor: a SAM2LongVideoPredictor.
        video: the layer. masks: where they go; what is there already was tracked by another state.
    """

    def __init__(self, predictor: Any, video: LayerVideo, masks: MaskStack) -> None:
        self.predictor, self.video, self.masks = predictor, video, masks
        self.state = predictor.init_state(video)
        self.given: Prompts = {}
        self.image: Any = None  # the layer, and the model, that it was made for
        self.chosen = "", ""
        self.looks: dict[int, str] = {}  # the frames to look at, in that order -> why
        self._before: tuple[Path | None, Prompts, Any] | None = None  # the last track, for `undo`
        self._folder = tempfile.TemporaryDirectory(prefix="sam2long-")

    @property
    def can_undo(self) -> bool:
        return self._before is not None

    def ways(self, prompts: Prompts, direction: str, current: int, first: int, last: int) -> list[tuple[int, int, int]]:
        """Where to go: (1 or -1, start, end), both included, of each way.

        From the current frame; where nothing is known there yet, from the prompt that lies nearest on the way.

        Raises:
            PromptError: nothing to track, or nowhere to go.
        """
        if not prompts:
            raise PromptError("there is no prompt; click on an object, draw a box around it, or paint it")
        if not first <= last:
            raise PromptError(f"the range is {first} to {last}; expected a first frame that is not after the last one")
        frames = [frame for frame, _ in prompts]
        known = self.masks.known(self.video.place(current)) or current in frames
        ways = []
        for sign in SIGNS[direction]:
            before = [frame for frame in frames if (frame - current) * sign <= 0]
            nearest = (max if sign > 0 else min)(before) if before else (min if sign > 0 else max)(frames)
            start = min(max(current if known else nearest, first), last)
            end = last if sign > 0 else first
            if start != end or sign > 0:
                ways.append((sign, start, end))
        if not ways:
            raise PromptError(f"nothing lies {direction} of frame {current}; go to another frame, or track forward")
        return ways

    def track(self, prompts: Prompts, ways: list[tuple[int, int, int]]) -> Iterator[tuple[int, dict[int, np.ndarray]]]:
        """Frame by frame, its masks [H, W] bool by object. Closed in between, it keeps the frames done.

        Raises:
            PromptError: a prompt that cannot be used; the message names it. VideoError: a frame that cannot be read.
        """
        self._remember()
        self._give(prompts)
        spans = {obj_id: [frame for frame, other in prompts if other == obj_id] for _, obj_id in prompts}
        for sign, start, end in ways:
            results = self.predictor.propagate_in_video(
                self.state, start_frame_idx=start, max_frame_num_to_track=abs(end - start), reverse=sign < 0
            )
            with closing(results):
                for frame, obj_ids, logits in results:
                    found = dict(zip(obj_ids, (logits[:, 0] > 0).cpu().numpy(), strict=True))
                    for obj_id in obj_ids:
                        # Before its first prompt nothing is known of an object; as time runs backward, after its last.
                        if frame < min(spans[obj_id]) if sign > 0 else frame > max(spans[obj_id]):
                            del found[obj_id]
                        elif (prompt := prompts.get((frame, obj_id))) is not None and prompt.mask is not None:
                            found[obj_id] = prompt.mask
                    yield frame, found

    def look(self) -> None:
        """Find what is worth a look, once tracked."""
        report = self.predictor.track_report(self.state)
        found = [
            (look, obj_id)
            for obj_id, rows in report.groupby("obj_id", sort=False)
            for look in looks({int(row.frame): row for row in rows.itertuples()})
        ]
        self.looks = {}
        for look, obj_id in sorted(found, key=lambda each: (-each[0].stretch, each[0].frame)):
            said = f"object {obj_id}: {'; '.join(look.why)}"
            self.looks[look.frame] = f"{self.looks[look.frame]}; {said}" if look.frame in self.looks else said

    def undo(self) -> None:
        """Take the last track back: masks, and what the tracker knew.

        Raises:
            StateError: there is none.
        """
        if self._before is None:
            raise StateError("there is no track to undo")
        saved, given, masks = self._before
        self.state = self.predictor.load_state(saved, self.video) if saved else self.predictor.init_state(self.video)
        self.given = given
        self.masks.restore(masks)
        self._before = None
        self.look()

    def _remember(self) -> None:
        saved = None
        if self.given:
            saved = Path(self._folder.name, "before.safetensors")
            self.predictor.save_state(self.state, saved)
        self._before = saved, dict(self.given), self.masks.snapshot()

    def _give(self, prompts: Mapping[tuple[int, int], Any]) -> None:
        """Tell the tracker what has changed since it was told last."""
        left = {obj_id for _, obj_id in prompts}
        for frame, obj_id in [key for key in self.given if key not in prompts]:
            if obj_id in left:
                self.predictor.clear_all_prompts_in_frame(self.state, frame, obj_id, need_output=False)
            else:
                self.predictor.remove_object(self.state, obj_id, need_output=False)
            del self.given[frame, obj_id]
        for (frame, obj_id), prompt in prompts.items():
            known = self.given.get((frame, obj_id))
            if known is not None and same(known, prompt):
                continue
            try:
                prompt.give(self.predictor, self.state, frame)
            except PromptError as error:
                raise PromptError(f"object {obj_id} on frame {frame}: {error}") from None
            self.given[frame, obj_id] = prompt
