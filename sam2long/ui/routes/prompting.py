"""Objects and their prompts; undo; where the user is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request

from sam2long.ui import schemas
from sam2long.ui.desk import Desk
from sam2long.ui.pictures import check_frame
from sam2long.ui.routes.wiring import Change, TheDesk
from sam2long.ui.uploads import read_mask, read_shapes

router = APIRouter()


@router.post("/api/objects")
async def new_object(said: schemas.NewObject, desk: TheDesk, change: Change) -> dict[str, Any]:
    entry = await change(desk.annotator.new_object, said.name, said.label, said.colour)
    return {"id": entry.id}


@router.patch("/api/objects/{obj_id}")
async def change_object(obj_id: int, said: schemas.ObjectChange, desk: TheDesk, change: Change) -> dict[str, Any]:
    fields = said.model_dump(exclude_none=True)
    await change(desk.annotator.change_object, obj_id, **fields)
    return {"id": obj_id}


@router.delete("/api/objects/{obj_id}")
async def remove_object(obj_id: int, desk: TheDesk, change: Change) -> dict[str, Any]:
    await change(desk.annotator.remove_object, obj_id)
    return {}


@router.post("/api/objects/{obj_id}/reset")
async def reset_object(obj_id: int, desk: TheDesk, change: Change) -> dict[str, Any]:
    await change(desk.annotator.reset_object, obj_id)
    return {}


@router.post("/api/reset")
async def reset(said: schemas.Reset, desk: TheDesk, change: Change) -> dict[str, Any]:
    await change(desk.annotator.reset, said.keep_masks)
    return {}


@router.post("/api/prompts/click")
async def click(said: schemas.Click, desk: TheDesk, change: Change) -> dict[str, Any]:
    await change(desk.annotator.click, said.object, said.frame, said.x, said.y, said.positive)
    return await asyncio.to_thread(desk.on_frame, said.frame)


@router.post("/api/prompts/box")
async def box(said: schemas.Box, desk: TheDesk, change: Change) -> dict[str, Any]:
    await change(desk.annotator.box, said.object, said.frame, said.box)
    return await asyncio.to_thread(desk.on_frame, said.frame)


@router.post("/api/prompts/clear")
async def clear(said: schemas.OnFrame, desk: TheDesk, change: Change) -> dict[str, Any]:
    await change(desk.annotator.clear, said.object, said.frame)
    return await asyncio.to_thread(desk.on_frame, said.frame)


@router.post("/api/prompts/lock")
async def lock(said: schemas.OnFrame, desk: TheDesk, change: Change) -> dict[str, Any]:
    await change(desk.annotator.lock, said.object, said.frame)
    return await asyncio.to_thread(desk.on_frame, said.frame)


@router.put("/api/objects/{obj_id}/frames/{frame}/mask")
async def upload_mask(obj_id: int, frame: int, request: Request, desk: TheDesk, change: Change) -> dict[str, Any]:
    check_frame(frame, desk.project.source)
    data, source = await request.body(), desk.project.source
    mask = await _read(desk, lambda: read_mask(data, source.height, source.width))
    await change(desk.annotator.mask, obj_id, frame, mask)
    return await asyncio.to_thread(desk.on_frame, frame)


@router.put("/api/frames/{frame}/shapes")
async def upload_shapes(frame: int, request: Request, desk: TheDesk, change: Change) -> dict[str, Any]:
    check_frame(frame, desk.project.source)
    data = await request.body()
    prompts = await _read(desk, lambda: read_shapes(data, desk.project.source))
    await change(desk.annotator.take, frame, prompts)
    moved = {prompt.called: prompt.obj_id for prompt in prompts if prompt.called}
    return {**await asyncio.to_thread(desk.on_frame, frame), "moved": moved}


async def _read(desk: Desk, work: Callable[[], Any]) -> Any:
    """Look at an upload, after those that came before: however many come, the rest of the server goes on."""
    return await asyncio.wrap_future(desk.reading.submit(work))


@router.post("/api/undo")
async def undo(desk: TheDesk, change: Change) -> dict[str, Any]:
    obj_id, frame = await change(desk.annotator.undo)
    return {"object": obj_id, "frame": frame}


@router.put("/api/view")
def view(said: schemas.View, desk: TheDesk) -> dict[str, Any]:
    check_frame(said.frame, desk.project.source)
    desk.project.save_view(said.model_dump())
    return {}
