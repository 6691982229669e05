"""Label Studio's backend: its parts and its protocol without it; and, among the long tests, the real server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2long.cli import main
from sam2long.errors import ConfigError, DataError, PromptError, VideoError
from sam2long.hosts.label_studio import backend as backend_module
from sam2long.hosts.label_studio.backend import Backend
from sam2long.hosts.label_studio.files import Files
from sam2long.hosts.label_studio.regions import Clock, Tag, box_of, brush, keyframes, percent, tags
from sam2long.hosts.label_studio.server import Server
from tests.fakes import SIDE, noise_clip, noise_video, tiny_flags, tiny_predictor
from tests.hosts.environments import environment, variables

FPS, FRAMES = 10, 12
VIDEOS = (
    '<View><Video name="video" value="$video" frameRate="10"/><VideoRectangle name="box" toName="video" smart="true"/>'
    '<Labels name="names" toName="video"><Label value="Dog"/></Labels></View>'
)
PICTURES = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image"><Label value="Dog"/>'
    '</BrushLabels><KeyPointLabels name="point" toName="image" smart="true"><Label value="Dog"/></KeyPointLabels>'
    '<RectangleLabels name="rectangle" toName="image" smart="true"><Label value="Dog"/></RectangleLabels></View>'
)


def keyframe(frame, x=20.0, y=20.0, width=40.0, height=40.0, **more):
    place = {"x": x, "y": y, "width": width, "height": height, "rotation": 0}
    return {"frame": frame, "enabled": True, "time": (frame - 1) / FPS, **place, **more}


def region(name, *sequence):
    value = {"framesCount": FRAMES, "duration": FRAMES / FPS, "labels": ["Dog"], "sequence": list(sequence)}
    return {"id": name, "type": "videorectangle", "from_name": "box", "to_name": "video", "value": value}


# ---- regions --------------------------------------------------------------------------------------------------------


def test_rectangles_are_percent_and_may_be_turned():
    box = box_of({"x": 10, "y": 20, "width": 30, "height": 40}, 200, 100)
    assert box == (10, 40, 40, 120)
    assert percent(box, 200, 100) == {"x": 10, "y": 20, "width": 30, "height": 40}
    turned = box_of({"x": 50, "y": 50, "width": 20, "height": 10, "rotation": 90}, 100, 100)
    assert turned == pytest.approx((40, 50, 50, 70))
    with pytest.raises(PromptError, match="nothing of the picture"):
        box_of({"x": 120, "y": 0, "width": 10, "height": 10}, 100, 100)
    with pytest.raises(DataError, match="in percent"):
        box_of({"x": "left"}, 100, 100)


def test_even_movement_needs_two_keyframes_and_absence_switches_off():
    clock = Clock(rate=10.0, fps=10.0, count=20)
    moving = {frame: (frame, 10.0, frame + 20.0, 30.0) for frame in range(20)}
    assert [entry["frame"] for entry in keyframes(moving, clock, 100, 100)] == [1, 20]
    turning = {frame: (10.0 + abs(frame - 9), 10.0, 40.0 + abs(frame - 9), 30.0) for frame in range(20)}
    assert [entry["frame"] for entry in keyframes(turning, clock, 100, 100)] == [1, 10, 20]
    away = moving | {frame: None for frame in (*range(5, 8), 19)}
    found = keyframes(away, clock, 100, 100)
    assert [(entry["frame"], entry["enabled"]) for entry in found] == [(1, True), (5, False), (9, True), (19, False)]
    assert found[2]["x"] == 8 and found[2]["time"] == 0.8
    assert keyframes(dict.fromkeys(range(5)), clock, 100, 100) == []


def test_label_studio_counts_frames_at_a_rate_of_its_own():
    video = Tag("Video", "video", "", {"frameRate": "24"})
    clock = Clock.of(video, 30.0, 300)
    assert clock.frames == 240 and clock.ours(1) == 0 and clock.ours(25) == 30 and clock.theirs(30) == 25
    assert clock.ours(9999) == 299 and clock.theirs(299) == 240
    same = Clock.of(Tag("Video", "video", "", {"frameRate": "25"}), 25.0, 100)
    assert [same.theirs(same.ours(frame)) for frame in range(1, 101)] == list(range(1, 101))
    assert Clock.of(Tag("Video", "video", "", {}), 24.0, 48).frames == 48


def unpacked(data: list[int]) -> np.ndarray:
    """The values of a brush mask, by the format's words."""
    bits = "".join(f"{byte:08b}" for byte in data)
    at = 0

    def take(count):
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    total, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values = []
    while len(values) < total:
        series, size = take(1), sizes[take(2)]
        length = take(size) + 1
        values += [take(word)] * length if series else [take(word) for _ in range(length)]
    return np.array(values, np.uint8)


