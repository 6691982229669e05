"""Ways in: a config and weights become a predictor."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from sam2long.config import Sam2LongConfig
from sam2long.errors import ConfigError
from sam2long.network import transformers_loading
from sam2long.network.building import build, known_hub_id
from sam2long.network.devices import best_device

if TYPE_CHECKING:
    from sam2long.camera import SAM2LongCameraPredictor
    from sam2long.predictor import SAM2LongVideoPredictor

PREDICTOR = "sam2long.predictor.SAM2LongVideoPredictor"
CAMERA = "sam2long.camera.SAM2LongCameraPredictor"


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
    **kwargs: Any,
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
        **kwargs: accepted and unused, as in sam2.
    Raises:
        ModelError: unknown config, weights that cannot be had or do not fit, a sam2 that is not the real one.
    """
    if transformers_loading.names_one(config_file):
        from sam2long.wrapped_predictor import TransformersVideoPredictor

        return _from_transformers(TransformersVideoPredictor, config_file, device, sam2long, dtype,
                                  checkpoint=ckpt_path, overrides=hydra_overrides_extra,
                                  compile=vos_optimized or compile)  # fmt: skip
    return build(PREDICTOR, config_file, ckpt_path, device, mode, hydra_overrides_extra, apply_postprocessing,
                 vos_optimized, sam2long=sam2long, dtype=dtype, compile=compile)  # fmt: skip


def build_sam2long_camera_predictor(
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
    **kwargs: Any,
) -> SAM2LongCameraPredictor:
    """Build a predictor for live frames, with the interface of the real-time forks of SAM 2.

    Args, Raises:
        as `build_sam2long_video_predictor`. Settings default to emit="online".
    """
    if sam2long is None:
        sam2long = Sam2LongConfig(emit="online")
    if transformers_loading.names_one(config_file):
        from sam2long.camera import TransformersCameraPredictor

        return _from_transformers(TransformersCameraPredictor, config_file, device, sam2long, dtype,
                                  checkpoint=ckpt_path, overrides=hydra_overrides_extra,
                                  compile=vos_optimized or compile)  # fmt: skip
    return build(CAMERA, config_file, ckpt_path, device, mode, hydra_overrides_extra, apply_postprocessing,
                 vos_optimized, sam2long=sam2long, dtype=dtype, compile=compile)  # fmt: skip


def build_sam2long_video_predictor_hf(model_id: str, **kwargs: Any) -> SAM2LongVideoPredictor:
    """Build one of Meta's models by its Hugging Face id. **kwargs: as `build_sam2long_video_predictor`."""
    return build_sam2long_video_predictor(known_hub_id(model_id), **kwargs)


def _from_transformers(
    predictor: type, name: str | os.PathLike, device: Any, sam2long: Any, dtype: str, **of_sam2: Any
) -> Any:
    """A predictor of a class for models of transformers. of_sam2: options that only sam2's models have."""
    if given := [option for option, value in of_sam2.items() if value]:
        raise ConfigError(f"{name} takes no {given[0]}: that is for sam2's models; leave it out")
    model, processor = transformers_loading.load(os.fspath(name))
    return predictor(model.to(best_device() if device is None else device), processor, sam2long, dtype)
