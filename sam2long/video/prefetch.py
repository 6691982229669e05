"""Run an iterator in a thread, a few items ahead of its consumer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.05  # how soon a full queue notices that nobody wants more
JOIN_SECONDS = 5.0  # a source that blocks longer (a dead network) is left behind as a daemon

_ITEM, _END, _ERROR = range(3)


def prefetched(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    """Yield what `items` yields, worked out up to `depth` items ahead in a thread.

    Exceptions of `items` are raised here. The thread ends with the items, when this generator is
    closed, and when it is garbage-collected. depth 0: no thread.

    Args:
        items: used by the thread alone from the first `next` on; closed at the end when it is a generator.
        depth: how many finished items may wait.
    """
    if depth <= 0:
        try:
            yield from items
        finally:
            _close(items)
        return
    ready: queue.Queue = queue.Queue(maxsize=depth)
    stop = threading.Event()
    thread = threading.Thread(target=_work, args=(items, ready, stop), name="sam2long-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == _END:
                return
            if kind == _ERROR:
                raise value
            yield value
    finally:
        stop.set()
        thread.join(JOIN_SECONDS)


def _work(items: Iterator, ready: queue.Queue, stop: threading.Event) -> None:
    try:
        for item in items:
            if not _put(ready, (_ITEM, item), stop):
                return
        _put(ready, (_END, None), stop)
    except BaseException as error:  # handed to the consumer, whatever it is
        _put(ready, (_ERROR, error), stop)
    finally:
        _close(items)


def _put(ready: queue.Queue, entry: tuple, stop: threading.Event) -> bool:
    while not stop.is_set():
        try:
            ready.put(entry, timeout=POLL_SECONDS)
            return True
        except queue.Full:
            continue
    return False


def _close(items: Iterator) -> None:
    close = getattr(items, "close", None)
    if close is not None:
        close()
