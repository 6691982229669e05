"""Ways in: a config and weights become a predictor."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from sam2long.config import Sam2LongConfig
from sam2long.network.host import with_plain_torch
from sam2long.network.install import require_sam2
from sam2long.network.loading import known_hub_id

if TYPE_CHECKING:
    from sam2long.camera import SAM2LongCameraPredictor
    from sam2long.predictor import SAM2LongVideoPredictor


@with_plain_torch
def build_sam2long_video_predictor(
    config_file: str | os.PathLike,
    ckpt_path: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    vos_optimized: bool = False,
    *,
    sam2long: Sam2LongConfig | Mapping[str, Any] | None = None,
    dtype: str = "auto",
    compile: bool = False,
    **unknown: Any,
) -> SAM2LongVideoPredictor:
    """Build a predictor; takes what sam2's `build_sam2_video_predictor` takes.

    Args:
        config_file: a short name ("sam2.1-large", "nano"), one of sam2's config names
            ("configs/sam2.1/sam2.1_hiera_l.yaml"), or a path to a YAML. A short name brings its weights along. With
            "hf:" before it, a model of transformers: a hub id or a folder ("hf:facebook/sam2.1-hiera-tiny"); ckpt_path,
            hydra_overrides_extra, apply_postprocessing, vos_optimized and compile are sam2's and not for these.
        ckpt_path: .pt or .safetensors; None with a config name leaves the weights random, as in sam2.
        device: None takes the best there is.
        mode: "eval"; SAM2Long does not train.
        hydra_overrides_extra: e.g. ["++model.image_size=512"].
        apply_postprocessing: sam2's: fill small holes, fall back to other masks when a clicked one is unstable.
        vos_optimized: sam2's: compile the image encoder.
        sam2long: settings; None for the paper's.
        dtype: "auto", "float32", "bfloat16" or "float16".
        compile: run the whole network through torch.compile; the first frames then take minutes.
        **unknown: refused, with the place where it belongs.
    Raises:
        ConfigError: a keyword or setting that does not exist, or that the network does not have.
        ModelError: unknown config, weights that cannot be had or do not fit, a sam2 that is not the real one.
    """
    require_sam2()
    from sam2long.predictor import SAM2LongVideoPredictor

    return SAM2LongVideoPredictor.loaded(
        config_file,
        sam2long,
        dtype,
        compile,
        ckpt_path=ckpt_path,
        device=device,
        mode=mode,
        hydra_overrides_extra=hydra_overrides_extra,
        apply_postprocessing=apply_postprocessing,
        vos_optimized=vos_optimized,
        **unknown,
    )


def build_sam2long_camera_predictor(
    *args: Any, sam2long: Sam2LongConfig | Mapping[str, Any] | None = None, **kwargs: Any
) -> SAM2LongCameraPredictor:
    """Build a predictor for live frames, with the interface of the real-time forks of SAM 2.

    Args, Raises:
        as `build_sam2long_video_predictor`. Settings default to emit="online".
    """
    from sam2long.camera import SAM2LongCameraPredictor

    settings = Sam2LongConfig(emit="online") if sam2long is None else sam2long
    return SAM2LongCameraPredictor(build_sam2long_video_predictor(*args, sam2long=settings, **kwargs))


def build_sam2long_video_predictor_hf(model_id: str, **kwargs: Any) -> SAM2LongVideoPredictor:
    """Build one of Meta's models by its Hugging Face id. **kwargs: as `build_sam2long_video_predictor`.

    Raises:
        ModelError: it is none of them.
    """
    return build_sam2long_video_predictor(known_hub_id(model_id), **kwargs)
