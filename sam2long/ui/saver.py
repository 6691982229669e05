"""Saves the tracker's state when the user pauses."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import Future

from sam2long.ui.desk import Desk
from sam2long.ui.jobs import Busy

SAVE_AFTER = 1.5  # seconds without a change after which the tracker's state is saved


class Saver:
    """The tracker's state is larger than prompts and masks, which are saved at once: it waits for a pause."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._timer: asyncio.TimerHandle | None = None

    def soon(self) -> None:
        self.stop()
        self._timer = asyncio.get_running_loop().call_later(SAVE_AFTER, self._save)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _save(self) -> None:
        with contextlib.suppress(Busy):  # tracking saves at its end
            self._desk.worker.submit(self._desk.save).add_done_callback(_report_failure)


def _report_failure(future: Future) -> None:
    if error := future.exception():
        print(f"sam2long: the tracker's state could not be saved: {error}", flush=True)
