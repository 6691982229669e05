"""What takes long: tracking and exports. It is begun here, and the events tell of its progress and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse

from sam2long.ui import schemas
from sam2long.ui.pictures import check_frame
from sam2long.ui.routes.wiring import TheDesk
from sam2long.ui.security import below
from sam2long.ui.tracking import Cancelled, Progress
from sam2long.ui.zipping import zipped

router = APIRouter()


@router.post("/api/track", status_code=202)
async def track(said: schemas.TrackRequest, desk: TheDesk) -> dict[str, Any]:
    check_frame(said.start, desk.project.source)
    desk.annotator.tracker.check_can_track(said.objects)
    desk.annotator.tracker.ways(said.direction, said.start, said.end)

    def work(cancelled: Callable[[], bool]) -> dict[str, Any]:
        frames = desk.annotator.tracker.propagate(said.direction, said.start, said.end, said.objects, cancelled)
        stopped = cancelled()
        changes = str(desk.annotator.tracker.changes)
        text = f"{'Cancelled: ' if stopped else ''}{frames} frames tracked{'; ' if changes else ''}{changes}"
        return {"text": text, "frames": frames}

    desk.begin("tracking", work)
    return {}


@router.post("/api/export", status_code=202)
async def export(said: schemas.ExportRequest, desk: TheDesk) -> dict[str, Any]:
    from sam2long.export.convert import check_options, export_run
    from sam2long.folder import check_replaceable

    options = said.model_dump(exclude={"format", "folder", "overwrite"})
    check_options(said.format, **options)
    folder = below(said.folder or f"export/{said.format}", desk.project.folder.path, desk.roots)
    await asyncio.to_thread(check_replaceable, folder, said.overwrite)  # it may hold many files

    def work(cancelled: Callable[[], bool]) -> dict[str, Any]:
        def progress(done: int, total: int) -> None:
            if cancelled():
                raise Cancelled
            desk.progressed(Progress(said.format, None, done, total))

        desk.project.finish_files()
        report = export_run(
            desk.project.folder.path, said.format, folder, overwrite=said.overwrite, progress=progress, **options
        )
        files = [file.relative_to(report.folder).as_posix() for file in report.files]
        return {
            "text": f"{len(files)} files written to {report.folder}",
            "folder": str(report.folder),
            "name": desk.exported(report.folder),
            "files": files[:200],
            "count": len(files),
            "lost": report.lost,
        }

    desk.begin("an export", work)
    return {"folder": str(folder)}


@router.get("/api/exports/{name}.zip")
def download(name: str, desk: TheDesk) -> Response:
    """An export of this session in one file, made while it is sent: nothing is left behind when a browser hangs up."""
    folder = desk.export_folder(name)
    named = f"attachment; filename*=utf-8''{quote(name)}.zip"
    return StreamingResponse(zipped(folder), media_type="application/zip", headers={"content-disposition": named})


@router.post("/api/cancel")
async def cancel(desk: TheDesk) -> dict[str, Any]:
    return {"cancelled": desk.worker.cancel()}
