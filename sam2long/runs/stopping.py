"""Ctrl-C and termination: the first asks for an end, the next one ends the program."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stopping_politely(request: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C or termination calls `request`; the next one ends the program as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    signals = [getattr(signal, name) for name in ("SIGINT", "SIGTERM") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in signals}

    def handle(number: int, frame: object) -> None:
        restore()
        request()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        for number in signals:
            signal.signal(number, handle)
        yield
    finally:
        restore()


def say_stopping() -> None:
    print("\nstopping after this frame, then finishing the files (Ctrl-C again: leave at once)", file=sys.stderr)
