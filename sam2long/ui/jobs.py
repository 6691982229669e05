"""One thread for the model, and the events that tell every open page what happened.

Requests are carried out one after the other in that thread, so two pages cannot be in each other's way. While it
tracks, other changes are refused at once instead of waiting for minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from sam2long.errors import StateError

QUEUE_LENGTH = 256  # events that a page may lag behind; then it is told to load everything anew


GOODBYE = {"type": "goodbye"}  # the server ends


class Busy(StateError):
    """Something else has to finish first."""


class Worker:
    """The thread that owns the model."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sam2long-model")
        self._lock = threading.Lock()
        self._long: Future | None = None
        self._what = ""
        self._cancel = threading.Event()

    @property
    def busy(self) -> bool:
        """Whether something long is under way."""
        return self._long is not None

    def submit(self, action: Callable[[], Any]) -> Future:
        """Carry something out after what has been submitted before.

        Raises:
            Busy: something long is under way.
        """
        with self._lock:
            self._check_free()
            return self._pool.submit(action)

    def submit_long(
        self,
        what: str,
        action: Callable[[Callable[[], bool]], Any],
        taken: Callable[[], None],
        done: Callable[[Future], None],
    ) -> None:
        """Carry out something long, beside which nothing else is taken on.

        Args:
            what: "tracking", for the message to others.
            action: is given a function that says whether it should stop.
            taken: called at once, before `busy` is true.
            done: called at the end, in the thread.
        Raises:
            Busy: something long is under way already.
        """
        with self._lock:
            self._check_free()
            self._cancel.clear()
            self._what = what
            taken()
            future = self._long = self._pool.submit(action, self._cancel.is_set)

        def finished(future: Future) -> None:
            with self._lock:
                self._long = None
            done(future)

        future.add_done_callback(finished)

    def _check_free(self) -> None:
        if self._long is not None:
            raise Busy(f"{self._what} is under way; wait until it is done or cancel it (Esc), and then try again")

    def cancel(self) -> bool:
        """Stop what is under way at the next frame; False when there is nothing."""
        with self._lock:
            self._cancel.set()
            return self._long is not None

    def close(self, last: Callable[[], None]) -> None:
        """Stop what is under way, do one last thing in the thread, and end it."""
        self.cancel()
        self._pool.submit(last).result()
        self._pool.shutdown()


class Hub:
    """Passes events from any thread to all pages that listen."""

    def __init__(self) -> None:
        self._listeners: dict[asyncio.Queue, asyncio.AbstractEventLoop] = {}
        self._lock = threading.RLock()  # a signal's handler publishes too, in the middle of anything

    def publish(self, event: dict[str, Any]) -> None:
        with self._lock:
            listeners = list(self._listeners.items())
        for queue, loop in listeners:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(_offer, queue, event)

    @contextlib.contextmanager
    def listening(self) -> Iterator[asyncio.Queue]:
        """A queue of the events from now on."""
        queue: asyncio.Queue = asyncio.Queue(QUEUE_LENGTH)
        with self._lock:
            self._listeners[queue] = asyncio.get_running_loop()
        try:
            yield queue
        finally:
            with self._lock:
                del self._listeners[queue]


def _offer(queue: asyncio.Queue, event: dict[str, Any]) -> None:
    if queue.full():  # a page that does not keep up loads everything anew: better than events missing
        while not queue.empty():
            queue.get_nowait()
        event = {"type": "reload"}
    queue.put_nowait(event)
