"""The tracker's state in a run's folder: saved seldom enough to cost little, one file at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SAVE_SECONDS = 60.0  # how often the state is saved, and
SAVE_SHARE = 0.05  # the share of the time that saving may take


class StateSaver:
    """Saves a state beside the file that names it, so that one of both fits the other whenever the program ends.

    Args:
        folder: for the states; made at the first one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._saved_at = time.monotonic()
        self._cost = 0.0

    def is_due(self) -> bool:
        return time.monotonic() - self._saved_at > max(SAVE_SECONDS, self._cost / SAVE_SHARE)

    def save(self, predictor: Any, state: Any, name: str, record: Callable[[str], None]) -> None:
        """Save a state, then have it named, then remove those before it.

        Args:
            predictor: of the state. name: of the new one among others, without ending.
            record: writes down, all or nothing, which file counts from now on.
        """
        begun = time.monotonic()
        self._folder.mkdir(exist_ok=True)
        before = set(self._folder.glob("state-*.safetensors"))
        file = self._folder / f"state-{name}.safetensors"
        predictor.save_state(state, file)
        record(file.name)
        for old in before - {file}:
            old.unlink(missing_ok=True)
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - begun
