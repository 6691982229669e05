"""Models of transformers by their names: weights, and how frames are made ready for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2long.errors import ModelError, first_line
from sam2long.extras import require

if TYPE_CHECKING:
    from torch import nn

PREFIX = "hf:"  # before a hub id or a folder

CLASSES = {  # by the model_type of a config; a repository may hold the image model's or the whole of SAM 3's
    "sam2": "Sam2VideoModel",
    "sam2_video": "Sam2VideoModel",
    "edgetam": "EdgeTamVideoModel",
    "edgetam_video": "EdgeTamVideoModel",
    "sam3": "Sam3TrackerVideoModel",
    "sam3_video": "Sam3TrackerVideoModel",
    "sam3_tracker": "Sam3TrackerVideoModel",
    "sam3_tracker_video": "Sam3TrackerVideoModel",
}
KNOWN = {  # short names that `sam2long models` lists, with the licence of their weights
    **{f"hf:facebook/sam2.1-hiera-{size}": "Apache-2.0" for size in ("tiny", "small", "base-plus", "large")},
    "hf:yonigozlan/EdgeTAM-hf": "Apache-2.0",
    "hf:facebook/sam3": "SAM License; ask for access on its page first",
}
HALVES = (0.5, 0.5, 0.5)  # mean and std of SAM 3's frames
FILTERS = {2: "bilinear", 3: "bicubic"}  # PIL's numbers


def names_one(name: str | os.PathLike) -> bool:
    """Whether a model's name asks for one of transformers."""
    return os.fspath(name).startswith(PREFIX)


def frame_treatment(model: nn.Module, processor: Any = None) -> dict[str, Any]:
    """mean, std and resize for frames: the processor's, else those that the model's own processor has.

    Raises:
        ModelError: the processor resizes in a way that is not known here.
    """
    if processor is None:
        from sam2long.network.protocol import IMAGENET_MEAN, IMAGENET_STD

        of_sam3 = type(model).__name__.startswith("Sam3")
        mean, std = (HALVES, HALVES) if of_sam3 else (IMAGENET_MEAN, IMAGENET_STD)
        return {"mean": mean, "std": std, "resize": "bilinear"}
    own = getattr(processor, "video_processor", None) or getattr(processor, "image_processor", None) or processor
    resample = getattr(own, "resample", 2)
    if (resize := FILTERS.get(-1 if resample is None else int(resample))) is None:
        raise ModelError(f"the processor resizes with filter {resample!r}; expected bilinear or bicubic")
    return {"mean": tuple(own.image_mean), "std": tuple(own.image_std), "resize": resize}


def weights_file(name: str) -> Path | None:
    """Where the weights of a model lie, when they lie on this machine in one file."""
    from huggingface_hub import try_to_load_from_cache

    source, file = name.removeprefix(PREFIX), "model.safetensors"
    if Path(source).is_dir():
        return Path(source) / file
    found = try_to_load_from_cache(source, file)
    return Path(found) if isinstance(found, str) else None


def load(name: str) -> tuple[nn.Module, Any]:
    """A model in eval mode, and its processor, from a hub id or a folder.

    Args:
        name: with or without "hf:" before it.
    Raises:
        ModelError: not to be had, or not a model that can be used here; the message says what to do.
    """
    transformers = require("transformers", "hf", "a model hf:...")
    source = name.removeprefix(PREFIX)
    try:
        config = transformers.AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"no model at {name!r} ({first_line(error)}); give a hub id, as in hf:facebook/sam2.1-hiera-tiny, or a "
            "folder with config.json and weights"
        ) from None
    class_name = CLASSES.get(config.model_type)
    if class_name is None:
        raise ModelError(f"{source} is a {config.model_type!r} model; expected one of {', '.join(sorted(CLASSES))}")
    if not hasattr(transformers, class_name):
        raise ModelError(f"transformers {transformers.__version__} has no {class_name}; pip install -U transformers")
    try:
        model = getattr(transformers, class_name).from_pretrained(source)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"the weights of {source} cannot be had: {first_line(error)}") from None
    try:
        processor = transformers.AutoProcessor.from_pretrained(source)
    except (OSError, ValueError, ImportError, KeyError):  # a folder may hold the weights alone
        processor = None
    return model.eval(), processor
