"""A run on disk: begun, stopped, gone on with, from Python as from the command line."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sam2long.imports.prompt import ObjectPrompt
    from sam2long.runs.beginning import begin_run, resume_run
    from sam2long.runs.finding import Everything, Words
    from sam2long.runs.settings import RunSettings

__all__ = ["Everything", "ObjectPrompt", "RunSettings", "Words", "begin_run", "resume_run"]

# Video and image libraries take a moment to import; these names load them on first use.
_LAZY = {
    "begin_run": "sam2long.runs.beginning",
    "resume_run": "sam2long.runs.beginning",
    "Everything": "sam2long.runs.finding",
    "Words": "sam2long.runs.finding",
    "ObjectPrompt": "sam2long.imports.prompt",
    "RunSettings": "sam2long.runs.settings",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'sam2long.runs' has no attribute {name!r}")
