"""A config and weights become a model of a class that is given by its name."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sam2long.config import Sam2LongConfig
from sam2long.errors import ModelError, first_line
from sam2long.network.devices import best_device
from sam2long.network.host import with_plain_torch
from sam2long.network.install import require_sam2
from sam2long.network.sam2 import forget_positions_elsewhere
from sam2long.weights import BY_HUB_ID, CHECKPOINTS, load_weights

if TYPE_CHECKING:
    from omegaconf import DictConfig

# What sam2's builder sets with apply_postprocessing=True.
POSTPROCESSING = (
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_via_stability=true",
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_delta=0.05",
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh=0.98",
    "++model.binarize_mask_from_pts_for_mem_enc=true",
    "++model.fill_hole_area=8",
)

_HYDRA = threading.Lock()


@with_plain_torch
def build(
    target: str,
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
) -> Any:
    """Build a predictor of the class `target`, a dotted name; the rest is as `build_sam2long_video_predictor` says."""
    require_sam2()
    if mode != "eval":
        raise ModelError(f'mode is {mode!r}; SAM2Long only runs in "eval" mode: it needs no training')
    if sam2long is not None and not isinstance(sam2long, Sam2LongConfig):
        sam2long = Sam2LongConfig.from_mapping(sam2long)
    name = os.fspath(config_file)
    by_name = CHECKPOINTS.get(name) or BY_HUB_ID.get(name)
    if by_name is not None:
        name = by_name.config
        ckpt_path = by_name.fetch() if ckpt_path is None else ckpt_path
    elif ckpt_path is None:
        warnings.warn(f"no checkpoint given for {name}: the weights are random", stacklevel=4)
    extra = [
        f"++model._target_={target}",
        *(["++model.compile_image_encoder=true"] if vos_optimized else []),
        *(POSTPROCESSING if apply_postprocessing else []),
        *hydra_overrides_extra,
    ]
    model = _instantiate(name, extra)
    model._set_up(sam2long or model.sam2long, dtype if dtype != "auto" else model.dtype)
    if ckpt_path is not None:
        load_weights(model, ckpt_path, name)
    model = model.to(best_device() if device is None else device).eval()
    forget_positions_elsewhere(model)
    if compile:
        model.compile_model()
    return model


def known_hub_id(model_id: str) -> str:
    """The id of one of Meta's models.

    Raises:
        ModelError: it is none.
    """
    if model_id not in BY_HUB_ID:
        raise ModelError(f"{model_id!r} is not a SAM 2 model on the hub; the models are {', '.join(BY_HUB_ID)}")
    return model_id


def _instantiate(config: str, overrides: Sequence[str]) -> torch.nn.Module:
    """Compose a YAML with Hydra and build its model; the host's Hydra stays as it is."""
    import sam2
    from hydra.errors import HydraException
    from hydra.utils import instantiate
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    path = Path(config)
    packaged = Path(sam2.__path__[0]) / config
    if not path.is_file():
        if not packaged.is_file():
            raise ModelError(
                f"there is no model config {config!r}: not a short name ({', '.join(CHECKPOINTS)}), "
                "not one of sam2's config names (configs/sam2.1/sam2.1_hiera_l.yaml, ...), not a file"
            )
        path = packaged
    try:
        composed = _compose(path.resolve(), overrides)
        OmegaConf.resolve(composed)
        if "image_encoder" not in composed.model:
            raise ModelError(f"{config} describes no model; expected a section 'model' like in Meta's configs")
        return instantiate(composed.model, _recursive_=True)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ModelError(f"the model config {config} cannot be used: {first_line(error)}") from error


def _compose(path: Path, overrides: Sequence[str]) -> DictConfig:
    """What `hydra.compose` gives after `hydra.initialize_config_dir`, which set up one Hydra for the whole process:
    a host that uses Hydra in another thread would meet ours. So the loader below them is called, on our folder only."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.utils import create_config_search_path
    from hydra.types import RunMode

    with _HYDRA:  # its plug-ins are found once per process, without a lock of their own
        loader = ConfigLoaderImpl(create_config_search_path(str(path.parent)))
        return loader.load_configuration(path.name, list(overrides), RunMode.RUN, from_shell=False)