def test_a_brush_mask_unpacks_to_the_mask():
    for mask in (np.eye(9, 13, dtype=bool), np.zeros((300, 400), bool), np.ones((300, 400), bool)):
        assert np.array_equal(unpacked(brush(mask)).reshape(*mask.shape, 4)[..., 3] == 255, mask)


# ---- files ----------------------------------------------------------------------------------------------------------


def test_files_come_from_the_server_the_web_or_a_folder(tmp_path):
    local = tmp_path / "local"
    (local / "a b").mkdir(parents=True)
    (local / "a b" / "clip.mp4").write_bytes(b"here")
    (tmp_path / "secret").write_bytes(b"no")
    files = Files(tmp_path / "cache", local=local)
    assert files.fetch("/data/local-files/?d=a%20b/clip.mp4", None, None).read_bytes() == b"here"
    for url, said in [
        ("/data/local-files/?d=../secret", "is no file below"),
        ("s3://bucket/clip.mp4", "s3:// files are not read"),
        ("gs://bucket/clip.mp4", "gs:// files are not read"),
        ("file:///etc/passwd", "file:// files are not read"),
        ("/data/upload/1/clip.mp4", "--label-studio"),
        ("http://127.0.0.1:9/clip.mp4", "cannot be reached"),
    ]:
        with pytest.raises(DataError, match=said):
            files.fetch(url, None, None)
    with pytest.raises(ConfigError, match="not a folder"):
        Files(tmp_path, local=tmp_path / "nowhere")


