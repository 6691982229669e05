"""The drop-in: sam2's video predictor with SAM2Long's memory tree behind the same methods, around any network."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from sam2.sam2_video_predictor import SAM2VideoPredictor
from torch import Tensor, nn

from sam2long.config import Sam2LongConfig
from sam2long.errors import ConfigError, ModelError, StateError
from sam2long.network import loading, transformers
from sam2long.network.held import HoldsNetwork
from sam2long.network.host import with_plain_torch
from sam2long.network.install import NEEDED
from sam2long.network.masks import apart, enlarged
from sam2long.network.options import refuse_unknown
from sam2long.tracking import persist, prompts
from sam2long.tracking.frames import EncodedFrame, FrameReader, LiveSource, rgb_image
from sam2long.tracking.inference_state import InferenceState
from sam2long.tracking.live import LiveSession
from sam2long.tracking.report import to_frame
from sam2long.tracking.session import FORWARD, REVERSE, FrameMasks, Session
from sam2long.tracking.window import placed
from sam2long.video import FrameSource, open_source

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

VideoMasks = tuple[int, list[Any], Tensor]  # frame index, object ids, [N, 1, H, W] float32 logits


class SAM2LongVideoPredictor(HoldsNetwork):
    """A network with several hypotheses per object and a bounded memory, behind the methods of sam2's predictor.

    Every public method takes the parameters of sam2's and returns its results; `track_report`, `save_state`,
    `load_state`, `init_stream`, `track` and `finish` come on top. State lives in the object that `init_state` returns,
    never on the predictor. `network` is the model itself; its public attributes and the names of its weights are found
    here as well.

    Args:
        network: in eval mode: a model of sam2, of a package shaped like it, or a video model of transformers. It stays
            as it is. None: sam2's predictor, built from what else is given.
        sam2long: settings; a Sam2LongConfig or a mapping of its fields. None: the paper's.
        dtype: "auto", "float32", "bfloat16" or "float16". "auto" is bfloat16 on CUDA devices that have it, float16 on
            others where the network stays finite in it, and float32 elsewhere.
        processor: of a model of transformers, which says how frames are resized and normalised; None: as its own does.
        **of_sam2: everything that sam2's predictor takes, when there is no `network`: how a YAML builds one.
    Raises:
        ModelError: not a network that can be used, or in training mode.
        ConfigError: a keyword or setting that does not exist, or that the network does not have.
    """

    def __init__(
        self,
        network: nn.Module | None = None,
        sam2long: Sam2LongConfig | Mapping[str, Any] | None = None,
        dtype: str = "auto",
        *,
        processor: Any = None,
        **of_sam2: Any,
    ) -> None:
        if sam2long is None:
            sam2long = Sam2LongConfig()
        elif not isinstance(sam2long, Sam2LongConfig):
            sam2long = Sam2LongConfig.from_mapping(sam2long)
        if network is None:
            refuse_unknown(of_sam2)
            network = SAM2VideoPredictor(**of_sam2).eval()
        elif of_sam2:
            raise ConfigError(f"there is a network already, so {', '.join(of_sam2)} cannot be used; leave it out")
        super().__init__(network, dtype, processor)
        self.sam2long = sam2long
        if self._frames is not None and sam2long.sparse_share < 1:
            raise ConfigError(
                'memory_tokens="sparse" is not available for models of transformers; leave it out, or use a sam2 model'
            )

    @classmethod
    def from_sam2(
        cls, predictor: nn.Module, sam2long: Sam2LongConfig | Mapping[str, Any] | None = None, dtype: str = "auto"
    ) -> SAM2LongVideoPredictor:
        """Wrap a live sam2 predictor: shares its weights and submodules, and leaves it as it is.

        Args:
            predictor: a `SAM2VideoPredictor`, any `SAM2Base`, a predictor of a package with sam2's class shape under
                another name, such as EfficientTAM; or one of ours, of which the network is taken.
            sam2long, dtype: as for the constructor.
        Raises:
            ModelError: not a sam2 model.
        """
        if isinstance(predictor, SAM2LongVideoPredictor):
            ours = cls(predictor.network, sam2long, dtype)
            ours._frames = predictor._frames
            ours.fill_hole_area, ours.non_overlap_masks = predictor.fill_hole_area, predictor.non_overlap_masks
            return ours
        if not all(hasattr(predictor, name) for name in NEEDED):
            raise ModelError(
                f"from_sam2 got {type(predictor).__module__}.{type(predictor).__name__}; "
                "expected a predictor built by sam2 (a SAM2VideoPredictor)"
            )
        return cls(predictor, sam2long, dtype)

    @classmethod
    def from_transformers(
        cls,
        model: nn.Module,
        processor: Any = None,
        sam2long: Sam2LongConfig | Mapping[str, Any] | None = None,
        dtype: str = "auto",
    ) -> SAM2LongVideoPredictor:
        """The same methods around a video model of transformers (SAM 2, EdgeTAM, SAM 3's tracker).

        Args, Raises:
            as for the constructor; weights in half precision are computed in as they are.
        """
        if (name := transformers.lacking(model)) is not None:
            raise ModelError(
                f"from_transformers got {type(model).__module__}.{type(model).__name__}, which has no {name}; "
                "expected a Sam2VideoModel, an EdgeTamVideoModel or a Sam3TrackerVideoModel"
            )
        return cls(model, sam2long, dtype, processor=processor)

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> SAM2LongVideoPredictor:
        """Load a checkpoint by its Hugging Face id, e.g. "facebook/sam2.1-hiera-large".

        Args:
            model_id: the repository on the hub.
            **kwargs: as for `build_sam2long_video_predictor`.
        """
        return cls.loaded(loading.known_hub_id(model_id), **kwargs)

    @classmethod
    @with_plain_torch
    def loaded(
        cls,
        config_file: str | os.PathLike,
        sam2long: Sam2LongConfig | Mapping[str, Any] | None = None,
        dtype: str = "auto",
        compile: bool = False,
        **of_network: Any,
    ) -> SAM2LongVideoPredictor:
        """What `build_sam2long_video_predictor` gives; see there."""
        if sam2long is not None and not isinstance(sam2long, Sam2LongConfig):
            sam2long = Sam2LongConfig.from_mapping(sam2long)  # refused before anything is loaded
        network, said = loading.load(config_file, compile=compile, **of_network)
        said |= {} if sam2long is None else {"sam2long": sam2long}
        said |= {} if dtype == "auto" else {"dtype": dtype}
        predictor = cls(network, **said)
        if compile:
            predictor.compile_model()
        return predictor

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
        return FrameReader(cast(FrameSource, LiveSource(*image.shape[:2])), self.batched()).encoded(image)

    def _session_options(self, offload: bool) -> dict[str, Any]:
        return {
            "model": self.batched(),
            "config": self.sam2long,
            "storage": torch.device("cpu") if offload else None,
            "hole_area": self.fill_hole_area,
            "stills": self._says("stills"),
            "redraw": self._says("redraw"),
            "close_up": self._says("close_up"),
        }

    def _says(self, setting: str) -> bool:
        """The setting, or what the model's trunk says of itself."""
        said = getattr(self.sam2long, setting)
        if said is not None:
            return said
        trunk = getattr(getattr(self.network, "image_encoder", None), "trunk", None)
        return bool(getattr(trunk, setting, False))

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
            points: [n, 2] x, y. labels: [n], 1 object, 0 not; 2 and 3 are a box's corners, -1 padding.
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
            adds=not clear_old_points,
        )
        if torch.isfinite(checked[0]).all():
            session.prompt(frame, obj_id, points=checked, refine=not clear_old_points)
        else:  # sam2 finds nothing there, and nothing ever after; with us the object is absent on this frame
            nothing = torch.zeros(self.image_size, self.image_size, dtype=torch.bool, device=self.device)
            session.prompt(frame, obj_id, mask=nothing)
        return self._masks_on(session, frame)

    def add_new_points(self, *args: Any, **kwargs: Any) -> VideoMasks:
        """sam2's earlier name of `add_new_points_or_box`."""
        return self.add_new_points_or_box(*args, **kwargs)

    @with_plain_torch
    def add_new_mask(self, inference_state: InferenceState, frame_idx: int, obj_id: Any, mask: Any) -> VideoMasks:
        """A mask. On a frame that has been tracked it is a correction, and it sticks.

        Args:
            inference_state, frame_idx, obj_id: as for `add_new_points_or_box`.
            mask: [H, W] of any size, resized as sam2 does it. Of a tensor half and more is the object, of arrays and
                lists what is not 0; an empty one says that the object is not there.
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
        num_frames = len(session.source)
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
        return self._video_masks(session, session.masks_on(frame))

    @torch.no_grad()  # not inference_mode: callers may change masks in place, and give them to autograd
    def _video_masks(self, session: Session, masks: FrameMasks) -> VideoMasks:
        """Low-resolution masks as the caller gets them, at the size of the video."""
        device = session.model.device
        rows = [session.model.absent() if mask is None else mask.to(device) for mask in masks.masks]
        height, width = session.source.height, session.source.width
        if not rows:
            return masks.frame, [], torch.empty(0, 1, height, width, device=device)
        if any(masks.views):
            whole = [
                enlarged(row, height, width) if view is None else placed(row, view, height, width)
                for row, view in zip(rows, masks.views, strict=True)
            ]
            logits = torch.cat(whole)
        else:
            logits = enlarged(torch.cat(rows), height, width)
        separate = self.non_overlap_masks and len(logits) > 1
        return masks.frame, list(session.objects), apart(logits) if separate else logits


def _height_and_width(image: EncodedFrame | np.ndarray) -> tuple[int, int]:
    return (image.height, image.width) if isinstance(image, EncodedFrame) else image.shape[:2]
