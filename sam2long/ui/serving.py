"""Runs the application until Ctrl-C or termination, and lets go of open pages then."""

from __future__ import annotations

import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from sam2long.runs.stopping import stopping_politely
from sam2long.ui.jobs import GOODBYE, Hub

GRACE_SECONDS = 2  # for requests under way


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, hub: Hub) -> None:
        super().__init__(config)
        self._hub = hub

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._hub.publish(GOODBYE)  # streams of events would be waited for
        super().handle_exit(sig, frame)


def serve(app: FastAPI, listening: socket.socket, hub: Hub) -> None:
    """Answer requests on a socket; returns when the user stops it."""
    config = uvicorn.Config(
        app, log_level="warning", timeout_graceful_shutdown=GRACE_SECONDS, server_header=False, ws="none"
    )
    server = _Server(config, hub)
    # uvicorn raises the signal again when it is done; without a handler that would end the program before it saves.
    with stopping_politely(lambda: None):
        server.run(sockets=[listening])