@contextmanager
def web(answer):
    """A web server. answer: path, headers -> status, content."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, content = answer(self.path, self.headers, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_the_token_goes_to_label_studio_only_and_files_are_fetched_once(tmp_path):
    seen = []

    def answer(path, headers, body):
        seen.append((path, headers.get("Authorization")))
        if path == "/api/token/refresh":
            return 200, json.dumps({"access": f"for {json.loads(body)['refresh']}"}).encode()
        return (404, b"") if "gone" in path else (200, path.encode())

    with web(answer) as studio, web(answer) as elsewhere:
        files = Files(tmp_path)
        assert files.fetch("/data/upload/1/a.mp4", studio, "legacy").read_bytes() == b"/data/upload/1/a.mp4"
        files.fetch("/data/upload/1/a.mp4", studio, "legacy")
        assert seen == [("/data/upload/1/a.mp4", "Token legacy")]
        assert files.fetch(f"{elsewhere}/b.JPG", studio, "legacy").suffix == ".jpg"
        assert seen[-1] == ("/b.JPG", None)
        with pytest.raises(DataError, match="gives no file .404"):
            files.fetch("/gone.mp4", studio, "legacy")
        files.fetch("/c.mp4", studio, "a.b.c")  # a personal access token
        assert seen[-1] == ("/c.mp4", "Bearer for a.b.c")
        # What a set-up request says does not get the key that was given for another address.
        keyed = Files(tmp_path / "other", address=studio, token="mine")
        keyed.fetch("/d.mp4", elsewhere, "theirs")
        assert seen[-1] == ("/d.mp4", "Token mine")
        keyed.fetch(f"{elsewhere}/e.mp4", elsewhere, "theirs")
        assert seen[-1] == ("/e.mp4", None)


# ---- predictions ----------------------------------------------------------------------------------------------------


@pytest.fixture
def backend(tmp_path):
    return Backend(tiny_predictor(presence=20.0), "sam2long-tiny", Files(tmp_path / "cache", local=tmp_path))


def request(url, *regions, task=7, config=VIDEOS, **more):
    data = {"id": task, "data": {"video": url, "image": url}, **more}
    return {"tasks": [data], "project": "1.5", "label_config": config, "params": {"context": {"result": list(regions)}}}


def local(path: Path) -> str:
    return f"/data/local-files/?d={path.name}"


def test_a_rectangle_on_one_frame_goes_both_ways_and_keeps_name_and_id(backend, tmp_path):
    clip = local(Path(noise_clip(tmp_path / "clip.mp4", FRAMES, FPS)))
    (answer,) = backend.predict(request(clip, region("r1", keyframe(5)), region("r2", keyframe(5, 40, 40))))
    assert answer["model_version"] == "sam2long-tiny"
    first, second = answer["result"]
    assert (first["id"], second["id"]) == ("r1", "r2")
    assert first["value"]["labels"] == ["Dog"] and first["from_name"] == "box" and first["to_name"] == "video"
    numbers = [entry["frame"] for entry in first["value"]["sequence"]]
    assert numbers == sorted(set(numbers)) and min(numbers) == 1 and max(numbers) <= FRAMES


def test_a_correction_is_what_the_user_changed_of_the_answer(backend, tmp_path, monkeypatch):
    clip = local(Path(noise_clip(tmp_path / "clip.mp4", FRAMES, FPS)))
    given = []
    plain = backend_module.ObjectPrompt.give
    monkeypatch.setattr(
        backend_module.ObjectPrompt, "give", lambda self, *args: given.append(self.frame) or plain(self, *args)
    )
    (answer,) = backend.predict(request(clip, region("r1", keyframe(1))))
    assert given == [0]
    sequence = [entry for entry in answer["result"][0]["value"]["sequence"] if entry["frame"] != 7]
    backend.predict(request(clip, region("r1", *sequence, keyframe(7, 5, 5))))
    assert given[1:] == [0, 6]
    backend.predict(request(clip, region("r1", keyframe(3))))  # drawn anew
    assert given[3:] == [2]


def test_a_request_that_comes_again_gets_the_answer_that_is_there(backend, tmp_path, monkeypatch):
    clip = local(Path(noise_clip(tmp_path / "clip.mp4", FRAMES, FPS)))
    passes = []
    plain = backend.predictor.init_state
    monkeypatch.setattr(backend.predictor, "init_state", lambda *args: passes.append(args) or plain(*args))
    answers = {}

    def ask(user, *given):
        answers[user] = backend.predict(request(clip, *given, task=user[0]))

    users = {("a", 1): region("r1", keyframe(1)), ("a", 2): region("r1", keyframe(1)),
             ("b", 1): region("r2", keyframe(1, 50, 50, 30, 30))}  # fmt: skip
    threads = [threading.Thread(target=ask, args=(user, given)) for user, given in users.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passes) == 2 and answers["a", 1] == answers["a", 2]
    assert answers["b", 1][0]["result"][0]["id"] == "r2"
    alone = Backend(backend.predictor, backend.version, backend.files)
    assert answers["b", 1] == alone.predict(request(clip, users["b", 1], task="b"))


def test_keypoints_and_rectangles_become_a_brush_mask(backend, tmp_path):
    Image.fromarray(noise_video(1)[0]).save(tmp_path / "a.png")
    url = local(tmp_path / "a.png")
    point = {"id": "k", "type": "keypointlabels", "is_positive": True,
             "value": {"x": 40, "y": 40, "width": 1, "keypointlabels": ["Dog"]}}  # fmt: skip
    other = {**point, "id": "n", "is_positive": False, "value": {**point["value"], "x": 90}}
    rectangle = {"id": "b", "type": "rectanglelabels",
                 "value": {"x": 20, "y": 20, "width": 40, "height": 40, "rectanglelabels": ["Dog"]}}  # fmt: skip
    for regions in ([point], [rectangle], [point, other, rectangle]):
        (answer,) = backend.predict(request(url, *regions, config=PICTURES))
        (found,) = answer["result"]
        assert found["type"] == "brushlabels" and found["value"]["brushlabels"] == ["Dog"]
        assert (found["id"], found["from_name"], found["to_name"]) == (regions[-1]["id"], "brush", "image")
        assert (found["original_width"], found["original_height"]) == (SIDE, SIDE)
        assert unpacked(found["value"]["rle"]).size == SIDE * SIDE * 4
    with pytest.raises(PromptError, match="nothing says what the object is"):
        backend.predict(request(url, other, config=PICTURES))


def test_what_cannot_be_predicted_is_said(backend, tmp_path):
    (tmp_path / "no.png").write_bytes(b"no picture")
    (tmp_path / "no.mp4").write_bytes(b"no video")
    drawn = region("r1", keyframe(1))
    for asked, kind, said in [
        (request("/x.mp4"), PromptError, "task 7 has no prompt"),
        (request(None, drawn), DataError, "task 7 has no video"),
        (request("s3://bucket/x.mp4", drawn), DataError, "s3://"),
        (request(local(tmp_path / "gone.mp4"), drawn), DataError, "is no file below"),
        (request(local(tmp_path / "no.mp4"), drawn), VideoError, "no.mp4"),
        (request(local(tmp_path / "no.png"), {**drawn, "type": "keypoint"}, config=PICTURES), DataError, "no picture"),
        (request("/x.mp4", drawn, config="<View><Text name='t' value='$t'/></View>"), ConfigError, "VideoRectangle"),
        (request("/x.mp4", drawn, config="<View"), DataError, "labelling config cannot be read"),
        ({}, DataError, "no tasks"),
    ]:
        with pytest.raises(kind, match=said):
            backend.predict(asked)
    assert tags(VIDEOS)[0].attributes["value"] == "$video"


# ---- protocol -------------------------------------------------------------------------------------------------------


@contextmanager
def serving(backend, login=None):
    with Server(("127.0.0.1", 0), backend, login) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def ask(url, body=None, headers=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers or {}), timeout=60) as answer:
        return json.load(answer)


def test_the_protocol(backend, tmp_path):
    clip = local(Path(noise_clip(tmp_path / "clip.mp4", FRAMES, FPS)))
    with serving(backend) as url:
        assert ask(f"{url}/health")["status"] == "UP"
        setup = {"project": "1.5", "schema": VIDEOS, "hostname": "http://studio", "access_token": "t"}
        assert ask(f"{url}/setup", setup) == {"model_version": "sam2long-tiny"}
        assert ask(f"{url}/versions") == {"versions": ["sam2long-tiny"]}
        answer = ask(f"{url}/predict", request(clip, region("r1", keyframe(1))))
        assert answer["results"][0]["result"][0]["id"] == "r1"
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(f"{url}/predict", request(clip))
        assert refused.value.code == 422 and "task 7 has no prompt" in refused.value.reason
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(f"{url}/setup", {**setup, "schema": "<View/>"})
        assert "VideoRectangle" in refused.value.reason
        for path, body in [("nothing", {}), ("predict", [1])]:
            with pytest.raises(urllib.error.HTTPError):
                ask(f"{url}/{path}", body)


def test_a_backend_that_is_started_again_knows_where_files_are(backend, tmp_path):
    def answer(path, headers, body):
        return (200, (tmp_path / "a.png").read_bytes()) if headers.get("Authorization") == "Token t" else (401, b"")

    Image.fromarray(noise_video(1)[0]).save(tmp_path / "a.png")
    point = {"id": "k", "type": "keypointlabels", "value": {"x": 40, "y": 40, "keypointlabels": ["Dog"]}}
    with web(answer) as studio:
        backend.setup("1.5", PICTURES, studio, "t")
        again = Backend(backend.predictor, backend.version, Files(tmp_path / "cache"))
        (found,) = again.predict(request("/data/upload/1/a.png", point, config=PICTURES))
    assert found["result"][0]["id"] == "k"
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0


def test_a_login_is_asked_for(backend):
    with serving(backend, "user:word") as url:
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(f"{url}/health")
        assert ask(f"{url}/health", headers={"Authorization": "Basic dXNlcjp3b3Jk"})["status"] == "UP"


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--host", "0.0.0.0"], "SAM2LONG_LOGIN"),
        (["--model", "nonsense"], "nonsense"),
        (["--local-files", "/nowhere"], "not a folder"),
    ],
)
def test_flags_that_do_not_go_are_a_sentence(flags, said, capsys, monkeypatch):
    monkeypatch.delenv("SAM2LONG_LOGIN", raising=False)
    assert main(["label-studio", "--device", "cpu", *flags]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


# ---- in the real Label Studio ---------------------------------------------------------------------------------------

TOKEN = "0123456789012345678901234567890123456789"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@contextmanager
def program(command, env, ready, log):
    """A program in the background, once `ready()` holds."""
    with log.open("w") as out, subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT) as process:
        try:
            until = time.monotonic() + 240
            while not ready():
                assert process.poll() is None and time.monotonic() < until, log.read_text()[-2000:]
                time.sleep(0.3)
            yield
        finally:
            process.terminate()


def answers(url):
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
    return True


@pytest.mark.slow
def test_the_real_label_studio(tmp_path):
    programs = environment("label-studio", "label-studio==1.23.2", with_ours=False)
    port, own = free_port(), free_port()
    studio, ours = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{own}"
    shared = tmp_path / "shared"
    shared.mkdir()
    Image.fromarray(noise_video(1)[0]).save(shared / "a.png")
    noise_clip(shared / "clip.mp4", FRAMES, FPS)
    env = {
        **os.environ, "LABEL_STUDIO_BASE_DATA_DIR": str(tmp_path / "data"), "LABEL_STUDIO_HOST": studio,
        "LABEL_STUDIO_USERNAME": "a@example.org", "LABEL_STUDIO_PASSWORD": "password", "COLLECT_ANALYTICS": "false",
        "LABEL_STUDIO_USER_TOKEN": TOKEN, "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true", "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(tmp_path),
        "ML_BLOCK_LOCAL_IP": "false", "SSRF_PROTECTION_ENABLED": "false",
    }  # fmt: skip
    start = [programs / "label-studio", "start", "--no-browser", "--port", str(port), "--internal-host", "127.0.0.1"]
    flags = tiny_flags(tmp_path, presence=20.0)
    backend = [sys.executable, "-m", "sam2long.cli", "label-studio", "--port", str(own), *flags]
    cache = variables(XDG_CACHE_HOME=str(tmp_path / "cache"))
    session = Path(__file__).with_name("label_studio_session.py")
    with program(start, env, lambda: answers(f"{studio}/health"), tmp_path / "studio.log"):
        for part in ("first", "again"):  # the backend is stopped and started again in between
            with program(backend, cache, lambda: answers(f"{ours}/health"), tmp_path / f"{part}.log"):
                done = subprocess.run(
                    [programs / "python", session, part, studio, ours, TOKEN, shared],
                    env=env, capture_output=True, text=True, check=False,
                )  # fmt: skip
                assert done.returncode == 0, done.stdout + done.stderr[-3000:]
                assert done.stdout.splitlines()[-1] == f"{part} passed"
