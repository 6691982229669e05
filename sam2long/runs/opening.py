"""What every run begins with: paths that stay right, the model, frames by their numbers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sam2long.errors import ConfigError, ModelError, PromptError
from sam2long.network import transformers_loading
from sam2long.runs.settings import RunSettings

if TYPE_CHECKING:
    from sam2long.video.source import FrameSource


def build_predictor(settings: RunSettings) -> Any:
    """The predictor of a run.

    Raises:
        ModelError: no weights; the message says how to get them.
        ConfigError: a device that is not there.
    """
    from sam2long.weights import BY_HUB_ID, CHECKPOINTS

    known = (
        settings.model in CHECKPOINTS or settings.model in BY_HUB_ID or transformers_loading.names_one(settings.model)
    )
    if settings.checkpoint is None and not known:
        raise ModelError(
            f"the model {settings.model} has no weights of its own; add --checkpoint, "
            f"or use a short name: {', '.join(CHECKPOINTS)}"
        )
    _check_device(settings.device)
    from sam2long import build_sam2long_video_predictor

    return build_sam2long_video_predictor(
        settings.model,
        settings.checkpoint,
        device=settings.device,
        hydra_overrides_extra=list(settings.overrides),
        sam2long=settings.config(),
        dtype=settings.dtype,
        compile=settings.compile,
    )


def _check_device(device: str | None) -> None:
    if device is None:
        return
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        reason = (str(error).splitlines() or ["unknown"])[0]
        raise ConfigError(
            f"--device {device} cannot be used ({reason}); leave it out to take the best there is"
        ) from None


def require_length(source: FrameSource, video: str) -> int:
    """How many frames there are; a ConfigError where that is not known."""
    if source.num_frames is None:
        raise ConfigError(
            f"{video} has no known length; record it to a file first, or use the Python API for live video"
        )
    return source.num_frames


def index_of(frame: int, source: FrameSource, do: str = "prompt") -> int:
    """Which of the tracked frames a frame of the video is. do: what else to do with one of them, for the message."""
    from sam2long.video.names import number_in

    selection, length = source.selection, source.num_frames or 0
    index, rest = divmod(frame - selection.start, selection.stride)
    if rest == 0 and 0 <= index < length:
        return index
    last = source.source_index(length - 1)
    every = f" in steps of {selection.stride}" if selection.stride > 1 else ""
    names = source.names or ()
    named = [at for at, name in enumerate(names) if number_in(name) == frame]
    by_position = (
        f". Frames are counted by position: {names[named[0]]} is frame {source.source_index(named[0])}" if named else ""
    )
    raise PromptError(
        f"frame {frame} is not among the frames tracked, {selection.start} to {last}{every}; {do} one of those"
        f"{by_position}"
    )


def absolute(text: str) -> str:
    """Paths that exist become absolute, so that a run can be resumed from anywhere; names stay as they are."""
    if transformers_loading.names_one(text):
        return transformers_loading.PREFIX + absolute(text.removeprefix(transformers_loading.PREFIX))
    return os.path.abspath(text) if text and os.path.exists(text) else text
