"""Libraries that only some commands need."""

from __future__ import annotations

import importlib
from types import ModuleType

from sam2long.errors import ConfigError


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional library.

    Args:
        module: to import. extra: of our package, that installs it. purpose: what needs it, for the message.
    Raises:
        ConfigError: not installed; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        reason = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be loaded ({error})"
        raise ConfigError(f'{purpose} needs {module}, which {reason}; pip install "sam2long[{extra}]"') from None
