"""The drop-in: sam2's video predictor with SAM2Long's memory tree behind the same methods."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from sam2.modeling.sam2_base import SAM2Base
from sam2.sam2_video_predictor import SAM2VideoPredictor
from torch import Tensor, nn

from sam2long.config import Sam2LongConfig
from sam2long.errors import ModelError
from sam2long.network.batched import Batched
from sam2long.network.compiled import compiled
from sam2long.network.install import NEEDED
from sam2long.network.sam2 import Parts
from sam2long.tree_predictor import DTYPES, TreePredictor, VideoMasks
from sam2long.wrapped_predictor import Sam2LikeVideoPredictor, TransformersVideoPredictor, sam2_model

__all__ = ["DTYPES", "SAM2LongVideoPredictor", "VideoMasks"]


class SAM2LongVideoPredictor(TreePredictor, SAM2VideoPredictor):
    """sam2's `SAM2VideoPredictor` with several hypotheses per object and a bounded memory.

    Every public method takes the parameters of sam2's and returns its results; `track_report`,
    `save_state`, `load_state`, `init_stream`, `track` and `finish` come on top. State lives in the
    object that `init_state` returns, never on the predictor.

    Args:
        sam2long: settings; a Sam2LongConfig or a mapping of its fields. None: the paper's.
        dtype: "auto" (bfloat16 where a CUDA device supports it, else float32), "float32", "bfloat16" or "float16".
        **kwargs: everything that sam2's predictor takes.
    """

    def __init__(
        self, sam2long: Sam2LongConfig | Mapping[str, Any] | None = None, dtype: str = "auto", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._set_up(sam2long, dtype)
        self.eval()

    @classmethod
    def from_sam2(
        cls,
        predictor: SAM2Base,
        sam2long: Sam2LongConfig | Mapping[str, Any] | None = None,
        dtype: str = "auto",
    ) -> SAM2LongVideoPredictor:
        """Wrap a live sam2 predictor: shares its weights and submodules, and leaves it as it is.

        Args:
            predictor: a `SAM2VideoPredictor`, any `SAM2Base`, or a predictor of a package with sam2's class shape
                under another name, such as EfficientTAM; for such a one the result is a `Sam2LikeVideoPredictor`.
            sam2long, dtype: as for the constructor.
        Raises:
            ModelError: not a sam2 model.
        """
        if not isinstance(predictor, SAM2Base):
            if all(hasattr(predictor, name) for name in NEEDED):
                return Sam2LikeVideoPredictor(predictor, sam2long, dtype)
            raise ModelError(
                f"from_sam2 got {type(predictor).__module__}.{type(predictor).__name__}; "
                "expected a predictor built by sam2 (a SAM2VideoPredictor)"
            )
        if predictor.training:
            raise ModelError("from_sam2 got a model in training mode; call its eval() first: the submodules are shared")
        ours = cls.__new__(cls)
        # The same parameters and submodules under containers of our own: what is set on one module
        # object later (a hook, a flag, a parameter's name) is not seen by the other.
        ours.__dict__.update(
            {name: value.copy() if isinstance(value, (dict, set)) else value for name, value in vars(predictor).items()}
        )
        defaults = {"fill_hole_area": 0, "non_overlap_masks": False}
        for name, value in defaults.items():
            if name not in vars(ours):
                setattr(ours, name, value)
        # sam2's VOS-optimised predictor compiles submodules in place, into CUDA graphs whose outputs the next call
        # overwrites; its own class clones them all. The image encoder's we clone ourselves.
        for name, module in ours._modules.items():
            if name != "image_encoder" and "forward" in vars(module):
                ours._modules[name] = copy.copy(module)
                del ours._modules[name].forward
        ours._set_up(sam2long, dtype)
        return ours

    @classmethod
    def from_transformers(
        cls,
        model: nn.Module,
        processor: Any = None,
        sam2long: Sam2LongConfig | Mapping[str, Any] | None = None,
        dtype: str = "auto",
    ) -> TransformersVideoPredictor:
        """The same methods around a video model of transformers (SAM 2, EdgeTAM, SAM 3's tracker).

        Args, Raises:
            as `TransformersVideoPredictor`.
        """
        return TransformersVideoPredictor(model, processor, sam2long, dtype)

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> SAM2LongVideoPredictor:
        """Load a checkpoint by its Hugging Face id, e.g. "facebook/sam2.1-hiera-large".

        Args:
            model_id: the repository on the hub.
            **kwargs: as for `build_sam2long_video_predictor`.
        """
        from sam2long.network.building import build, known_hub_id

        return build(f"{cls.__module__}.{cls.__qualname__}", known_hub_id(model_id), **kwargs)

    def _set_up(self, sam2long: Sam2LongConfig | Mapping[str, Any] | None, dtype: str) -> None:
        super()._set_up(sam2long, dtype)
        self._parts: Parts | None = None  # None: eager
        # sam2's own predictor runs objects one by one, where this flag does nothing; our rows share a batch.
        self.non_overlap_masks_for_mem_enc = False

    def compile_model(self) -> None:
        """Run the network through torch.compile, for every state made from now on.

        The first frames then take minutes; what cannot be compiled here runs eagerly, after one warning.
        """
        self._parts = compiled(Parts.of(self), self.device)

    def _tracker_model(self) -> Batched:
        return sam2_model(self, self, self._parts)

    def _enlarged(self, masks: Tensor, height: int, width: int) -> Tensor:
        like_sam2 = {"device": self.device, "video_height": height, "video_width": width}
        return self._get_orig_video_res_output(like_sam2, masks)[1]
