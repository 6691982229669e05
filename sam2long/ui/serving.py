"""Runs the application until Ctrl-C or termination, and lets go of open pages then, and of slow clients before."""

from __future__ import annotations

import socket
import time
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from sam2long.runs.stopping import stopping_politely
from sam2long.ui.jobs import GOODBYE, Hub

GRACE_SECONDS = 2  # for requests under way
STILL_SECONDS = 60.0  # that a client may neither ask anything whole nor read; uvicorn itself waits for ever
MOST_CONNECTIONS = 400  # each is a descriptor, of which a process has 1024 as a rule


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, hub: Hub) -> None:
        super().__init__(config)
        self._hub = hub
        self._still: dict[Any, tuple[Any, float]] = {}  # connection -> how it stands, and since when

    async def on_tick(self, counter: int) -> bool:
        self._hang_up(time.monotonic())
        return await super().on_tick(counter)

    def _hang_up(self, now: float) -> None:
        """Close connections that stand still for long; where there are too many, the oldest of those at once."""
        before, self._still = self._still, {}
        for connection in self.server_state.connections:
            if (stand := _stand(connection)) is not None:
                known, since = before.get(connection, (stand, now))
                self._still[connection] = stand, since if known == stand else now
        oldest = sorted(self._still.items(), key=lambda item: item[1][1])
        too_many = len(self.server_state.connections) - MOST_CONNECTIONS
        for number, (connection, (_, since)) in enumerate(oldest):
            if number < too_many or now - since > STILL_SECONDS:
                connection.transport.abort()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._hub.publish(GOODBYE)  # streams of events would be waited for
        super().handle_exit(sig, frame)


def _stand(connection: Any) -> Any:
    """What stays the same while a client does nothing that is waited for; None while the server is at work."""
    cycle = connection.cycle  # of its last request
    unread = connection.transport.get_write_buffer_size()
    return (cycle, unread) if unread or cycle is None or cycle.response_complete else None


def serve(app: FastAPI, listening: socket.socket, hub: Hub) -> None:
    """Answer requests on a socket; returns when the user stops it."""
    config = uvicorn.Config(
        app, log_level="warning", timeout_graceful_shutdown=GRACE_SECONDS, server_header=False, ws="none"
    )
    server = _Server(config, hub)
    # uvicorn raises the signal again when it is done; without a handler that would end the program before it saves.
    with stopping_politely(lambda: None):
        server.run(sockets=[listening])
