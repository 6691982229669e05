"""A stand-in for the predictor in tests of the command line: no network, but a memory that wrong resuming shows."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

from sam2long.errors import PromptError
from sam2long.video import open_source

LAG = 3  # frames that a mask waits, as with emit="settled"


class FakeSession:
    def __init__(self) -> None:
        self.before_frame = lambda frame: None

    @contextmanager
    def calling(self, before_frame):
        self.before_frame = before_frame
        try:
            yield
        finally:
            self.before_frame = lambda frame: None


class FakePredictor:
    """Each object is a square that moves on by one pixel per frame, plus a bit for every frame seen before.

    Its x on a frame is the prompt's x + the number of frames stepped through since the pass began, so a frame
    that is skipped, repeated or started anew ends up elsewhere.
    """

    device = torch.device("cpu")
    image_size = 64

    def __init__(self, on_step=lambda frame: None) -> None:
        self.on_step = on_step  # called for every frame that is worked on

    def compute_dtype(self):
        return torch.float32

    def init_state(self, source):
        source = open_source(source)
        return SimpleNamespace(source=source, session=FakeSession(), prompts={}, steps={}, rows=[], ready=[], head=None)

    def add_new_points_or_box(self, state, frame_idx, obj_id, points=None, labels=None, box=None):
        if box is not None and box[2] > state.source.width:
            raise PromptError(f"box {box} is outside the frame")
        at = box[:2] if box is not None else points[labels.index(1)]
        state.prompts.setdefault(obj_id, {})[frame_idx] = [int(at[0]), int(at[1])]

    def add_new_mask(self, state, frame_idx, obj_id, mask):
        rows, columns = np.nonzero(mask)
        state.prompts.setdefault(obj_id, {})[frame_idx] = [int(columns.min()), int(rows.min())]

    def remove_object(self, state, obj_id, strict=False, need_output=True):
        state.prompts.pop(obj_id, None)

    def propagate_in_video(self, state, start_frame_idx=None, max_frame_num_to_track=None, reverse=False):
        step = -1 if reverse else 1
        if state.head is None or state.head[1] != reverse:  # a new pass
            state.head, state.steps, state.ready = [start_frame_idx - step, reverse], {}, []
        yield from self._hand_out(state, keep=LAG)
        first = state.head[0] + step
        if 0 <= first < state.source.num_frames:
            for frame in state.source.iter_from(first, reverse=reverse):
                state.session.before_frame(frame.index)
                self.on_step(frame.index)
                state.head[0] = frame.index
                state.ready.append([frame.index, self._step(state, frame.index)])
                yield from self._hand_out(state, keep=LAG)
        yield from self._hand_out(state, keep=0)

    def _step(self, state, frame):
        places = {}
        for obj_id, prompts in state.prompts.items():
            x, y = prompts[min(prompts)]
            state.steps[obj_id] = state.steps.get(obj_id, 0) + 1
            places[obj_id] = [x + state.steps[obj_id] - 1, y]
        return places

    def _hand_out(self, state, keep):
        while len(state.ready) > keep:
            frame, places = state.ready.pop(0)
            logits = torch.full((len(places), 1, state.source.height, state.source.width), -5.0)
            for row, (obj_id, (x, y)) in enumerate(places.items()):
                logits[row, 0, y : y + 8, x : x + 8] = 5.0
                state.rows.append(
                    {"frame": frame, "obj_id": obj_id, "prompted": frame in state.prompts[obj_id], "iou": 0.9,
                     "object_logit": 5.0, "status": "visible", "pathways": 1 + frame % 3, "margin": float("inf"),
                     "memory_frames": (0, frame)}
                )  # fmt: skip
            yield frame, list(places), logits

    def track_report(self, state):
        table = pd.DataFrame(state.rows).drop_duplicates(["frame", "obj_id"], keep="last")
        return table.sort_values(["frame", "obj_id"], ignore_index=True)

    def save_state(self, state, path):
        kept = {key: value for key, value in vars(state).items() if key not in ("source", "session")}
        Path(path).write_text(json.dumps(kept))

    def load_state(self, path, source):
        state = self.init_state(source)
        kept = json.loads(Path(path).read_text())

        def numbered(mapping):
            return {int(key): value for key, value in mapping.items()}

        kept["prompts"] = {obj_id: numbered(prompts) for obj_id, prompts in numbered(kept["prompts"]).items()}
        kept["steps"] = numbered(kept["steps"])
        kept["ready"] = [[frame, numbered(places)] for frame, places in kept["ready"]]
        vars(state).update(kept)
        return state
