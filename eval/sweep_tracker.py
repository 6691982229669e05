"""Many settings of SAM2Long over one video at once, on one model.

The image encoder runs once per frame for all of them, prompts are read once, and the rows of all settings go through
the network as one batch. A row that several settings would compute alike, because they still agree on everything that
it reads, is computed once: most settings go together for a long time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from eval import trackers
from eval.datasets.base import Prompt, Video
from eval.trackers import TrackerSpec
from sam2long import Sam2LongConfig, SAM2LongVideoPredictor
from sam2long.method.memory import PROMPTED_LOGIT, FrameMemory
from sam2long.network.batched import Batched
from sam2long.network.protocol import FrameFeatures
from sam2long.tracking.report import to_frame
from sam2long.tracking.session import FORWARD
from sam2long.tracking.track import Prompted, Track, step

CPU_ROW_BUDGET = 64 << 20  # bytes; on a CPU larger batches are hardly faster and take gigabytes

Key = TypeVar("Key")
Masks = tuple[Tensor | None, ...]  # of all objects, low-resolution logits [1, 1, h, w]; None: absent


@dataclass(eq=False)
class _Setting:
    """One setting's tracks, in the order of the prompts."""

    tracks: list[Track]

    def ready(self) -> Iterator[tuple[int, Masks]]:
        """What all its objects have settled."""
        for _ in range(min(len(track.ready) for track in self.tracks)):
            entries = [track.ready.popleft() for track in self.tracks]
            yield entries[0][0], tuple(hypothesis.mask for _, hypothesis in entries)


class Sweep:
    """Holds the model between videos.

    Args:
        spec: model, device and precision; its settings are not used.
    """

    def __init__(self, spec: TrackerSpec) -> None:
        self._tracker = trackers.Sam2Long(spec)
        self.reset_peak_memory, self.peak_memory = self._tracker.reset_peak_memory, self._tracker.peak_memory
        self._settings: dict[Any, _Setting] = {}
        self._objects: list[int] = []

    def track(
        self,
        folder: Path,
        video: Video,
        prompts: list[Prompt],
        configs: Mapping[Key, Sam2LongConfig],
    ) -> Iterator[tuple[Key, int, Masks]]:
        """(setting, frame, masks) of every setting and frame from the first prompt on; each setting's frames in order.

        `logits` makes masks of the video's size of them. Settings that agree on a frame give the same tensors.
        """
        self._tracker._seed()
        first = min(p.frame for p in prompts)
        sessions = {}
        for key, config in configs.items():
            config = replace(config, close_up=False, redraw=False)  # what is looked at for one alone is not shared
            predictor = SAM2LongVideoPredictor.from_sam2(self._tracker.predictor, config, self._tracker.spec.dtype)
            sessions[key] = predictor.init_state(str(folder)).session
        self._objects = [p.obj for p in prompts]
        self._settings = {
            key: _Setting([session.new_track(FORWARD)[0] for _ in prompts]) for key, session in sessions.items()
        }
        any_session = next(iter(sessions.values()))  # encodes and computes for all
        model = any_session.model
        if self._tracker.predictor.device.type == "cpu":
            model.row_budget = CPU_ROW_BUDGET
        together = [track for setting in self._settings.values() for track in setting.tracks]
        for frame, features, encode_next in any_session.reader.sequence(first, len(video.frame_names) - first, FORWARD):
            with model.running():
                for place, p in enumerate(prompts):
                    if p.frame == frame:
                        prompted = _read_prompt(self._tracker.predictor, model, features, p)
                        for setting in self._settings.values():
                            setting.tracks[place].prompts = {frame: prompted}
                step(model, together, frame, lambda _, features=features: features, encode_next)
            yield from self._ready()
        for setting in self._settings.values():
            for track in setting.tracks:
                track.flush()
        yield from self._ready()

    def _ready(self) -> Iterator[tuple[Any, int, Masks]]:
        for key, setting in self._settings.items():
            for frame, masks in setting.ready():
                yield key, frame, masks

    @torch.inference_mode()
    def logits(self, masks: Masks, size: tuple[int, int]) -> np.ndarray:
        """[N, H, W] float32: what the predictor gives for these masks, enlarged as sam2 does it."""
        side = self._tracker.predictor.steps().mask_size
        rows = [torch.full((1, 1, side, side), trackers.NO_OBJECT) if m is None else m.cpu() for m in masks]
        rows = torch.cat(rows)
        if tuple(rows.shape[-2:]) != tuple(size):
            rows = F.interpolate(rows, size=size, mode="bilinear", align_corners=False)
        return rows[:, 0].numpy()

    def report(self, key: Any) -> pd.DataFrame:
        """A setting's track report of the video."""
        tracks = self._settings[key].tracks
        return to_frame((o, FORWARD, t.log) for o, t in zip(self._objects, tracks, strict=True))

    def tree_counts(self, key: Any) -> dict[str, int]:
        return trackers.tree_counts(self.report(key))

    def object_logits(self, key: Any) -> pd.DataFrame:
        return self.report(key)[["obj_id", "frame", "object_logit"]]


def _read_prompt(
    predictor: SAM2LongVideoPredictor, model: Batched, features: FrameFeatures, prompt: Prompt
) -> Prompted:
    from sam2long.tracking.prompts import check_mask

    height, width = prompt.mask.shape
    mask = check_mask(prompt.mask, height=height, width=width, image_size=predictor.image_size, device=predictor.device)
    output = model.prompt(features, mask=mask.float()[None, None])
    memory = FrameMemory(
        time=prompt.frame,
        mask_features=model.remember_prompt(features, output),
        object_ptr=output.object_ptr,
        iou=1.0,
        object_logit=PROMPTED_LOGIT,
    )
    return Prompted(output.mask, float(output.object_logit), memory, seen_from_before=True)
