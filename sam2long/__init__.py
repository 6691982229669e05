"""SAM2Long as a plugin on the unmodified sam2: robust tracking of any object through a video of any length."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sam2long._version import __version__
from sam2long.config import Sam2LongConfig
from sam2long.errors import Sam2LongError

if TYPE_CHECKING:
    from sam2long.build import build_sam2long_camera_predictor, build_sam2long_video_predictor
    from sam2long.camera import SAM2LongCameraPredictor
    from sam2long.predictor import SAM2LongVideoPredictor
    from sam2long.supervision import to_supervision

__all__ = [
    "SAM2LongCameraPredictor",
    "SAM2LongVideoPredictor",
    "Sam2LongConfig",
    "Sam2LongError",
    "__version__",
    "build_sam2long_camera_predictor",
    "build_sam2long_video_predictor",
    "to_supervision",
]

# torch and sam2 take seconds to import; these names load them on first use.
_LAZY = {
    "SAM2LongVideoPredictor": "sam2long.predictor",
    "SAM2LongCameraPredictor": "sam2long.camera",
    "build_sam2long_video_predictor": "sam2long.build",
    "build_sam2long_camera_predictor": "sam2long.build",
    "to_supervision": "sam2long.supervision",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'sam2long' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
