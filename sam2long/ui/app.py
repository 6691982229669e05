"""The HTTP side of a project on the desk."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from sam2long._version import __version__
from sam2long.ui.answers import explain_errors
from sam2long.ui.desk import Desk
from sam2long.ui.routes import ROUTERS
from sam2long.ui.routes.looking import STATIC
from sam2long.ui.saver import Saver
from sam2long.ui.security import Access, Guard


def create_app(desk: Desk, access: Access) -> FastAPI:
    """The application for one project.

    Args:
        desk: project, annotator and worker; the caller closes it.
        access: who may come in.
    """
    saver = Saver(desk)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        saver.stop()

    app = FastAPI(title="sam2long annotate", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
                  openapi_url=None)  # fmt: skip
    app.state.desk, app.state.saver = desk, saver
    app.add_middleware(Guard, access=access)
    explain_errors(app)
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app
