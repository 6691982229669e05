"""What the runner asks of a model: masks of all prompted objects, frame by frame, in order.

`sam2long` is the drop-in predictor of this package; `sam2` is sam2's own predictor class on the same weights, the
baseline. Anything else can be run under the same protocol: `--tracker module:function` names a function that takes a
TrackerSpec and returns an object with `track` and `reset_peak_memory`/`peak_memory` as below.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from eval.datasets.base import Prompt, Video
from eval.prompting import give
from sam2long.errors import ConfigError
from sam2long.models import figures
from sam2long.network import transformers_loading
from sam2long.network.masks import enlarged
from sam2long.runs import versions
from sam2long.video import to_model_input

if TYPE_CHECKING:
    import pandas as pd

    from sam2long.network.protocol import Network

NO_OBJECT = -1024.0  # logit of an object before its prompt, as in sam2
OLD_OUTPUTS_KEPT = 40  # sam2 reads at most 15 frames back; the rest of its outputs would only fill memory


@dataclass(frozen=True, kw_only=True)
class TrackerSpec:
    """Everything that decides the masks, in plain values: it goes into the manifest and to worker processes."""

    method: str = "sam2long"  # "sam2long", "sam2" or "module:function"
    model: str = "nano"
    checkpoint: str | None = None
    sam2long: dict = field(default_factory=dict)  # Sam2LongConfig fields that differ from the defaults
    overrides: tuple[str, ...] = ()  # Hydra overrides of the model, e.g. "++model.image_size=512"
    device: str | None = None
    dtype: str = "auto"
    seed: int = 0
    prompt: str = "mask"  # what is said of each object: its given mask, the box around it, or a click in its middle

    def as_dict(self) -> dict:
        return asdict(self) | {"overrides": list(self.overrides)}


class Tracker(Protocol):
    def track(self, folder: Path, video: Video, prompts: list[Prompt]) -> Iterator[tuple[int, np.ndarray]]:
        """(frame index, logits [N, H, W] float32 in the order of `prompts`) of every frame from the first prompt on."""

    def reset_peak_memory(self) -> None: ...

    def peak_memory(self) -> int:
        """Bytes since the reset: of the GPU where there is one, else of this process since it started."""

    # Of the video tracked last, a tracker may also have
    # `tree_counts() -> dict[str, int]`, if it has a memory tree, and
    # `object_logits() -> DataFrame` with the columns obj_id, frame, object_logit.


def build(spec: TrackerSpec) -> Tracker:
    if ":" in spec.method:
        module, _, function = spec.method.partition(":")
        try:
            return getattr(importlib.import_module(module), function)(spec)
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"the tracker {spec.method!r} cannot be loaded ({error}); expected module:function"
            ) from None
    if spec.method not in ("sam2long", "sam2"):
        raise ConfigError(f"the tracker is {spec.method!r}; expected sam2long, sam2 or module:function")
    if spec.method == "sam2long":
        return Sam2Long(spec)
    return (PlainTransformers if transformers_loading.names_one(spec.model) else PlainSam2)(spec)


def checkpoint_hash(spec: TrackerSpec) -> str | None:
    """sha256 of the weights, or None where there are none to read."""
    if ":" in spec.method and spec.checkpoint is None:
        return None
    path = Path(spec.checkpoint) if spec.checkpoint else _named_checkpoint(spec.model)
    if path is None or not path.is_file():
        return None
    return figures.sha256(path)


def _named_checkpoint(model: str) -> Path | None:
    from sam2long.weights import CHECKPOINTS

    if transformers_loading.names_one(model):
        return transformers_loading.weights_file(model)
    return CHECKPOINTS[model].fetch() if model in CHECKPOINTS else None


class _Torch:
    """Memory accounting and seeding shared by both."""

    def __init__(self, spec: TrackerSpec):
        from sam2long import Sam2LongConfig, build_sam2long_video_predictor

        self.spec = spec
        self.predictor = build_sam2long_video_predictor(
            spec.model,
            spec.checkpoint,
            device=spec.device,
            apply_postprocessing=False,
            hydra_overrides_extra=list(spec.overrides),
            sam2long=Sam2LongConfig.from_mapping(spec.sam2long),
            dtype=spec.dtype,
        )
        self._cuda = self.predictor.device.type == "cuda"

    def _seed(self) -> None:
        import torch

        torch.manual_seed(self.spec.seed)

    def reset_peak_memory(self) -> None:
        if self._cuda:
            import torch

            torch.cuda.reset_peak_memory_stats(self.predictor.device)

    def peak_memory(self) -> int:
        return versions.device_peak(self.predictor.device) or versions.process_peak() or 0


def tree_counts(report: pd.DataFrame) -> dict[str, int]:
    """Of a track report: how many object-frames were tracked, uncertain, and had more than one different pathway."""
    tracked = report[~report["prompted"].astype(bool)]
    return {
        "tracked": len(tracked),
        "uncertain": int((tracked["status"] == "uncertain").sum()),
        "diverged": int((tracked["pathways"] > 1).sum()),
    }


class Sam2Long(_Torch):
    """This package's predictor: all objects in one state, late ones included."""

    _state = None

    def tree_counts(self) -> dict[str, int]:
        return tree_counts(self.predictor.track_report(self._state))

    def object_logits(self) -> pd.DataFrame:
        return self.predictor.track_report(self._state)[["obj_id", "frame", "object_logit"]]

    def track(self, folder: Path, video: Video, prompts: list[Prompt]) -> Iterator[tuple[int, np.ndarray]]:
        self._seed()
        state = self._state = self.predictor.init_state(str(folder))
        for p in prompts:
            give(self.predictor, state, p, self.spec.prompt)
        order = [p.obj for p in prompts]
        for frame, obj_ids, masks in self.predictor.propagate_in_video(state):
            rows = [list(obj_ids).index(obj) for obj in order]
            logits = masks[rows, 0].float().cpu().numpy()
            for row, p in enumerate(prompts):
                if frame < p.frame:
                    logits[row] = NO_OBJECT
            yield frame, logits


