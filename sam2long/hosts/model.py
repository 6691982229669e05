"""The model behind a host, chosen by the words that the command line has for it."""

from __future__ import annotations

import os
from typing import Any

from sam2long.config import Sam2LongConfig
from sam2long.runs.opening import absolute, build_predictor
from sam2long.runs.settings import RunSettings


def load_model(
    model: str = "nano",
    checkpoint: str | None = None,
    device: str | None = None,
    dtype: str = "auto",
    **settings: Any,
) -> Any:
    """A predictor.

    Args:
        model, checkpoint, device, dtype: as --model, --checkpoint, --device and --dtype of `sam2long track`.
        **settings: fields of Sam2LongConfig that differ from the defaults.
    Raises:
        ModelError: a model or weights that are not there. ConfigError: a device or setting that cannot be used.
    """
    return build_predictor(
        RunSettings(
            video="",
            model=absolute(model),
            checkpoint=None if checkpoint is None else os.path.abspath(checkpoint),
            device=device,
            dtype=dtype,
            sam2long=Sam2LongConfig.from_mapping(settings).to_dict(),
        )
    )
