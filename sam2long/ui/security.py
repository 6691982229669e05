"""Who may ask, from where, and how much: checked before anything else sees a request.

- The Host header must name this server. Otherwise a web page could reach it under a name of its own that it points
  at this machine (DNS rebinding).
- A request that changes something must come from this server's own page (Origin).
- With a token, every request needs it, in a cookie that the printed address sets, or as `Authorization: Bearer`.
- Bodies have a limit, of bytes, also when they do not say how long they are, and of seconds.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
from collections.abc import Collection
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from sam2long.errors import DataError

MOST_BYTES = 1 << 20  # of a JSON body
MOST_DIGITS = 18  # of a Content-Length
MOST_UPLOAD_BYTES = 16 << 20  # of a mask picture, or of another editor's shapes
BODY_SECONDS = 300.0  # for it to arrive; the largest, at half a megabit a second
UPLOAD_SUFFIXES = ("/mask", "/shapes")
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
HEADERS = (
    (b"content-security-policy", b"default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; "
     b"base-uri 'none'; form-action 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Access:
    """Who may come in.

    Args:
        hosts: names that the Host header may have.
        any_address: it may also be any IP address, which no foreign page can stand for.
        token: None when none is needed.
        cookie: name of the cookie that holds it; one per port, because browsers share cookies among ports.
    """

    hosts: frozenset[str] = LOOPBACK_NAMES
    any_address: bool = False
    token: str | None = None
    cookie: str = "sam2long"

    def knows(self, host: str | None) -> bool:
        """Whether a Host header names this server."""
        name = host_name(host)
        return name is not None and (name in self.hosts or (self.any_address and is_address(name)))

    def is_right(self, token: str | None) -> bool:
        """In constant time."""
        return token is not None and hmac.compare_digest(token.encode(), (self.token or "").encode())


def host_name(host: str | None) -> str | None:
    """The name in "name:port"; None when it is none."""
    try:
        return urlsplit(f"//{host}").hostname if host else None
    except ValueError:
        return None


def _netloc(origin: str) -> str | None:
    """ "name:port" of an address; None when it is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def below(path: str, base: Path, roots: Collection[Path]) -> Path:
    """A path that a request names, checked to lie below one of the roots, links followed.

    Args:
        path: absolute, or relative to `base`.
    Raises:
        DataError: it lies elsewhere, or is no path.
    """
    try:
        found = (base / path).resolve()
    except (OSError, ValueError, RuntimeError):
        raise DataError("the folder's name is not a path; expected one like exports/coco") from None
    if not any(found.is_relative_to(root.resolve()) for root in roots):
        raise DataError(f"{path!r} lies outside the folders that this page may use; choose one below them")
    return found


class Guard:
    """ASGI middleware that turns away what `Access` does not allow."""

    def __init__(self, app, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})  # the page uses none
                return
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        limit = MOST_UPLOAD_BYTES if scope["path"].endswith(UPLOAD_SUFFIXES) else MOST_BYTES
        declared = headers.get("content-length", "0")
        if not declared.isdecimal() or len(declared) > MOST_DIGITS:
            await _answer(send, 400, "the request's Content-Length is not a number; leave it to the client")
            return
        if int(declared) > limit:
            await _answer(send, 413, _too_large(limit))
            return
        body = _Body(receive, limit) if scope["method"] not in SAFE_METHODS else None
        try:
            if body is not None and not await asyncio.wait_for(body.read(), BODY_SECONDS):
                await _answer(send, 413, _too_large(limit))
                return
        except asyncio.TimeoutError:
            await _answer(send, 408, f"the request has not arrived whole in {BODY_SECONDS:g} seconds; send it again")
            return
        await self.app(scope, body.receive if body else receive, _with_headers(send))

    def _refusal(self, scope, headers: dict[str, str]) -> tuple[int, str, dict[str, str]] | tuple[int, str] | None:
        access = self.access
        if not access.knows(headers.get("host")):
            return 421, "this server does not go by that name; open the address that `sam2long annotate` printed"
        if scope["method"] not in SAFE_METHODS:
            origin = headers.get("origin")
            foreign = origin is not None and _netloc(origin) != headers.get("host")
            if foreign or headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
                return 403, "the request comes from another page; changes are made from this server's own page only"
        if access.token is None:
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [None])[0]
        if scope["path"] == "/" and given is not None and access.is_right(given):
            cookie = f"{access.cookie}={given}; HttpOnly; SameSite=Strict; Path=/"
            return 303, "", {"location": "/", "set-cookie": cookie}  # and the token is gone from the address bar
        bearer = headers.get("authorization", "").removeprefix("Bearer ").strip() or None
        if access.is_right(_cookie(headers, access.cookie)) or access.is_right(bearer):
            return None
        return 401, "a token is needed; open the address with ?token=... that `sam2long annotate` printed"


class _Body:
    """Reads a body up to a limit, and hands it on."""

    def __init__(self, receive, limit: int) -> None:
        self._receive, self._limit = receive, limit
        self._messages: list[dict] = []

    async def read(self) -> bool:
        """False when it is too long."""
        size = 0
        while True:
            message = await self._receive()
            self._messages.append(message)
            size += len(message.get("body", b""))
            if size > self._limit:
                return False
            if not message.get("more_body"):
                return True

    async def receive(self) -> dict:
        return self._messages.pop(0) if self._messages else await self._receive()


def _too_large(limit: int) -> str:
    return f"the upload is larger than {limit >> 20} MiB, which is the limit; make it smaller"


def _cookie(headers: dict[str, str], name: str) -> str | None:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return None
    return found.value if found else None


def _with_headers(send):
    async def wrapped(message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
        await send(message)

    return wrapped


async def _answer(send, status: int, sentence: str, more: dict[str, str] | None = None) -> None:
    body = json.dumps({"error": sentence}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **(more or {})}
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await _with_headers(send)({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
