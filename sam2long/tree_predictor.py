"""The methods of sam2's video predictor, with SAM2Long's memory tree behind them, over any network."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sam2long.config import Sam2LongConfig
from sam2long.errors import ConfigError, StateError
from sam2long.network.batched import ROW_BUDGET, Batched
from sam2long.network.devices import fast_bfloat16
from sam2long.network.host import with_plain_torch
from sam2long.tracking import persist, prompts
from sam2long.tracking.frames import EncodedFrame, FrameReader, LiveSource, rgb_image
from sam2long.tracking.inference_state import InferenceState
from sam2long.tracking.live import LiveSession
from sam2long.tracking.report import to_frame
from sam2long.tracking.session import FORWARD, REVERSE, FrameMasks, Session
from sam2long.video import open_source

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

VideoMasks = tuple[int, list[Any], Tensor]  # frame index, object ids, [N, 1, H, W] float32 logits


class TreePredictor(ABC):
    """What every predictor of ours does; each says which network it has, and how its masks are enlarged.

    State lives in the object that `init_state` returns, never on the predictor. `device` and `image_size` come with
    the network.
    """

    fill_hole_area: int = 0
    sam2long: Sam2LongConfig
    dtype: str
    device: torch.device
    image_size: int

    @abstractmethod
    def _tracker_model(self) -> Batched:
        """The network, seen anew for each state."""

    @abstractmethod
    def _enlarged(self, masks: Tensor, height: int, width: int) -> Tensor:
        """Low-resolution logits [N, 1, 4h, 4w] at the size of the video, [N, 1, height, width] float32."""

    def _set_up(self, sam2long: Sam2LongConfig | Mapping[str, Any] | None, dtype: str) -> None:
        if sam2long is None:
            sam2long = Sam2LongConfig()
        elif not isinstance(sam2long, Sam2LongConfig):
            sam2long = Sam2LongConfig.from_mapping(sam2long)
        if dtype != "auto" and dtype not in DTYPES:
            raise ConfigError(f'dtype is {dtype!r}; expected "auto", "float32", "bfloat16" or "float16"')
        self.sam2long = sam2long
        self.dtype = dtype
        self.row_budget = ROW_BUDGET  # bytes; lower it when a GPU is too small for all pathways in one batch
        # Frames of a stored video that go through the image encoder at a time. None: one, or several of up to
        # 256 x 256 where that gives the same bits and nothing is compiled. On a GPU more may be faster, and may change
        # the last bits.
        self.frames_per_pass: int | None = None

    def compute_dtype(self) -> torch.dtype:
        """What the network computes in on the device that it is on now."""
        if self.dtype != "auto":
            return DTYPES[self.dtype]
        kind = self.device.type
        return torch.bfloat16 if kind == "cuda" and fast_bfloat16(self.device) else torch.float32

    # ---- the life of a state ---------------------------------------------------------------------------------

    @with_plain_torch
    def init_state(
        self,
        video_path: Any,
        offload_video_to_cpu: bool = False,
        offload_state_to_cpu: bool = False,
        async_loading_frames: bool = False,
    ) -> InferenceState:
        """Open a video. Frames are read lazily, whatever its length.

        Args:
            video_path: a video file, a folder of images, arrays, tensors, an iterator, a camera index or URL;
                everything `sam2long.video.open_source` takes.
            offload_video_to_cpu, async_loading_frames: as in sam2, and of no effect: frames never wait on
                the device and are always read ahead.
            offload_state_to_cpu: keep spatial memories on the host; slower, for small devices.
        Raises:
            VideoError: the video cannot be read.
        """
        source = open_source(video_path)
        if source.num_frames is None:
            raise StateError(
                "the source has no known length; feed an endless stream frame by frame with init_stream() and track()"
            )
        return InferenceState(Session(source, **self._session_options(offload_state_to_cpu)), self.device)

    @with_plain_torch
    def init_stream(self, first_frame: Any, offload_state_to_cpu: bool = False) -> InferenceState:
        """Start an endless stream with its first frame; prompt it, then feed the next ones to `track`.

        Args:
            first_frame: [H, W, 3] uint8 RGB, or what `encode_frame` made of it.
            offload_state_to_cpu: as for `init_state`.
        """
        image = first_frame if isinstance(first_frame, EncodedFrame) else rgb_image(first_frame)
        session = LiveSession(*_height_and_width(image), **self._session_options(offload_state_to_cpu))
        session.feed(image)
        return InferenceState(session, self.device)

    @with_plain_torch
    def encode_frame(self, frame: Any) -> EncodedFrame:
        """The image encoder's part of a frame, once for all the streams that are fed it.

        Args:
            frame: [H, W, 3] uint8 RGB.
        """
        image = rgb_image(frame)
        return FrameReader(LiveSource(*image.shape[:2]), self._tracker_model()).encoded(image)

    def _session_options(self, offload: bool) -> dict[str, Any]:
        return {
            "model": self._tracker_model(),
            "config": self.sam2long,
            "storage": torch.device("cpu") if offload else None,
            "hole_area": self.fill_hole_area,
        }

    @with_plain_torch
    def reset_state(self, inference_state: InferenceState) -> None:
        """Forget all objects and prompts; the video stays open."""
        inference_state.session.clear()

    @with_plain_torch
    def save_state(self, inference_state: InferenceState, path: str | os.PathLike) -> None:
        """Write a state to one file (safetensors, no pickle), so that tracking can go on in another process.

        After `load_state`, `propagate_in_video(state, start_frame_idx=k)`, with k the frame after the one
        yielded last, goes on exactly as the unbroken run would have.

        Args:
            inference_state: of a video; a live stream cannot be saved.
            path: replaced when it exists; written all or nothing.
        """
        if isinstance(inference_state.session, LiveSession):
            raise StateError("a live stream cannot be saved: its frames are gone; save the state of a video instead")
        persist.save_session(inference_state.session, path)

    @with_plain_torch
    def load_state(
        self, path: str | os.PathLike, video_path: Any, offload_state_to_cpu: bool = False
    ) -> InferenceState:
        """Read a saved state back.

        Args:
            path: written by `save_state`.
            video_path: the same video, as for `init_state`.
            offload_state_to_cpu: as for `init_state`.
        Raises:
            StateError: not a saved state, of another version, or of another video or model.
        """
        state = self.init_state(video_path, offload_state_to_cpu=offload_state_to_cpu)
        persist.load_session(state.session, path)
        return state

    # ---- prompts ---------------------------------------------------------------------------------------------

    @with_plain_torch
    def add_new_points_or_box(
        self,
        inference_state: InferenceState,
        frame_idx: int,
        obj_id: Any,
        points: Any = None,
        labels: Any = None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
        box: Any = None,
    ) -> VideoMasks:
        """Clicks, a box, or a box with clicks. On a frame that has been tracked it is a correction, and it sticks.

        Args:
            inference_state: from `init_state` or `init_stream`.
            frame_idx: the frame; in a stream the latest one.
            obj_id: integer or string; a new id starts a new object, also after tracking has started.
            points: [n, 2] x, y. labels: [n], 1 object, 0 not.
            clear_old_points: False adds to the clicks already given on this frame.
            normalize_coords: True for pixels of the video, False for coordinates in 0..1.
            box: x1, y1, x2, y2.
        Returns:
            frame index, object ids, mask logits [N, 1, H, W] float32 on this frame.
        Raises:
            PromptError: the prompt cannot be used; the state is as before.
        """
        session = inference_state.session
        if box is not None and not clear_old_points:
            raise prompts.PromptError("a box starts anew: pass clear_old_points=True, or leave the box out")
        frame = prompts.check_frame(frame_idx, session.source.num_frames)
        obj_id = prompts.check_object_id(obj_id)
        checked = prompts.check_points(
            points,
            labels,
            box,
            height=session.source.height,
            width=session.source.width,
            normalized_input=not normalize_coords,
            image_size=self.image_size,
            device=self.device,
        )
        session.prompt(frame, obj_id, points=checked, refine=not clear_old_points)
        return self._masks_on(session, frame)

    @with_plain_torch
    def add_new_mask(self, inference_state: InferenceState, frame_idx: int, obj_id: Any, mask: Any) -> VideoMasks:
        """A mask. On a frame that has been tracked it is a correction, and it sticks.

        Args:
            inference_state, frame_idx, obj_id: as for `add_new_points_or_box`.
            mask: [H, W] of the video's size (or the model's), > 0 is the object.
        Returns, Raises:
            as `add_new_points_or_box`.
        """
        session = inference_state.session
        frame = prompts.check_frame(frame_idx, session.source.num_frames)
        obj_id = prompts.check_object_id(obj_id)
        checked = prompts.check_mask(
            mask,
            height=session.source.height,
            width=session.source.width,
            image_size=self.image_size,
            device=self.device,
        )
        session.prompt(frame, obj_id, mask=checked)
        return self._masks_on(session, frame)

    @with_plain_torch
    def clear_all_prompts_in_frame(
        self, inference_state: InferenceState, frame_idx: int, obj_id: Any, need_output: bool = True
    ) -> VideoMasks | None:
        """Take back the prompts of one object on one frame.

        Args:
            inference_state, frame_idx, obj_id: as for `add_new_points_or_box`.
            need_output: False returns None.
        """
        session = inference_state.session
        frame = prompts.check_frame(frame_idx, session.source.num_frames)
        obj_id = prompts.check_object_id(obj_id)
        self._require_object(session, obj_id)
        session.clear_prompt(frame, obj_id)
        return self._masks_on(session, frame) if need_output else None

    @with_plain_torch
    def remove_object(
        self, inference_state: InferenceState, obj_id: Any, strict: bool = False, need_output: bool = True
    ) -> tuple[list[Any], list[tuple[int, Tensor]]]:
        """Forget an object; the others are not disturbed.

        Args:
            inference_state: from `init_state` or `init_stream`.
            obj_id: of the object. strict: raise when there is none; otherwise nothing happens.
            need_output: also return the masks of the frames that the object was prompted on.
        Returns:
            the ids left, and (frame index, mask logits [N, 1, H, W]) pairs.
        """
        session = inference_state.session
        obj_id = prompts.check_object_id(obj_id)
        if obj_id not in session.objects:
            if strict:
                self._require_object(session, obj_id)
            return list(session.objects), []
        frames = sorted(session.objects[obj_id].prompts)
        session.remove(obj_id)
        updated = []
        if need_output and session.objects:
            updated = [(frame, self._masks_on(session, frame)[2]) for frame in frames]
        return list(session.objects), updated

    def _require_object(self, session: Session, obj_id: Any) -> None:
        if obj_id not in session.objects:
            raise StateError(f"there is no object {obj_id!r}; the objects are {list(session.objects)}")

    # ---- tracking --------------------------------------------------------------------------------------------

    def propagate_in_video_preflight(self, inference_state: InferenceState) -> None:
        """Check that there is something to track; kept for sam2's name, propagation does it anyway."""
        self._require_prompts(inference_state.session)

    @with_plain_torch
    def propagate_in_video(
        self,
        inference_state: InferenceState,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
    ) -> Iterator[VideoMasks]:
        """Track all objects through the video.

        Args:
            inference_state: from `init_state`.
            start_frame_idx: None for the earliest prompted frame. The frame after the one yielded last
                goes on with the same hypotheses.
            max_frame_num_to_track: how many frames after the start; None for all.
            reverse: go towards the first frame.
        Yields:
            frame index, object ids, mask logits [N, 1, H, W] float32 at the video's size. Frames come in
            order. With emit="settled" a frame is yielded once all pathways agree on it, or after `max_lag`.
        """
        session = inference_state.session
        if isinstance(session, LiveSession):
            raise StateError("a live stream has no stored frames; feed them one by one with track()")
        self._require_prompts(session)
        num_frames = session.source.num_frames
        if start_frame_idx is None:
            start_frame_idx = min(frame for obj in session.objects.values() for frame in obj.prompts)
        start = prompts.check_frame(start_frame_idx, num_frames)
        count = num_frames if max_frame_num_to_track is None else prompts.check_count(max_frame_num_to_track)
        if reverse and start == 0:
            return  # as in sam2: there is nothing before the first frame
        direction = REVERSE if reverse else FORWARD
        end = max(start - count, 0) if reverse else min(start + count, num_frames - 1)
        frames = session.propagate(start, end, direction)
        try:
            for masks in frames:
                yield self._video_masks(session, masks)
        finally:
            frames.close()

    @with_plain_torch
    def track(self, inference_state: InferenceState, frame: Any) -> list[VideoMasks]:
        """Feed the next frame of a stream.

        Args:
            inference_state: from `init_stream`.
            frame: [H, W, 3] uint8 RGB, or what `encode_frame` made of it; of the first frame's size.
        Returns:
            the frames that have settled, oldest first; with emit="online" always this one.
        """
        session = self._stream(inference_state)
        image = frame if isinstance(frame, EncodedFrame) else rgb_image(frame)
        height, width = _height_and_width(image)
        if (height, width) != (session.source.height, session.source.width):
            raise StateError(
                f"frame is {width} x {height}; the stream's frames are "
                f"{session.source.width} x {session.source.height} (width x height)"
            )
        session.feed(image)
        return [self._video_masks(session, masks) for masks in session.advance()]

    @with_plain_torch
    def finish(self, inference_state: InferenceState) -> list[VideoMasks]:
        """The stream has ended: the frames that still waited for agreement."""
        session = self._stream(inference_state)
        return [self._video_masks(session, masks) for masks in session.finish()]

    def track_report(self, inference_state: InferenceState) -> pd.DataFrame:
        """What the tracker thought of each frame handed out so far.

        Returns:
            one row per frame and object: frame, obj_id, prompted, iou (the decoder's own estimate; NaN on
            prompted frames), object_logit, status (visible, uncertain, absent), pathways (different
            hypotheses alive), margin (best score less the best different one, log IoU), memory_frames
            (frames whose spatial memory was read).
        """
        objects = inference_state.session.objects
        return to_frame(
            (obj_id, track.direction, track.reports())
            for obj_id, obj in objects.items()
            for track in obj.tracks.values()
        )

    # ---- inside ----------------------------------------------------------------------------------------------

    def _stream(self, inference_state: InferenceState) -> LiveSession:
        if not isinstance(inference_state.session, LiveSession):
            raise StateError("this state is of a video; use propagate_in_video, or start a stream with init_stream")
        return inference_state.session

    def _require_prompts(self, session: Session) -> None:
        if not session.objects:
            raise StateError("nothing to track: give at least one object points, a box or a mask first")
        for obj_id, obj in session.objects.items():
            if not obj.prompts:
                raise StateError(f"object {obj_id!r} has no prompt left; prompt it again, or remove it")

    def _masks_on(self, session: Session, frame: int) -> VideoMasks:
        return self._video_masks(session, FrameMasks(frame, session.masks_on(frame)))

    @torch.no_grad()  # not inference_mode: callers may change masks in place, and give them to autograd
    def _video_masks(self, session: Session, masks: FrameMasks) -> VideoMasks:
        """Low-resolution masks as the caller gets them, at the size of the video."""
        rows = [session.model.absent() if mask is None else mask.to(self.device) for mask in masks.masks]
        height, width = session.source.height, session.source.width
        if not rows:
            return masks.frame, [], torch.empty(0, 1, height, width, device=self.device)
        return masks.frame, list(session.objects), self._enlarged(torch.cat(rows), height, width)


def _height_and_width(image: EncodedFrame | np.ndarray) -> tuple[int, int]:
    return (image.height, image.width) if isinstance(image, EncodedFrame) else image.shape[:2]
