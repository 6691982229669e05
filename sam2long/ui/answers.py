"""What goes wrong, in one sentence for the page, and how long a browser may keep an answer."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from sam2long.errors import Sam2LongError
from sam2long.ui.annotator import Outdated
from sam2long.ui.jobs import Busy

FRAME_CACHE = {"cache-control": "private, max-age=3600"}
NO_STORE = {"cache-control": "no-store"}


def explain_errors(app: FastAPI) -> None:
    """Every error becomes {"error": sentence}."""
    app.add_exception_handler(Sam2LongError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(OSError, _os_error)
    app.add_exception_handler(Exception, _unexpected)


def _sentence(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": " ".join(text.split())}, status_code=status)


async def _refused(request: Request, error: Exception) -> Response:
    return _sentence(409 if isinstance(error, (Busy, Outdated)) else 400, str(error))


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
    return _sentence(500, f"a file could not be read or written, and nothing was changed: {error.strerror or error}")


async def _unexpected(request: Request, error: Exception) -> Response:
    """The traceback is on the terminal; the page must not stand there without a word."""
    return _sentence(500, f"something unexpected went wrong ({type(error).__name__}: {error}); what was done is saved")
