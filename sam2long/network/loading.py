"""A config and weights become a network."""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sam2long.errors import ModelError, first_line
from sam2long.network import transformers_loading
from sam2long.network.devices import best_device
from sam2long.network.options import only_sam2s, refuse_unknown
from sam2long.weights import BY_HUB_ID, CHECKPOINTS, load_weights

if TYPE_CHECKING:
    from omegaconf import DictConfig

SAM2S = "sam2.sam2_video_predictor.SAM2VideoPredictor"
PACKAGE = str(Path(__file__).parents[1])
# What sam2's builder sets with apply_postprocessing=True.
POSTPROCESSING = (
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_via_stability=true",
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_delta=0.05",
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh=0.98",
    "++model.binarize_mask_from_pts_for_mem_enc=true",
    "++model.fill_hole_area=8",
)


def load(
    config_file: str | os.PathLike,
    *,
    ckpt_path: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    vos_optimized: bool = False,
    compile: bool = False,
    **unknown: Any,
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """A network in eval mode on its device, and what else its config says to the predictor around it.

    Args, Raises:
        as `build_sam2long_video_predictor`.
    """
    refuse_unknown(unknown, [*inspect.signature(load).parameters, "sam2long", "dtype"])
    if mode != "eval":
        raise ModelError(f'mode is {mode!r}; SAM2Long only runs in "eval" mode: it needs no training')
    name, device = os.fspath(config_file), best_device() if device is None else device
    if transformers_loading.names_one(name):
        only_sam2s(name, checkpoint=ckpt_path, overrides=hydra_overrides_extra, compile=vos_optimized or compile)
        network, processor = transformers_loading.load(name)
        return network.to(device), {"processor": processor}
    by_name = CHECKPOINTS.get(name) or BY_HUB_ID.get(name)
    if by_name is not None:
        name = by_name.config
        ckpt_path = by_name.fetch() if ckpt_path is None else ckpt_path
    elif ckpt_path is None:
        warnings.warn(f"no checkpoint given for {name}: the weights are random", stacklevel=_depth_of_caller())
    extra = [
        f"++model._target_={SAM2S}",
        *(["++model.compile_image_encoder=true"] if vos_optimized else []),
        *(POSTPROCESSING if apply_postprocessing else []),
        *hydra_overrides_extra,
    ]
    network, said = _instantiate(name, extra)
    if ckpt_path is not None:
        load_weights(network, ckpt_path, name)
    from sam2long.network.sam2 import forget_positions_elsewhere

    network = network.to(device).eval()
    forget_positions_elsewhere(network)
    return network, said


def known_hub_id(model_id: str) -> str:
    """The id of one of Meta's models.

    Raises:
        ModelError: it is none.
    """
    if model_id not in BY_HUB_ID:
        raise ModelError(f"{model_id!r} is not a SAM 2 model on the hub; the models are {', '.join(BY_HUB_ID)}")
    return model_id


def _depth_of_caller() -> int:
    """Of the frame that called the package, for a warning: whoever built the predictor, not a line of ours."""
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame, depth = frame.f_back, depth + 1
    return depth


def _instantiate(config: str, overrides: Sequence[str]) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The model that a YAML describes, and what it says to SAM2Long; the host's Hydra stays as it is."""
    import sam2
    from hydra.errors import HydraException
    from hydra.utils import instantiate
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
        model = _model_of(path, overrides)
        ours = {name: model.pop(name) for name in ("sam2long", "dtype") if name in model}
        return instantiate(model, _recursive_=True), ours
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ModelError(f"the model config {config} cannot be used: {first_line(error)}") from error


def _model_of(path: Path, overrides: Sequence[str]) -> DictConfig:
    """Section `model` of a YAML, with overrides in Hydra's grammar."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    content = OmegaConf.load(path)
    if not OmegaConf.is_dict(content) or "image_encoder" not in (content.get("model") or {}):
        raise ModelError(f"{path} describes no model; expected a section 'model' like in Meta's configs")
    if "defaults" in content:
        raise ModelError(
            f"{path} has a list 'defaults', which names other files; write what they say into this one: the configs of "
            "sam2 that models are built from have none"
        )
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.key_or_group
        if override.is_sweep_override():
            raise ModelError(f"{override.input_line} is a sweep over several values; give one")
        if override.is_delete():
            parent, _, name = key.rpartition(".")
            OmegaConf.select(content, parent).pop(name) if parent else content.pop(name)
            continue
        if not (override.is_add() or override.is_force_add()) and OmegaConf.select(content, key) is None:
            raise ModelError(f"{override.input_line}: {path.name} has no {key}; write ++{key}=... to add it")
        OmegaConf.update(content, key, override.value(), merge=True, force_add=True)
    OmegaConf.resolve(content)
    return content.model
