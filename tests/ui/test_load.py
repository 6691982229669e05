"""Many pages at once, slow ones, a second server, a video that goes away: over real sockets."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("httpx", reason="needs the extra [dev]")

import httpx
import uvicorn
from PIL import Image

from sam2long.cli import main
from sam2long.runs.settings import RunSettings
from sam2long.ui import security, serving
from sam2long.ui.app import create_app
from sam2long.ui.desk import Desk
from sam2long.ui.project import Project
from sam2long.video import open_source
from tests.ui.conftest import FRAMES
from tests.ui.test_server import clicked, ended, wait_until_free

PATIENCE = 120  # seconds


class Served:
    """A project on a port of this computer, in a thread."""

    def __init__(self, desk):
        self.desk = desk
        listening = socket.create_server(("127.0.0.1", 0))
        self.at = listening.getsockname()
        config = uvicorn.Config(create_app(desk, security.Access()), log_level="warning", ws="none")
        self.server = serving._Server(config, desk.hub)
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listening]})
        self._thread.start()
        self.client = self.new_client()

    def new_client(self):
        return httpx.Client(base_url=f"http://127.0.0.1:{self.at[1]}", timeout=PATIENCE, verify=False)

    def stop(self):
        self.client.close()
        self.server.should_exit = True
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def said(self, text):
        """A connection on which this much has been sent."""
        connection = socket.create_connection(self.at)
        connection.settimeout(PATIENCE)
        connection.sendall(text.replace("HOST", f"127.0.0.1:{self.at[1]}").encode())
        return connection


@pytest.fixture
def open_video(nano, tmp_path):
    """Serves the project of a video."""
    opened = []

    def serve(video):
        project = Project(tmp_path / "project", open_source(str(video)), RunSettings(video=str(video), device="cpu"))
        desk = Desk(project, nano, [tmp_path], title="clip")
        opened.extend((project.close, desk.close, (served := Served(desk)).stop))
        return served

    yield serve
    for close in reversed(opened):
        close()


@pytest.fixture
def served(open_video, clip):
    return open_video(clip)


def at_once(count, do):
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(do, range(count)))


@pytest.mark.slow
def test_fifty_click_and_every_click_is_there(served):
    objects = [served.client.post("/api/objects", json={}).json()["id"] for _ in range(5)]

    def click(number):
        with served.new_client() as client:
            said = {"object": objects[number % 5], "frame": number % 2, "x": 20.0 + number, "y": 60.0}
            answers = [client.post("/api/prompts/click", json=said), client.get("/api/state")]
            return [answer.status_code for answer in answers]

    assert at_once(50, click) == [[200, 200]] * 50
    stored = json.loads(served.desk.project.prompts_file.read_text())["prompts"]
    assert sorted(x for prompt in stored for x, _ in prompt["points"]) == [20.0 + number for number in range(50)]


@pytest.mark.slow
def test_two_hundred_ask_for_frames_and_all_see_the_same(served, truth):
    served.client.post("/api/objects", json={})
    clicked(served.client, truth)

    def look(number):
        with served.new_client() as client:
            picture, masks, _ = (client.get(f"/api/{at}").raise_for_status() for at in (
                f"frames/{number % FRAMES}.jpg", "frames/0?shapes=true", "timeline"))  # fmt: skip
            return number % FRAMES, picture.content, masks.text

    seen = at_once(200, look)
    assert len({masks for _, _, masks in seen}) == 1
    assert len({(frame, picture) for frame, picture, _ in seen}) == FRAMES


SLOW = {
    "a header that never ends": "GET /api/state HTTP/1.1\r\nHost: HOST\r\nX-Slow: ",
    "nothing at all": "",
    "a body that never ends": "PUT /api/objects/1/frames/0/mask HTTP/1.1\r\nHost: HOST\r\nContent-Length: 999\r\n\r\nx",
    "answers that are not read": "GET /api/frames/0.jpg HTTP/1.1\r\nHost: HOST\r\n\r\n" * 4000,
}


@pytest.mark.parametrize("text", SLOW.values(), ids=SLOW)
def test_slow_clients_are_let_go_and_nobody_waits_for_them(served, monkeypatch, text):
    monkeypatch.setattr(serving, "STILL_SECONDS", 1.0)
    monkeypatch.setattr(security, "BODY_SECONDS", 1.0)
    slow = [served.said(text) for _ in range(10)]
    assert served.client.get("/api/state").status_code == 200
    time.sleep(0.5)
    begun = time.monotonic()
    while connections := len(served.server.server_state.connections) - 1:  # the client's own
        assert time.monotonic() - begun < PATIENCE, f"{connections} are still open"
        time.sleep(0.1)
        served.client.get("/api/state").raise_for_status()
    if "body" in text or "PUT" in text:
        assert b" 408 " in slow[0].recv(20)
    for connection in slow:
        connection.close()


def test_where_too_many_are_connected_those_that_ask_nothing_go_first(served, monkeypatch):
    monkeypatch.setattr(serving, "MOST_CONNECTIONS", 20)
    with served.client.stream("GET", "/api/events") as events:
        lines = events.iter_lines()
        next(lines)  # a page that listens is not one of them
        silent = [served.said("GET /") for _ in range(60)]
        with served.new_client() as client:
            for _ in range(20):
                client.get("/api/state").raise_for_status()
                time.sleep(0.05)
        assert len(served.server.server_state.connections) <= 20
        assert served.client.post("/api/objects", json={}).status_code == 200
        assert any('"id":1' in next(lines) for _ in range(6))
    for connection in silent:
        connection.close()


def test_a_second_server_on_a_project_is_refused(served, clip, capsys):
    out = str(served.desk.project.folder.path)
    assert main(["annotate", str(clip), "--out", out, "--port", "0", "--no-browser", "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert "another sam2long command" in said and said.count("\n") == 1
    assert served.client.get("/api/state").status_code == 200


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_video_that_goes_away_takes_nothing_with_it(open_video, scene, clip, truth, tmp_path, kind):
    video = tmp_path / "video"
    if kind == "file":
        video = video.with_suffix(".mp4")
        shutil.copy(clip, video)
    else:
        video.mkdir()
        for frame, image in enumerate(scene[0]):
            Image.fromarray(image).save(video / f"{frame:05d}.png")
    served = open_video(video)
    client, desk = served.client, served.desk
    client.post("/api/objects", json={})
    assert clicked(client, truth).status_code == 200
    video.rename(tmp_path / "away")
    desk.project.source.close()  # as a reader that has slept is
    before = client.get("/api/frames/0").json()

    for answer in (client.get("/api/frames/9.jpg"), clicked(client, truth, frame=9)):
        assert answer.status_code == 400 and str(video) in answer.json()["error"], answer.text
    assert str(video) in str(ended(desk, client, "/api/track", {"start": 0})[-1]["error"])
    wait_until_free(desk)
    assert client.get("/api/frames/0").json() == before
    assert ended(desk, client, "/api/export", {"format": "coco"})[-1]["error"] is None

    (tmp_path / "away").rename(video)  # and it goes on
    assert clicked(client, truth, frame=9).status_code == 200
    assert ended(desk, client, "/api/track", {"start": 0})[-1]["frames"] == FRAMES
