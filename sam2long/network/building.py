"""A config and weights become a model of a class that is given by its name."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sam2long.config import Sam2LongConfig
from sam2long.errors import ModelError
from sam2long.network.devices import best_device
from sam2long.network.host import torch_defaults
from sam2long.network.install import require_sam2
from sam2long.network.sam2_adapter import forget_positions_elsewhere
from sam2long.weights import BY_HUB_ID, CHECKPOINTS, load_weights

# What sam2's builder sets with apply_postprocessing=True.
POSTPROCESSING = (
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_via_stability=true",
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_delta=0.05",
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh=0.98",
    "++model.binarize_mask_from_pts_for_mem_enc=true",
    "++model.fill_hole_area=8",
)

_ONE_AT_A_TIME = threading.Lock()  # Hydra's set-up and torch's defaults belong to the whole process


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
    with _ONE_AT_A_TIME, torch_defaults():
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
    """Compose a YAML with Hydra and build its model; the host's Hydra stays as it was."""
    import sam2
    from hydra import compose
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
    with _own_hydra(path.resolve().parent):
        try:
            composed = compose(config_name=path.name, overrides=list(overrides))
            OmegaConf.resolve(composed)
            if "image_encoder" not in composed.model:
                raise ModelError(f"{config} describes no model; expected a section 'model' like in Meta's configs")
            return instantiate(composed.model, _recursive_=True)
        except (HydraException, OmegaConfBaseException, YAMLError) as error:
            raise ModelError(f"the model config {config} cannot be used: {_first_line(error)}") from error


@contextmanager
def _own_hydra(folder: Path) -> Iterator[None]:
    """Hydra set up on a folder of configs; afterwards the host program finds its own again."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.singleton import Singleton

    singletons = dict(Singleton._instances)
    hydra = GlobalHydra.instance().hydra
    try:
        GlobalHydra.instance().clear()
        initialize_config_dir(str(folder), version_base="1.2")
        yield
    finally:
        Singleton._instances.clear()
        Singleton._instances.update(singletons)
        GlobalHydra.instance().hydra = hydra


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