def as_sam2(predictor):
    """sam2's own video predictor with the weights of ours: the network inside, with the same postprocessing."""
    return predictor.network


class _Plain(_Torch):
    """A baseline writes down each object's logits as it goes."""

    def __init__(self, spec: TrackerSpec):
        super().__init__(spec)
        self._logits: list[tuple[int, int, float]] = []

    def object_logits(self) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(self._logits, columns=["obj_id", "frame", "object_logit"])


class PlainSam2(_Plain):
    """sam2's own predictor class, one object at a time from its own first mask on, as SAM2Long's evaluation runs it.

    The objects' states go through the video in step, so that a frame is decoded and encoded once and logits of all
    objects meet. Frames are read when needed and outputs too old to be read again are dropped: neither changes a mask.
    """

    def __init__(self, spec: TrackerSpec):
        super().__init__(spec)
        self.plain = as_sam2(self.predictor)

    def _autocast(self):
        import contextlib

        import torch

        dtype = self.predictor.compute_dtype()
        if dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.plain.device.type, dtype=dtype)

    def _states(self, folder: Path, video: Video, prompts: list[Prompt]) -> list[dict]:
        """One fresh state per object; they share the frames."""
        import tempfile

        with tempfile.TemporaryDirectory() as first:  # init_state would read the whole video: show it one frame
            (Path(first) / "0.jpg").symlink_to((folder / "00000.jpg").resolve())
            states = [self.plain.init_state(first, offload_video_to_cpu=True) for _ in prompts]
        frames = LazyFrames(folder, len(video.frame_names), self.predictor.steps())
        for state in states:
            state.update(images=frames, num_frames=len(frames), cached_features={})
        return states

    def track(self, folder: Path, video: Video, prompts: list[Prompt]) -> Iterator[tuple[int, np.ndarray]]:
        import torch

        self._seed()
        self._logits = []
        with torch.inference_mode(), self._autocast():
            states, runs = self._states(folder, video, prompts), []
            for state, p in zip(states, prompts, strict=True):
                give(self.plain, state, p, self.spec.prompt)
                runs.append(self.plain.propagate_in_video(state, start_frame_idx=p.frame))
        features: dict = {}
        for frame in range(min(p.frame for p in prompts), len(video.frame_names)):
            logits = np.full((len(prompts), *video.size), NO_OBJECT, np.float32)
            with torch.inference_mode(), self._autocast():
                for row, (state, run, p) in enumerate(zip(states, runs, prompts, strict=True)):
                    if frame < p.frame:
                        continue
                    state["cached_features"] = features
                    at, _, masks = next(run)
                    if at != frame:
                        raise RuntimeError(f"sam2 gave frame {at}; expected {frame}")
                    features = state["cached_features"]
                    logits[row] = masks[0, 0].float().cpu().numpy()
                    for output in _outputs(state, frame):
                        self._logits.append((p.obj, frame, float(output["object_score_logits"])))
                    _forget(state["output_dict_per_obj"], frame - OLD_OUTPUTS_KEPT)
            yield frame, logits


