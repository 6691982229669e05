"""The page, its frames and masks, where to look, and events for what happened."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse

from sam2long.ui.answers import FRAME_CACHE, NO_STORE
from sam2long.ui.desk import MOST_LOOKS, Desk, formats
from sam2long.ui.jobs import GOODBYE
from sam2long.ui.pictures import check_frame, shapes_of
from sam2long.ui.routes.wiring import TheDesk

STATIC = Path(__file__).parent.parent / "static"
PING_SECONDS = 15.0  # so that proxies and browsers keep the stream of events open
router = APIRouter()


@router.get("/")
def page() -> Response:
    return FileResponse(STATIC / "index.html", headers=NO_STORE)


@router.get("/api/state")
def state(desk: TheDesk) -> Response:
    return JSONResponse({**desk.state(), "formats": formats(), "view": desk.project.view()}, headers=NO_STORE)


@router.get("/api/timeline")
def timeline(desk: TheDesk, object: int | None = None) -> Response:
    return JSONResponse(desk.timeline(None if object is None else [object]), headers=NO_STORE)


@router.get("/api/frames/{frame}.jpg")
def picture(frame: int, desk: TheDesk) -> Response:
    check_frame(frame, desk.project.source)
    return Response(desk.pictures.jpeg(frame), media_type="image/jpeg", headers=FRAME_CACHE)


@router.get("/api/frames/{frame}")
def masks_of_a_frame(frame: int, desk: TheDesk, shapes: bool = False) -> Response:
    check_frame(frame, desk.project.source)
    found = desk.on_frame(frame)
    if shapes:
        for entry in found["objects"].values():
            entry["shapes"] = shapes_of(entry["mask"]) if entry["mask"] else None
    return JSONResponse(found, headers=NO_STORE)


@router.get("/api/looks")
def looks(desk: TheDesk, limit: int = Query(MOST_LOOKS, ge=1, le=500)) -> Response:
    """The frames to look at, in that order."""
    return JSONResponse({"frames": desk.looks(limit)}, headers=NO_STORE)


@router.get("/api/events")
async def events(desk: TheDesk) -> Response:
    return StreamingResponse(_events(desk), media_type="text/event-stream", headers=NO_STORE)


async def _events(desk: Desk) -> AsyncIterator[str]:
    with desk.hub.listening() as queue:
        yield "retry: 1000\n\n" + _event({"type": "state", "state": desk.state(), "objects": []})
        while True:
            try:
                event = await asyncio.wait_for(queue.get(), PING_SECONDS)
            except asyncio.TimeoutError:
                yield ": still here\n\n"
                continue
            if event == GOODBYE:
                return
            yield _event(event)


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, separators=(',', ':'))}\n\n"
