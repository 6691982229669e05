"""Label Studio's ML protocol over HTTP: health, set-up, predictions, versions.

Label Studio shows its users the reason phrase of a refusal and nothing else of it: the sentence goes there. ASGI has no
place for one, so the server is Python's own.
"""

from __future__ import annotations

import base64
import hmac
import json
import sys
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sam2long.errors import ConfigError, DataError, Sam2LongError, sentence
from sam2long.hosts.label_studio.backend import Backend

MOST_BYTES = 64 << 20  # of a request: hours of keyframes
UNUSABLE, UNAUTHORISED, NOT_FOUND, FAILED = 422, 401, 404, 500


class Server(ThreadingHTTPServer):
    """Answers until `shutdown`; health at once, also while a video is tracked.

    Args:
        address: to listen on, and a port; 0 for a free one.
        backend: what answers.
        login: "user:password", which Label Studio is to send; None for nobody.
    Raises:
        ConfigError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, address: tuple[str, int], backend: Backend, login: str | None = None) -> None:
        try:
            super().__init__(address, _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"cannot listen on {address[0]}, port {address[1]} ({reason}); choose another --port"
            ) from None
        self.login = None if login is None else f"Basic {base64.b64encode(login.encode()).decode()}"
        version = backend.version
        self.routes: dict[tuple[str, str], Callable[[dict[str, Any]], Any]] = {
            ("GET", ""): lambda body: {"status": "UP", "model_class": version},
            ("GET", "health"): lambda body: {"status": "UP", "model_class": version},
            ("POST", "setup"): lambda body: backend.setup(
                str(body.get("project", "")),
                str(body.get("schema", "")),
                body.get("hostname"),
                body.get("access_token"),
            ),
            ("POST", "predict"): lambda body: {"results": backend.predict(body), "model_version": version},
            ("GET", "versions"): lambda body: {"versions": [version]},
            ("POST", "versions"): lambda body: {"versions": [version]},
            ("POST", "webhook"): lambda body: {},  # annotations come and go; nothing is learned from them
            ("POST", "delete"): lambda body: {},
        }


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        try:
            content = self.rfile.read(min(int(self.headers.get("Content-Length") or 0), MOST_BYTES + 1))
            login = self.headers.get("Authorization", "")
            if self.server.login and not hmac.compare_digest(login.encode(), self.server.login.encode()):
                return self._send({}, UNAUTHORISED, "give the user and password of this backend")
            route = self.server.routes.get((self.command, self.path.split("?")[0].strip("/")))
            if route is None:
                return self._send({}, NOT_FOUND, "no such address")
            self._send(route(_read(content)))
        except Sam2LongError as error:
            self._refuse(UNUSABLE, " ".join(str(error).split()))
        except OSError as error:
            self._refuse(FAILED, sentence(error))
        except Exception as error:
            traceback.print_exc()
            self._refuse(FAILED, f"{type(error).__name__}; the backend's log says more")

    do_GET = do_POST = _answer

    def _refuse(self, status: int, said: str) -> None:
        print(f"sam2long: {said}", file=sys.stderr, flush=True)
        self._send({"error": said}, status, said)

    def _send(self, answer: Any, status: int = 200, reason: str | None = None) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status, reason and reason.encode("latin-1", "replace").decode("latin-1"))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        try:
            self.wfile.write(content)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # Label Studio did not wait; it gets the answer when it asks again

    def log_message(self, *args: Any) -> None:
        """What is refused is printed above; the rest is routine."""


def _read(content: bytes) -> dict[str, Any]:
    if len(content) > MOST_BYTES:
        raise DataError(f"the request has more than {MOST_BYTES >> 20} MiB; ask for fewer tasks at a time")
    try:
        body = json.loads(content) if content else {}
    except ValueError:
        raise DataError("the request is not JSON; expected one of Label Studio") from None
    if not isinstance(body, dict):
        raise DataError("the request is no JSON object; expected one of Label Studio")
    return body