class PlainTransformers(_Plain):
    """The own session of a transformers model, one object at a time: the baseline of a model `hf:...`.

    As with sam2's: frames are read when needed, features are shared, and outputs too old to be read again are dropped.
    """

    def track(self, folder: Path, video: Video, prompts: list[Prompt]) -> Iterator[tuple[int, np.ndarray]]:
        self._seed()
        self._logits = []
        batched, model = self.predictor.batched(), self.predictor.network
        frames = LazyFrames(folder, len(video.frame_names), batched.network)
        with batched.running():
            sessions = [_Session(model, frames, video.size) for _ in prompts]
            for session, p in zip(sessions, prompts, strict=True):
                session.theirs.cache = sessions[0].theirs.cache
                give(session, None, p, self.spec.prompt)
        for frame in range(min(p.frame for p in prompts), len(video.frame_names)):
            logits = np.full((len(prompts), *video.size), NO_OBJECT, np.float32)
            with batched.running():
                for row, (session, p) in enumerate(zip(sessions, prompts, strict=True)):
                    if frame < p.frame:
                        continue
                    out = model(session.theirs, frame_idx=frame)
                    masks = out.pred_masks.reshape(1, 1, *out.pred_masks.shape[-2:]).float()
                    logits[row] = enlarged(masks, *video.size)[0, 0].cpu().numpy()
                    self._logits.append((p.obj, frame, float(out.object_score_logits.reshape(-1)[0])))
                    _forget(session.theirs.output_dict_per_obj, frame - OLD_OUTPUTS_KEPT)
                    for old in [t for t in session.theirs.frames_tracked_per_obj[0] if t < frame - OLD_OUTPUTS_KEPT]:
                        del session.theirs.frames_tracked_per_obj[0][old]
            yield frame, logits


class _Session:
    """A session of transformers that takes prompts as a predictor does, for one object."""

    def __init__(self, model: Any, frames: LazyFrames, size: tuple[int, int]) -> None:
        name = type(model).__name__.removesuffix("Model") + "InferenceSession"
        make = getattr(sys.modules[type(model).__module__], name)
        self.size, self.options = size, {"image_size": int(model.image_size), "device": model.device}
        self.theirs = make(None, *size, model.device, model.device, model.device, model.dtype)
        self.theirs.processed_frames = frames

    def add_new_mask(self, _state: None, frame: int, obj: int, mask: np.ndarray) -> None:
        from sam2long.tracking.prompts import check_mask

        height, width = self.size
        checked = check_mask(mask, height=height, width=width, **self.options)
        self.theirs.add_mask_inputs(self.theirs.obj_id_to_idx(obj), frame, checked.float()[None, None])
        self.theirs.obj_with_new_inputs.append(obj)

    def add_new_points_or_box(self, _state: None, frame: int, obj: int, points=None, labels=None, box=None) -> None:
        from sam2long.tracking.prompts import check_points

        height, width = self.size
        coords, marks = check_points(
            points, labels, box, height=height, width=width, normalized_input=False, **self.options
        )
        said = {"point_coords": coords[:, None], "point_labels": marks[:, None]}
        self.theirs.add_point_inputs(self.theirs.obj_id_to_idx(obj), frame, said)
        self.theirs.obj_with_new_inputs.append(obj)


def _outputs(state: dict, frame: int) -> list[dict]:
    """What sam2 has kept of a frame: one entry, of the state's only object."""
    (kept,) = state["output_dict_per_obj"].values()
    return [outputs[frame] for outputs in kept.values() if frame in outputs]


def _forget(outputs_per_object: dict, before: int) -> None:
    for outputs in outputs_per_object.values():
        for old in [t for t in outputs["non_cond_frame_outputs"] if t < before]:
            del outputs["non_cond_frame_outputs"][old]


class LazyFrames:
    """The frames of a folder as sam2 loads them (float32, normalised after the cast), one at a time."""

    def __init__(self, folder: Path, count: int, network: Network):
        self.folder, self.count, self.network = folder, count, network

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        import torch
        from PIL import Image

        with Image.open(self.folder / f"{index:05d}.jpg") as image:
            pixels = to_model_input(np.array(image.convert("RGB")), self.network.image_size, self.network.resize)
        frame = torch.from_numpy(pixels / 255.0).permute(2, 0, 1).float()
        frame -= torch.tensor(self.network.mean)[:, None, None]
        frame /= torch.tensor(self.network.std)[:, None, None]
        return frame
