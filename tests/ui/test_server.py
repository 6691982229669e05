"""The HTTP side without a browser: who gets in, what is refused, two pages at once."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("httpx", reason="needs the extra [dev]")

from fastapi.testclient import TestClient
from PIL import Image

from sam2long.cli import main
from sam2long.errors import StateError
from sam2long.export.masks import MaskReader, decode_mask
from sam2long.runs.run_folder import RunFolder
from sam2long.runs.settings import RunSettings
from sam2long.ui.app import create_app
from sam2long.ui.desk import Desk
from sam2long.ui.jobs import Hub
from sam2long.ui.project import Project
from sam2long.ui.security import MOST_BYTES, MOST_UPLOAD_BYTES, Access, below, is_loopback
from sam2long.video import open_source
from tests.ui.conftest import FRAMES, SIDE, inside, overlap

HERE = "http://127.0.0.1:8642"


@pytest.fixture
def desk(clip, nano, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    project = Project(root / "project", open_source(str(clip)), RunSettings(video=str(clip), device="cpu"))
    desk = Desk(project, nano, [root], title="clip.mp4")
    yield desk
    desk.close()
    project.close()


@pytest.fixture
def client(desk):
    with TestClient(create_app(desk, Access()), base_url=HERE) as client:
        yield client


def wait_until_free(desk, seconds=60):
    end = time.monotonic() + seconds
    while desk.worker.busy:
        assert time.monotonic() < end, "it does not finish"
        time.sleep(0.02)


def ended(desk, client, path, body):
    """Start something long and wait for its last event."""
    events = []
    publish, done = desk.hub.publish, threading.Event()

    def heard(event):
        publish(event)
        events.append(event)
        if event["type"] == "done":
            done.set()

    desk.hub.publish = heard
    answer = client.post(path, json=body)
    assert answer.status_code == 202, answer.text
    assert done.wait(60)
    desk.hub.publish = publish
    return events


def refused(response, status, *words):
    """A refusal is one clear sentence."""
    assert response.status_code == status, response.text
    text = response.json()["error"]
    assert "\n" not in text and all(word in text for word in words), text
    return text


def png(mask, mode="L"):
    data = io.BytesIO()
    Image.fromarray(np.asarray(mask)).convert(mode).save(data, "png")
    return data.getvalue()


def clicked(client, truth, obj_id=1, frame=0):
    x, y = inside(truth, frame, obj_id)
    return client.post("/api/prompts/click", json={"object": obj_id, "frame": frame, "x": x, "y": y})


# ---- the work ------------------------------------------------------------------------------------------------------


def test_prompt_track_look_and_export(client, desk, truth, tmp_path):
    for obj_id in (1, 2):
        assert client.post("/api/objects", json={"label": f"thing {obj_id}"}).json() == {"id": obj_id}
        preview = clicked(client, truth, obj_id).json()["objects"][str(obj_id)]
        assert preview["prompt"]["labels"] == [1] and decode_mask(preview["mask"]).any()
    events = ended(desk, client, "/api/track", {"start": 0})
    assert [event["frame"] for event in events if event["type"] == "masks"] == list(range(FRAMES))
    assert events[-1]["frames"] == FRAMES and events[-1]["error"] is None
    found = client.get("/api/frames/5", params={"shapes": True}).json()["objects"]["2"]
    mask = decode_mask(found["mask"])
    assert overlap(mask, truth[5] == 2) > 0.3
    rows, columns = np.nonzero(mask)
    assert found["shapes"]["box"] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    corners = np.array(found["shapes"]["rotated"])
    assert (
        corners.shape == (4, 2)
        and np.linalg.norm(corners[0] - corners[2]) >= np.hypot(*(np.ptp(columns), np.ptp(rows))) / 2
    )
    timeline = client.get("/api/timeline").json()
    assert timeline["frames"] == FRAMES and set(timeline["objects"]["1"]["status"]) <= {"p", "a"}
    with Image.open(io.BytesIO(client.get("/api/frames/3.jpg").content)) as picture:
        assert picture.size == (SIDE, SIDE) and picture.format == "JPEG"
    export = ended(desk, client, "/api/export", {"format": "palette-png"})[-1]
    assert export["error"] is None and export["count"] == FRAMES
    with Image.open(Path(export["folder"]) / "00005.png") as image:
        assert overlap(np.array(image) == 2, mask) > 0.9
    archive = client.get("/api/exports/palette-png.zip")
    assert archive.status_code == 200 and archive.content[:2] == b"PK"


@pytest.mark.parametrize(("tracked_only", "frames"), [(False, FRAMES), (True, 4)])
def test_a_video_is_as_long_as_was_asked_for(client, desk, truth, tracked_only, frames):
    client.post("/api/objects", json={})
    clicked(client, truth, frame=5)
    ended(desk, client, "/api/track", {"start": 5, "end": 8})
    export = ended(desk, client, "/api/export", {"format": "matte", "tracked_only": tracked_only})[-1]
    [video] = [name for name in export["files"] if name.endswith(".mp4")]
    with open_source(str(Path(export["folder"]) / video)) as source:
        assert len(source) == frames


def test_where_to_look(client, desk, truth):
    client.post("/api/objects", json={})
    clicked(client, truth)
    desk.annotator.tracker.propagate("forward", 0)
    store, middle = desk.project.store, 1 + (FRAMES - 1) // 2
    row = store.row(middle, 1)._replace(status="visible", iou=0.1, pathways=1)
    store.put(middle, {1: store.mask(middle, 1)}, {1: row})
    found = client.get("/api/looks").json()["frames"]
    assert (found[0]["frame"], found[0]["object"], found[0]["stretch"]) == (middle, 1, FRAMES - 1)
    assert found[0]["why"] == ["low predicted IoU", f"the middle of {FRAMES - 1} frames that nobody has looked at"]
    flags = np.frombuffer(base64.b64decode(client.get("/api/timeline").json()["objects"]["1"]["flags"]), np.uint8)
    assert flags[middle] == 2 and flags[0] == 0
    client.post("/api/prompts/lock", json={"object": 1, "frame": middle})
    assert middle not in [look["frame"] for look in client.get("/api/looks").json()["frames"]]


def test_a_mask_picture_is_a_prompt(client, truth):
    client.post("/api/objects", json={})
    path = "/api/objects/1/frames/2/mask"
    found = client.put(path, content=png((truth[2] == 1) * np.uint8(255))).json()["objects"]["1"]
    assert found["prompt"]["mask"] and overlap(decode_mask(found["mask"]), truth[2] == 1) > 0.9


def test_shapes_of_another_editor_are_prompts(client, desk, truth):
    rows, columns = np.nonzero(truth[3] == 2)
    box = [[float(columns.min()), float(rows.min())], [float(columns.max() + 1), float(rows.max() + 1)]]
    shapes = [
        {"label": "dog", "group_id": 4, "shape_type": "polygon", "points": [[10, 10], [50, 10], [50, 40], [10, 40]]},
        {"label": "cat", "group_id": 2, "shape_type": "rectangle", "points": box},
    ]
    content = {"shapes": shapes, "imageWidth": SIDE, "imageHeight": SIDE, "imagePath": "../../etc/passwd"}
    found = client.put("/api/frames/3/shapes", content=json.dumps(content)).json()["objects"]
    assert found["2"]["prompt"]["box"] == [value for corner in box for value in corner]
    drawn = np.zeros((SIDE, SIDE), bool)
    drawn[10:40, 10:50] = True
    assert overlap(decode_mask(found["4"]["mask"]), drawn) > 0.85
    assert [(entry["id"], entry["label"]) for entry in client.get("/api/state").json()["objects"]] == [
        (2, "cat"),
        (4, "dog"),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"version": 1}', "no list of shapes"),
        (b'{"shapes": [], "imageWidth": 100000, "imageHeight": 100000}', "100000 x 100000 pixels"),
        (b'{"shapes": [{"points": 3}], "imageWidth": 128, "imageHeight": 128}', "has no label"),
    ],
)
def test_shapes_that_are_none_are_refused(client, content, words):
    refused(client.put("/api/frames/3/shapes", content=content), 400, words)
    assert client.get("/api/state").json()["objects"] == []


def test_names_and_view_are_kept(client, desk):
    client.post("/api/objects", json={"name": "Rex", "label": "dog", "colour": "#aabbcc"})
    client.patch("/api/objects/1", json={"name": "Max"})
    assert client.put("/api/view", json={"frame": 3, "object": 1, "show": "box"}).status_code == 200
    state = client.get("/api/state").json()
    assert state["objects"] == [{"id": 1, "name": "Max", "label": "dog", "colour": "#aabbcc", "prompts": []}]
    assert state["view"]["frame"] == 3 and state["view"]["show"] == "box"
    assert json.loads(desk.project.prompts_file.read_text())["objects"][0]["name"] == "Max"


def test_what_breaks_in_the_model_is_told_and_nothing_is_lost(desk, truth, monkeypatch):
    app = create_app(desk, Access())
    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as client:
        client.post("/api/objects", json={})
        before = clicked(client, truth).json()

        def out_of_memory(*args, **kwargs):
            raise RuntimeError("CUDA out of memory")

        with monkeypatch.context() as patch:
            patch.setattr(desk.annotator.tracker.predictor, "add_new_points_or_box", out_of_memory)
            patch.setattr(desk.annotator.tracker.predictor, "propagate_in_video", out_of_memory)
            refused(clicked(client, truth), 500, "unexpected", "CUDA out of memory")
            assert "CUDA out of memory" in ended(desk, client, "/api/track", {"start": 0})[-1]["error"]
        assert client.get("/api/frames/0").json() == before
        assert client.get("/api/state").json()["busy"] is None
        assert clicked(client, truth).status_code == 200  # and it goes on


# ---- two pages at once ---------------------------------------------------------------------------------------------


def test_clicks_of_many_pages_at_once_are_all_there(client, desk, truth):
    client.post("/api/objects", json={})
    x, y = inside(truth, 0, 1)
    answers = []

    def page(number):
        body = {"object": 1, "frame": number % 2, "x": x, "y": y + number / 10, "positive": True}
        answers.append(client.post("/api/prompts/click", json=body).status_code)

    threads = [threading.Thread(target=page, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 8
    said = {frame: desk.project.prompt(1, frame).points for frame in (0, 1)}
    assert sorted(point[1] for points in said.values() for point in points) == pytest.approx(
        [y + n / 10 for n in range(8)]
    )
    stored = json.loads(desk.project.prompts_file.read_text())["prompts"]
    assert sum(len(prompt["points"]) for prompt in stored) == 8


def test_while_one_page_tracks_the_changes_of_another_are_refused_and_a_cancel_keeps_the_frames(client, desk, truth):
    client.post("/api/objects", json={})
    clicked(client, truth)
    at_three, go_on = threading.Event(), threading.Event()
    changed = desk.annotator.tracker._changed

    def slow(frame, obj_ids):
        changed(frame, obj_ids)
        if frame == 3:
            at_three.set()
            assert go_on.wait(30)

    desk.annotator.tracker._changed = slow
    assert client.post("/api/track", json={"start": 0}).status_code == 202
    assert at_three.wait(30)
    other = TestClient(client.app, base_url=HERE)
    busy = "tracking is under way"
    refused(other.post("/api/prompts/click", json={"object": 1, "frame": 0, "x": 1, "y": 1}), 409, busy)
    refused(other.post("/api/track", json={"start": 0}), 409, busy)
    refused(other.delete("/api/objects/1"), 409, busy)
    refused(other.post("/api/export", json={"format": "coco"}), 409, busy)
    assert other.get("/api/frames/3").json()["objects"]["1"]["mask"]  # looking is always possible
    assert other.get("/api/state").json()["busy"]["what"] == "tracking"
    assert other.post("/api/cancel").json() == {"cancelled": True}
    go_on.set()
    wait_until_free(desk)
    frames = desk.project.store.frames()
    assert len(frames) < FRAMES and frames[:4] == [0, 1, 2, 3]
    assert clicked(other, truth).status_code == 200
    with MaskReader(desk.project.folder.masks) as masks:
        assert masks.frames == frames and not masks.torn


def test_a_page_that_does_not_listen_is_told_to_load_anew(monkeypatch):
    import asyncio

    monkeypatch.setattr("sam2long.ui.jobs.QUEUE_LENGTH", 4)
    hub = Hub()

    async def listen():
        with hub.listening() as queue:
            for number in range(6):
                hub.publish({"type": "masks", "frame": number})
            await asyncio.sleep(0.05)
            return [queue.get_nowait() for _ in range(queue.qsize())]

    heard = asyncio.run(listen())
    assert heard == [{"type": "reload"}, {"type": "masks", "frame": 5}]


# ---- who gets in ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8642", "127.0.0.1.evil.example", "", "10.0.0.7:8642"])
def test_a_name_that_is_not_this_servers_is_turned_away(client, host):
    refused(client.get("/api/state", headers={"host": host}), 421, "does not go by that name")


@pytest.mark.parametrize("host", ["localhost:8642", "127.0.0.1", "[::1]:8642"])
def test_this_computers_own_names_are_let_in(client, host):
    assert client.get("/api/state", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_other_pages_change_nothing(client, headers):
    refused(client.post("/api/objects", json={}, headers=headers), 403, "another page")
    assert client.get("/api/state").json()["objects"] == []
    assert client.post("/api/objects", json={}, headers={"origin": HERE}).status_code == 200


def test_with_a_token_nothing_is_seen_without_it(desk):
    access = Access(any_address=True, token="a-token-of-some-length", cookie="sam2long-8642")
    app = create_app(desk, access)
    with TestClient(app, base_url="http://10.0.0.7:8642") as stranger:
        for path in ("/", "/api/state", "/api/frames/0.jpg", "/api/events", "/static/main.js", "/?token=wrong"):
            refused(stranger.get(path), 401, "a token is needed")
        refused(stranger.post("/api/objects", json={}), 401, "token")
        refused(stranger.get("/", headers={"cookie": "sam2long-8642=a-token-of-some-lengt"}), 401, "token")
        refused(stranger.get("/api/state", headers={"host": "evil.example"}), 421, "name")
        assert stranger.get("/api/state", headers={"authorization": f"Bearer {access.token}"}).status_code == 200
    with TestClient(app, base_url="http://10.0.0.7:8642") as guest:
        guest.follow_redirects = False
        answer = guest.get("/", params={"token": access.token})
        assert answer.status_code == 303 and answer.headers["location"] == "/"
        assert "HttpOnly" in answer.headers["set-cookie"] and "SameSite=Strict" in answer.headers["set-cookie"]
        assert guest.get("/").status_code == guest.get("/api/state").status_code == 200


def test_an_address_of_the_network_needs_a_token_and_makes_one(tmp_path, monkeypatch):
    from sam2long.cli.annotate import Annotate

    assert Annotate(video="v.mp4")._access().token is None
    open_to_all = Annotate(video="v.mp4", host="0.0.0.0")._access()
    assert len(open_to_all.token) >= 32 and open_to_all.any_address
    assert open_to_all.token != Annotate(video="v.mp4", host="0.0.0.0")._access().token
    (tmp_path / "token").write_text("my-own-token\n")
    assert Annotate(video="v.mp4", host="192.168.1.5", token_file=tmp_path / "token")._access().token == "my-own-token"
    monkeypatch.setenv("SAM2LONG_TOKEN", "of-the-environment")
    assert Annotate(video="v.mp4")._access().token == "of-the-environment"
    assert "SAM2LONG_TOKEN" not in os.environ, "programs that this one starts need not know it"
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "example.org")] == [
        True, True, True, False, False,
    ]  # fmt: skip


# ---- what a request may say ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/%2e%2e/errors.py", "/static//etc/passwd",
        "/api/exports/..%2f..%2fproject.zip", "/api/exports/%2fetc%2fpasswd.zip", "/api/frames/..%2f..%2fx.jpg",
    ],
)  # fmt: skip
def test_no_path_leads_out_of_the_servers_own_files(client, path):
    answer = client.get(path)
    assert answer.status_code in (400, 404), answer.text
    assert "error" in answer.json()


@pytest.mark.parametrize("folder", ["../../outside", "/etc/outside", "link/x", "a/../../../b", "\0"])
def test_exports_go_below_the_given_folders_only(client, desk, truth, tmp_path, folder):
    (tmp_path / "elsewhere").mkdir()
    (desk.project.folder.path / "link").symlink_to(tmp_path / "elsewhere")
    refused(client.post("/api/export", json={"format": "coco", "folder": folder}), 400, "folder")
    assert not list((tmp_path / "elsewhere").iterdir()) and not (tmp_path / "outside").exists()


def test_what_cannot_be_done_is_refused_at_once(client, desk, truth):
    client.post("/api/objects", json={})
    clicked(client, truth)
    desk.annotator.tracker.propagate("forward", 0)
    refused(client.post("/api/track", json={"start": 3, "end": 1}), 400, "frame 1 is not forward of frame 3")
    refused(client.post("/api/track", json={"start": 3, "end": 9999}), 400, "9999 is out of range")
    ended(desk, client, "/api/export", {"format": "coco"})
    refused(client.post("/api/export", json={"format": "coco"}), 400, "overwrite it")
    refused(client.post("/api/export", json={"format": "coco", "shape": "box"}), 400, "shape")
    assert client.get("/api/exports/coco.zip").status_code == 200
    shutil.rmtree(desk.project.folder.path / "export")
    refused(client.get("/api/exports/coco.zip"), 400, "export it first")


def test_a_project_is_not_opened_twice_nor_while_it_is_tracked(desk, clip):
    for attempt in (
        lambda: Project(desk.project.folder.path, open_source(str(clip)), desk.project.settings),
        lambda: RunFolder(desk.project.folder.path).__enter__(),
    ):
        with pytest.raises(StateError, match="another sam2long command"):
            attempt()


def test_below_takes_what_lies_below(tmp_path):
    (tmp_path / "a").mkdir()
    assert below("x/../y", tmp_path / "a", [tmp_path / "a"]) == (tmp_path / "a" / "y").resolve()
    assert below(str(tmp_path / "b"), tmp_path / "a", [tmp_path]) == (tmp_path / "b").resolve()


def test_an_upload_that_is_too_large_is_refused_also_without_its_length(client, desk):
    client.post("/api/objects", json={})
    path = "/api/objects/1/frames/0/mask"
    refused(client.put(path, content=b"x" * (MOST_UPLOAD_BYTES + 1)), 413, "16 MiB")
    refused(client.put(path, content=iter([b"x" * (1 << 20)] * 17)), 413, "16 MiB")  # chunked
    refused(client.post("/api/objects", content=b'"' + b"x" * MOST_BYTES + b'"'), 413, "1 MiB")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"GIF89a nonsense", "not a PNG"),
        (png(np.zeros((SIDE, SIDE), np.uint8))[:60], "not a PNG"),
        (png(np.ones((SIDE, SIDE + 1), np.uint8)), "129 x 128 pixels and the video 128 x 128"),
        (png(np.zeros((SIDE, SIDE), np.uint8)), "mask is empty"),
    ],
)
def test_an_upload_that_is_no_mask_of_this_video_is_refused(client, content, words):
    client.post("/api/objects", json={})
    refused(client.put("/api/objects/1/frames/0/mask", content=content), 400, words)
    assert client.get("/api/frames/0").json()["objects"] == {}


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/api/prompts/click", b'{"object": 1, "fra', "not JSON"),
        ("/api/prompts/click", b"\xff\xfe", ""),
        ("/api/prompts/click", b"[]", ""),
        ("/api/prompts/click", b'{"object": 1, "frame": 0, "x": NaN, "y": 1}', "x"),
        ("/api/prompts/click", b'{"object": 1, "frame": 0, "x": 1e99, "y": 1}', "x"),
        ("/api/prompts/click", b'{"object": true, "frame": 0, "x": 1, "y": 1}', "object"),
        ("/api/prompts/click", b'{"object": 1, "frame": 0, "x": 1, "y": 1, "shell": "rm"}', "shell"),
        ("/api/prompts/click", b'{"object": 1, "frame": -1, "x": 1, "y": 1}', "frame"),
        ("/api/prompts/click", b'{"object": 1, "frame": 99, "x": 1, "y": 1}', "out of range"),
        ("/api/prompts/click", b'{"object": 8, "frame": 0, "x": 1, "y": 1}', "no object 8"),
        ("/api/prompts/box", b'{"object": 1, "frame": 0, "box": [1, 2, 3]}', "box"),
        ("/api/objects", b'{"colour": "red; background: url(x)"}', "colour"),
        ("/api/objects", b'{"name": "a\\u0000b"}', "name"),
        ("/api/objects", b'{"name": "' + b"n" * 81 + b'"}', "name"),
        ("/api/track", b'{"direction": "sideways", "start": 0}', "direction"),
        ("/api/track", b'{"start": 0}', "nothing to track"),
        ("/api/export", b'{"format": "exe"}', "no format 'exe'"),
        ("/api/undo", b"", "nothing to undo"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(client, desk, path, body, words):
    client.post("/api/objects", json={})
    before = desk.project.prompts_file.read_text()
    refused(client.post(path, content=body, headers={"content-type": "application/json"}), 400, words)
    assert desk.project.prompts_file.read_text() == before


def test_pages_and_answers_carry_the_headers_that_keep_them_apart(client):
    for path in ("/", "/api/state", "/static/main.js"):
        headers = client.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
    refused(client.get("/docs"), 404)


# ---- the command ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.mp4"], "does not exist"),
        (["{clip}", "--root", "nowhere"], "not a folder"),
        (["{clip}", "--out", "{clip}"], "is a file"),
        (["{clip}", "--out", "{full}"], "holds other files"),
        (["{clip}", "--token-file", "{short}"], "shorter than 8"),
        (["{clip}", "--token-file", "none"], "cannot read --token-file none"),
        (["{clip}", "--port", "99999"], "cannot listen"),
        (["{clip}", "--device", "abacus"], "cannot be used"),
    ],
)
def test_the_command_says_in_one_sentence_what_is_wrong(clip, tmp_path, capsys, arguments, words):
    full = tmp_path / "full"
    full.mkdir()
    (full / "letter.txt").write_text("dear")
    (full / "short").write_text("short")
    filled = [text.format(clip=clip, full=full, short=full / "short") for text in arguments]
    if "--out" not in filled:
        filled += ["--out", str(tmp_path / "project")]
    assert main(["annotate", *filled, "--no-browser"]) == 2
    text = capsys.readouterr().err
    assert words in text and text.count("\n") == 1
    assert not (tmp_path / "project").exists()
