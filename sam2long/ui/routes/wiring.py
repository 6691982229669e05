"""What every route may ask for: the desk, and a way to change it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, Request

from sam2long.naming import MOST_LETTERS
from sam2long.ui.desk import Desk
from sam2long.ui.security import MOST_DIGITS


async def _desk(request: Request) -> Desk:
    return request.app.state.desk


async def _change(request: Request) -> Callable[..., Awaitable[Any]]:
    desk, saver = request.app.state.desk, request.app.state.saver
    page = request.headers.get("x-page", "")[:MOST_LETTERS]
    said = request.headers.get("x-seen", "")
    seen = int(said) if said.isdecimal() and len(said) <= MOST_DIGITS else None

    async def change(action: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Do something to the project, in the model's thread, and tell every page."""
        result = await asyncio.wrap_future(desk.worker.submit(lambda: desk.acted(page, seen, action, *args, **kwargs)))
        saver.soon()
        return result

    return change


TheDesk = Annotated[Desk, Depends(_desk)]
Change = Annotated[Callable[..., Awaitable[Any]], Depends(_change)]
