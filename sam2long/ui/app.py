"""The HTTP side: what the page asks for, and events for what happened. No model work is done here (jobs.py)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException

from sam2long._version import __version__
from sam2long.errors import DataError, Sam2LongError
from sam2long.ui import schemas
from sam2long.ui.desk import Desk, formats
from sam2long.ui.jobs import GOODBYE, Busy
from sam2long.ui.pictures import check_frame, shapes_of
from sam2long.ui.security import Access, Guard, below
from sam2long.ui.tracking import Cancelled, Progress
from sam2long.ui.uploads import read_mask, read_shapes

STATIC = Path(__file__).parent / "static"
PING_SECONDS = 15.0  # so that proxies and browsers keep the stream of events open
SAVE_AFTER = 1.5  # seconds without a change after which the tracker's state is saved
FRAME_CACHE = {"cache-control": "private, max-age=3600"}
NO_STORE = {"cache-control": "no-store"}


def create_app(desk: Desk, access: Access) -> FastAPI:
    """The application for one project.

    Args:
        desk: project, annotator and worker; the caller closes it.
        access: who may come in.
    """
    saver = _Saver(desk)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        saver.stop()

    app = FastAPI(title="sam2long annotate", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
                  openapi_url=None)  # fmt: skip
    app.add_middleware(Guard, access=access)
    app.add_exception_handler(Sam2LongError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(OSError, _os_error)
    app.add_exception_handler(Exception, _unexpected)
    annotator, project = desk.annotator, desk.project

    async def change(action: Callable[[], Any]) -> Any:
        """Do something to the project, in the model's thread, and tell every page."""
        result = await asyncio.wrap_future(desk.worker.submit(action))
        saver.soon()
        return result

    # ---- looking ------------------------------------------------------------------------------------------------

    @app.get("/")
    def page() -> Response:
        return FileResponse(STATIC / "index.html", headers=NO_STORE)

    @app.get("/api/state")
    def state() -> Response:
        return JSONResponse({**desk.state(), "formats": formats(), "view": project.view()}, headers=NO_STORE)

    @app.get("/api/timeline")
    def timeline(object: int | None = None) -> Response:
        return JSONResponse(desk.timeline(None if object is None else [object]), headers=NO_STORE)

    @app.get("/api/frames/{frame}.jpg")
    def picture(frame: int) -> Response:
        check_frame(frame, project.source)
        return Response(desk.pictures.jpeg(frame), media_type="image/jpeg", headers=FRAME_CACHE)

    @app.get("/api/frames/{frame}")
    def annotations(frame: int, shapes: bool = False) -> Response:
        check_frame(frame, project.source)
        found = desk.on_frame(frame)
        if shapes:
            for entry in found["objects"].values():
                entry["shapes"] = shapes_of(entry["mask"]) if entry["mask"] else None
        return JSONResponse(found, headers=NO_STORE)

    @app.get("/api/doubtful")
    def doubtful(frame: int = 0, backward: bool = False, object: int | None = None) -> Response:
        """The next frame to look at."""
        return JSONResponse({"found": desk.next_doubtful(frame, backward, object)}, headers=NO_STORE)

    @app.get("/api/doubtful/ranked")
    def most_doubtful(limit: int = Query(20, ge=1, le=500)) -> Response:
        return JSONResponse({"frames": desk.most_doubtful(limit)}, headers=NO_STORE)

    @app.get("/api/events")
    async def events() -> Response:
        return StreamingResponse(_events(desk), media_type="text/event-stream", headers=NO_STORE)

    # ---- objects and prompts ------------------------------------------------------------------------------------

    @app.post("/api/objects")
    async def new_object(said: schemas.NewObject) -> dict[str, Any]:
        entry = await change(lambda: desk.acted(annotator.new_object, said.name, said.label, said.colour))
        return {"id": entry.id}

    @app.patch("/api/objects/{obj_id}")
    async def change_object(obj_id: int, said: schemas.ObjectChange) -> dict[str, Any]:
        fields = said.model_dump(exclude_none=True)
        await change(lambda: desk.acted(annotator.change_object, obj_id, **fields))
        return {"id": obj_id}

    @app.delete("/api/objects/{obj_id}")
    async def remove_object(obj_id: int) -> dict[str, Any]:
        await change(lambda: desk.acted(annotator.remove_object, obj_id))
        return {}

    @app.post("/api/objects/{obj_id}/reset")
    async def reset_object(obj_id: int) -> dict[str, Any]:
        await change(lambda: desk.acted(annotator.reset_object, obj_id))
        return {}

    @app.post("/api/reset")
    async def reset(said: schemas.Reset) -> dict[str, Any]:
        await change(lambda: desk.acted(annotator.reset, said.keep_masks))
        return {}

    @app.post("/api/prompts/click")
    async def click(said: schemas.Click) -> dict[str, Any]:
        await change(lambda: desk.acted(annotator.click, said.object, said.frame, said.x, said.y, said.positive))
        return await asyncio.to_thread(desk.on_frame, said.frame)

    @app.post("/api/prompts/box")
    async def box(said: schemas.Box) -> dict[str, Any]:
        await change(lambda: desk.acted(annotator.box, said.object, said.frame, said.box))
        return await asyncio.to_thread(desk.on_frame, said.frame)

    @app.post("/api/prompts/clear")
    async def clear(said: schemas.OnFrame) -> dict[str, Any]:
        await change(lambda: desk.acted(annotator.clear, said.object, said.frame))
        return await asyncio.to_thread(desk.on_frame, said.frame)

    @app.post("/api/prompts/lock")
    async def lock(said: schemas.OnFrame) -> dict[str, Any]:
        await change(lambda: desk.acted(annotator.lock, said.object, said.frame))
        return await asyncio.to_thread(desk.on_frame, said.frame)

    @app.put("/api/objects/{obj_id}/frames/{frame}/mask")
    async def upload_mask(obj_id: int, frame: int, request: Request) -> dict[str, Any]:
        check_frame(frame, project.source)
        data = await request.body()
        source = project.source
        mask = await asyncio.to_thread(read_mask, data, source.height, source.width)
        await change(lambda: desk.acted(annotator.mask, obj_id, frame, mask))
        return await asyncio.to_thread(desk.on_frame, frame)

    @app.put("/api/frames/{frame}/shapes")
    async def upload_shapes(frame: int, request: Request) -> dict[str, Any]:
        check_frame(frame, project.source)
        prompts = await asyncio.to_thread(read_shapes, await request.body(), project.source)
        await change(lambda: desk.acted(annotator.take, frame, prompts))
        return await asyncio.to_thread(desk.on_frame, frame)

    @app.post("/api/undo")
    async def undo() -> dict[str, Any]:
        obj_id, frame = await change(lambda: desk.acted(annotator.undo))
        return {"object": obj_id, "frame": frame}

    @app.put("/api/view")
    def view(said: schemas.View) -> dict[str, Any]:
        check_frame(said.frame, project.source)
        project.save_view(said.model_dump())
        return {}

    # ---- what takes long ----------------------------------------------------------------------------------------

    @app.post("/api/track", status_code=202)
    async def track(said: schemas.TrackRequest) -> dict[str, Any]:
        check_frame(said.start, project.source)
        annotator.tracker.check_can_track(said.objects)
        annotator.tracker.ways(said.direction, said.start, said.end)

        def work(cancelled: Callable[[], bool]) -> dict[str, Any]:
            frames = annotator.tracker.propagate(said.direction, said.start, said.end, said.objects, cancelled)
            stopped = cancelled()
            return {"text": f"{'Cancelled: ' if stopped else ''}{frames} frames tracked", "frames": frames}

        desk.begin("tracking", work)
        return {}

    @app.post("/api/export", status_code=202)
    async def export(said: schemas.ExportRequest) -> dict[str, Any]:
        from sam2long.export.convert import check_options, export_run
        from sam2long.export.folder import check_replaceable

        check_options(said.format, said.shape, images=said.images)
        folder = below(said.folder or f"export/{said.format}", desk.project.folder.path, desk.roots)
        await asyncio.to_thread(check_replaceable, folder, said.overwrite)  # it may hold many files

        def work(cancelled: Callable[[], bool]) -> dict[str, Any]:
            def progress(done: int, total: int) -> None:
                if cancelled():
                    raise Cancelled
                desk.progressed(Progress(said.format, None, done, total))

            project.finish_files()
            report = export_run(
                project.folder.path, said.format, folder, shape=said.shape, images=said.images,
                overwrite=said.overwrite, progress=progress,
            )  # fmt: skip
            files = [file.relative_to(report.folder).as_posix() for file in report.files]
            desk.exports[report.folder.name] = report.folder
            return {
                "text": f"{len(files)} files written to {report.folder}",
                "folder": str(report.folder),
                "name": report.folder.name,
                "files": files[:200],
                "count": len(files),
                "lost": report.lost,
            }

        desk.begin("an export", work)
        return {"folder": str(folder)}

    @app.get("/api/exports/{name}.zip")
    def download(name: str) -> Response:
        """An export of this session in one file."""
        folder = desk.exports.get(name)
        if folder is None or not folder.is_dir():
            raise DataError(f"there is no export {name!r} of this session; export it first")
        parent = Path(tempfile.mkdtemp(prefix="sam2long-"))
        archive = shutil.make_archive(str(parent / "export"), "zip", folder)
        cleaned = BackgroundTask(shutil.rmtree, parent, ignore_errors=True)
        return FileResponse(archive, filename=f"{name}.zip", media_type="application/zip", background=cleaned)

    @app.post("/api/cancel")
    async def cancel() -> dict[str, Any]:
        return {"cancelled": desk.worker.cancel()}

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


class _Saver:
    """Saves the tracker's state when the user pauses: it is larger than prompts and masks, which are saved at once."""

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


# ---- what goes wrong, in one sentence -----------------------------------------------------------------------------


def _sentence(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": " ".join(text.split())}, status_code=status)


async def _refused(request: Request, error: Exception) -> Response:
    return _sentence(409 if isinstance(error, Busy) else 400, str(error))


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", "it breaks off")
        return _sentence(400, f"the request is not JSON ({reason}); send one JSON object")
    where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path")) or "the request"
    return _sentence(400, f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}")


async def _http_error(request: Request, error: HTTPException) -> Response:
    return _sentence(error.status_code, f"{request.method} {request.url.path}: {error.detail}")


async def _os_error(request: Request, error: OSError) -> Response:
    return _sentence(500, f"a file could not be read or written: {error.strerror or error}")


async def _unexpected(request: Request, error: Exception) -> Response:
    """The traceback is on the terminal; the page must not stand there without a word."""
    return _sentence(500, f"something unexpected went wrong ({type(error).__name__}: {error}); what was done is saved")
