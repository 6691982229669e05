"""A small server that answers as CVAT's API does, for `cvat-cli function`: one task of JPEG frames, one function, and
the queue of requests that its users make. Not CVAT: no CVAT server is at hand."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from PIL import Image

VERSION = "2.80.0"
ABOUT = ("name", "description", "subtitle", "logo_url")
WHO = {"id": 1, "username": "admin", "url": "http://x/api/users/1", "first_name": "", "last_name": ""}
DATE = "2026-01-01T00:00:00Z"


class Cvat:
    """What the server knows.

    Args:
        frames: [T, H, W, 3] uint8.
        requests: of users, oldest first; callables are asked for the request when its turn comes, with the answers
            so far.
    """

    def __init__(self, frames: Sequence[Any], requests: Sequence[Any]) -> None:
        self.frames, self.requests = list(frames), list(requests)
        self.functions: dict[int, dict[str, Any]] = {}
        self.answers: dict[str, dict[str, Any]] = {}  # request -> what the agent sent
        self.failed: dict[str, str] = {}
        self.asked: list[str] = []  # paths of frames

    # ---- what is asked for --------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: dict[str, Any]) -> Any:
        routes = {
            r"GET /api/server/about": lambda: {
                "name": "CVAT",
                "description": "",
                "version": VERSION,
                "logo_url": "",
                "subtitle": "",
            },
            r"POST /api/auth/login": lambda: {"key": "secret"},
            r"POST /api/auth/logout": lambda: {},
            r"GET /api/users/self": lambda: WHO,
            r"POST /api/functions": lambda: self._function(body),
            r"GET /api/functions/(\d+)": lambda number: self.functions[int(number)],
            r"POST /api/functions/queues/function:\d+/requests/acquire": lambda: self._acquire(body),
            r"POST /api/functions/queues/function:\d+/requests/(\w+)/complete": lambda ar: self._take(ar, body),
            r"POST /api/functions/queues/function:\d+/requests/(\w+)/fail": lambda ar: self._fail(ar, body),
            r"GET /api/tasks/1": self._task,
            r"GET /api/labels": lambda: {"count": 0, "next": None, "previous": None, "results": []},
            r"GET /api/tasks/1/data/meta": self._meta,
            r"GET /api/tasks/1/data": lambda: self._jpeg(int(query["number"][0])),
        }
        for pattern, reply in routes.items():
            if found := re.fullmatch(pattern, f"{method} {path.rstrip('/')}"):
                return reply(*found.groups())
        return None

    def _function(self, body: dict[str, Any]) -> dict[str, Any]:
        number = len(self.functions) + 1
        boxes = {"min_neg_points": -1, "startswith_box": False, "startswith_box_optional": False}
        self.functions[number] = {"id": number, **boxes, **body}
        return self.functions[number]

    def _acquire(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["request_category"] != "interactive" or not self.requests:
            return {"ar_assignment": None}
        request = self.requests.pop(0)
        if callable(request):
            request = request(self.answers)
        number = f"r{len(self.answers) + len(self.failed)}"
        return {"ar_assignment": {"ar_id": number, "ar_params": {"task": 1, **request}}}

    def _take(self, request: str, body: dict[str, Any]) -> dict[str, Any]:
        self.answers[request] = body
        return {}

    def _fail(self, request: str, body: dict[str, Any]) -> dict[str, Any]:
        self.failed[request] = body["exc_info"]
        return {}

    def _task(self) -> dict[str, Any]:
        return {
            "id": 1, "url": "http://x/api/tasks/1", "name": "task", "project_id": None, "mode": "annotation",
            "owner": WHO, "assignee": None, "bug_tracker": "", "created_date": DATE, "updated_date": DATE,
            "assignee_updated_date": None, "overlap": 0, "segment_size": len(self.frames), "status": "annotation",
            "data_chunk_size": 10, "data_compressed_chunk_type": "imageset", "data_original_chunk_type": "imageset",
            "size": len(self.frames), "image_quality": 70, "data": 1, "dimension": "2d", "subset": "",
            "organization": None, "organization_id": None, "target_storage": None, "source_storage": None,
            "guide_id": None, "data_cloud_storage_id": None, "validation_mode": None, "consensus_enabled": False,
            "labels": {"url": "http://x/api/labels?task_id=1"},
            "jobs": {"url": "http://x/api/jobs?task_id=1", "count": 1, "completed": 0, "validation": 0},
        }  # fmt: skip

    def _meta(self) -> dict[str, Any]:
        height, width = self.frames[0].shape[:2]
        frames = [
            {"width": width, "height": height, "name": f"{number:05d}.jpg", "related_files": 0}
            for number in range(len(self.frames))
        ]
        return {
            "chunk_size": 10, "size": len(frames), "image_quality": 70, "start_frame": 0, "stop_frame": len(frames) - 1,
            "frame_filter": "", "frames": frames, "deleted_frames": [], "included_frames": None,
            "chunks_updated_date": DATE, "storage_method": "cache", "storage": "local", "media_type": "image",
        }  # fmt: skip

    def _jpeg(self, number: int) -> bytes:
        self.asked.append(str(number))
        file = io.BytesIO()
        Image.fromarray(self.frames[number]).save(file, "JPEG", quality=95)
        return file.getvalue()


@contextmanager
def serving(cvat: Cvat):
    """The server's address."""

    class Handler(BaseHTTPRequestHandler):
        def _reply(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found = cvat.answer(
                self.command, unquote(parts.path), parse_qs(parts.query), json.loads(body) if body else {}
            )
            kind = "image/jpeg" if isinstance(found, bytes) else "application/vnd.cvat+json"
            content = found if isinstance(found, bytes) else json.dumps(found if found is not None else {}).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _reply

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
