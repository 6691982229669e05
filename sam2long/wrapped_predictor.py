"""Predictors around a network that keeps its own class: transformers' models, and packages shaped like sam2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2long.config import Sam2LongConfig
from sam2long.errors import ConfigError, ModelError
from sam2long.network.batched import Batched
from sam2long.network.compiled import compiled
from sam2long.network.sam2 import Parts, Sam2Network
from sam2long.network.transformers import TransformersNetwork, lacking
from sam2long.network.transformers_loading import frame_treatment
from sam2long.tree_predictor import TreePredictor


def sam2_model(predictor: TreePredictor, network: nn.Module, parts: Parts | None) -> Batched:
    """A network of sam2's class shape, seen with a predictor's settings."""
    return Batched(
        Sam2Network(network, parts), predictor.compute_dtype(), predictor.row_budget, predictor.frames_per_pass
    )


class WrappedPredictor(TreePredictor, nn.Module):
    """The methods of `SAM2LongVideoPredictor` around a model, which stays as it is.

    Args:
        model: in eval mode, with `device` and a square `image_size`.
        sam2long, dtype: as for `SAM2LongVideoPredictor`.
    Raises:
        ModelError: the model is in training mode.
    """

    def __init__(
        self, model: nn.Module, sam2long: Sam2LongConfig | Mapping[str, Any] | None = None, dtype: str = "auto"
    ) -> None:
        if model.training:
            raise ModelError(f"the {type(model).__name__} is in training mode; call its eval() first")
        super().__init__()
        self.model = model
        self.eval()
        self._set_up(sam2long, dtype)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def image_size(self) -> int:
        return int(self.model.image_size)

    def _enlarged(self, masks: Tensor, height: int, width: int) -> Tensor:
        if tuple(masks.shape[-2:]) == (height, width):
            return masks
        return F.interpolate(masks, size=(height, width), mode="bilinear", align_corners=False)


class Sam2LikeVideoPredictor(WrappedPredictor):
    """Around a predictor of a package that has sam2's class shape under another name, such as EfficientTAM."""

    _parts: Parts | None = None

    def __init__(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        super().__init__(model, *args, **kwargs)
        self.fill_hole_area = getattr(model, "fill_hole_area", 0)

    def compile_model(self) -> None:
        """As `SAM2LongVideoPredictor.compile_model`."""
        self._parts = compiled(Parts.of(self.model), self.device)

    def _tracker_model(self) -> Batched:
        return sam2_model(self, self.model, self._parts)


class TransformersVideoPredictor(WrappedPredictor):
    """Around a video model of transformers: SAM 2, EdgeTAM, SAM 3's tracker.

    Args:
        model: a Sam2VideoModel, EdgeTamVideoModel or Sam3TrackerVideoModel.
        processor: its processor, which says how frames are resized and normalised; None: as these models' own do.
        sam2long: settings; a Sam2LongConfig or a mapping of its fields. None: the paper's.
        dtype: as for `SAM2LongVideoPredictor`; weights in half precision are computed in as they are.
    Raises:
        ModelError: not such a model, or in training mode.
        ConfigError: a setting that these models do not have.
    """

    def __init__(
        self,
        model: nn.Module,
        processor: Any = None,
        sam2long: Sam2LongConfig | Mapping[str, Any] | None = None,
        dtype: str = "auto",
    ) -> None:
        if (name := lacking(model)) is not None:
            raise ModelError(
                f"from_transformers got {type(model).__module__}.{type(model).__name__}, which has no {name}; "
                "expected a Sam2VideoModel, an EdgeTamVideoModel or a Sam3TrackerVideoModel"
            )
        self._frames = frame_treatment(model, processor)
        super().__init__(model, sam2long, dtype)
        if self.sam2long.sparse_share < 1:
            raise ConfigError(
                'memory_tokens="sparse" is not available for models of transformers; leave it out, or use a sam2 model'
            )
        if model.dtype not in (torch.float32, self.compute_dtype()):
            raise ConfigError(
                f"dtype is {dtype!r}, and the model's weights are {str(model.dtype).removeprefix('torch.')}; "
                'load them in float32, or leave dtype at "auto"'
            )

    def compute_dtype(self) -> torch.dtype:
        if self.dtype == "auto" and self.model.dtype != torch.float32:
            return self.model.dtype
        return super().compute_dtype()

    def compile_model(self) -> None:
        raise ConfigError("compile is not available for models of transformers; leave it out, or use a sam2 model")

    def _tracker_model(self) -> Batched:
        network = TransformersNetwork(self.model, **self._frames)
        return Batched(network, self.compute_dtype(), self.row_budget, self.frames_per_pass)
