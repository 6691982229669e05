"""Readers that wait for their next frame with a file open. A program that keeps hundreds of videos would run out of
descriptors, so only those used last stay open; the others open their files again when they are asked."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from typing import Protocol

MOST_AWAKE = 16  # readers


class Reader(Protocol):
    def sleep(self) -> bool:
        """Let go of the open file unless it is in use right now; whether it was let go of. Must not wait."""


_lock = threading.Lock()
_awake: OrderedDict[int, weakref.ref] = OrderedDict()  # by id, the one used last at the end


def stays_awake(reader: Reader) -> None:
    """Say that a reader keeps a file open from now on; those that have not been used for longest go to sleep."""
    with _lock:
        _awake[id(reader)] = weakref.ref(reader)
        _awake.move_to_end(id(reader))
        for key in [key for key, found in _awake.items() if found() is None]:
            del _awake[key]
        others = [found() for found in _awake.values()]
    for other in others[:-MOST_AWAKE]:
        if other is not None and other is not reader and other.sleep():
            forget(other)


def forget(reader: Reader) -> None:
    """Say that a reader has no file open any more."""
    with _lock:
        _awake.pop(id(reader), None)
