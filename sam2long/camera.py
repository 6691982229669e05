"""The camera interface that real-time forks of SAM 2 have, on the unmodified package and bounded for ever."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sam2long.config import Sam2LongConfig
from sam2long.errors import PromptError, StateError
from sam2long.predictor import SAM2LongVideoPredictor, VideoMasks
from sam2long.tracking.inference_state import InferenceState
from sam2long.tracking.live import LiveSession


class SAM2LongCameraPredictor:
    """Live tracking: load the first frame, prompt, then feed frame after frame.

    One stream at a time; `load_first_frame` starts a new one. With emit="online", the default of
    `build_sam2long_camera_predictor`, `track` answers for the frame that it is given.

    Args:
        predictor: on any network; what it has and the camera has not is found here as well (`device`, `image_size`).
            None: one that is made of what else is given, as a YAML's `_target_` does.
    """

    def __init__(self, predictor: SAM2LongVideoPredictor | None = None, **made_of: Any) -> None:
        if predictor is None:
            predictor = SAM2LongVideoPredictor(**{"sam2long": Sam2LongConfig(emit="online")} | made_of)
        self.predictor = predictor
        self.stream: InferenceState | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "predictor":
            raise AttributeError(f"SAM2LongCameraPredictor has no {name}")
        return getattr(self.predictor, name)

    def to(self, *args: Any, **kwargs: Any) -> SAM2LongCameraPredictor:
        """As torch's; returns the camera."""
        self.predictor.to(*args, **kwargs)
        return self

    def eval(self) -> SAM2LongCameraPredictor:
        """It is always; returns the camera."""
        return self

    @property
    def frame_idx(self) -> int:
        """Index of the latest frame."""
        session = self._live().session
        assert isinstance(session, LiveSession)
        return session.frame

    def load_first_frame(self, image: Any) -> None:
        """Start a stream. image: [H, W, 3] uint8 RGB."""
        self.stream = self.predictor.init_stream(image)

    def add_new_prompt(
        self,
        frame_idx: int,
        obj_id: Any,
        points: Any = None,
        labels: Any = None,
        bbox: Any = None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
    ) -> VideoMasks:
        """Clicks or a box on the latest frame.

        Args:
            frame_idx: the latest frame's index, `predictor.frame_idx`.
            bbox: x1, y1, x2, y2, or [[x1, y1], [x2, y2]].
            obj_id, points, labels, clear_old_points, normalize_coords: as `add_new_points_or_box`.
        Returns:
            frame index, object ids, mask logits [N, 1, H, W].
        """
        return self.predictor.add_new_points_or_box(
            self._live(), frame_idx, obj_id, points, labels, clear_old_points, normalize_coords, bbox
        )

    def add_new_points(self, frame_idx: int, obj_id: Any, points: Any, labels: Any, **options: Any) -> VideoMasks:
        """Clicks on the latest frame; as `add_new_prompt`."""
        return self.add_new_prompt(frame_idx, obj_id, points=points, labels=labels, **options)

    def add_new_mask(self, frame_idx: int, obj_id: Any, mask: Any) -> VideoMasks:
        """A mask [H, W] on the latest frame."""
        return self.predictor.add_new_mask(self._live(), frame_idx, obj_id, mask)

    def track(self, image: Any) -> tuple[list[Any], Tensor]:
        """The next frame.

        Args:
            image: [H, W, 3] uint8 RGB.
        Returns:
            object ids and mask logits [N, 1, H, W] float32 of this frame.
        """
        state = self._live()
        if state.session.config.emit != "online":
            raise StateError('the camera interface answers at once; build it with Sam2LongConfig(emit="online")')
        if not state.session.objects:
            raise StateError("nothing to track: prompt an object first with add_new_prompt or add_new_mask")
        _, obj_ids, masks = self.predictor.track(state, image)[-1]
        return obj_ids, masks

    def remove_object(self, obj_id: Any, strict: bool = False, need_output: bool = False) -> list[Any]:
        """Stop tracking an object; returns the ids left."""
        return self.predictor.remove_object(self._live(), obj_id, strict, need_output=False)[0]

    def reset_state(self) -> None:
        """Forget all objects; the next `load_first_frame` starts a new stream."""
        self.stream = None

    def _live(self) -> InferenceState:
        if self.stream is None:
            raise PromptError("no stream has been started; call load_first_frame(image) first")
        return self.stream
