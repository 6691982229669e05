"""A server that is asked for too much, for nonsense, or twice at once: it answers, in bounded time, and goes on."""

from __future__ import annotations

import base64
import io
import json
import os
import tempfile
import threading
import time
import tracemalloc
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("httpx", reason="needs the extra [dev]")

from sam2long.errors import DataError
from sam2long.export import MaskReader
from sam2long.export.convert import FORMATS, export_run
from sam2long.export.masks import decode_mask
from sam2long.imports import read_prompts
from sam2long.imports.areas import cut_polygon, paint_circle
from sam2long.naming import MOST_LETTERS
from sam2long.ui.uploads import read_shapes
from tests.export_run import make_run
from tests.ui.conftest import SIDE
from tests.ui.test_server import clicked, client, desk, ended, png, refused  # noqa: F401 - fixtures

FAR = 999_999.0
QUICK = 1.0  # seconds of the interpreter; without a bound these take many


def shapes(*found, side=SIDE):
    entries = [{"label": "dog", "group_id": 1, **entry} for entry in found]
    return json.dumps({"shapes": entries, "imageWidth": side, "imageHeight": side}).encode()


def packed(width, height, kind="png", mode="1"):
    data = io.BytesIO()
    Image.new(mode, (width, height), 1).save(data, kind)
    return base64.b64encode(data.getvalue()).decode()


# ---- bounded work --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [
        {"shape_type": "circle", "points": [[9, 9], [FAR, 9]]},
        {"shape_type": "circle", "points": [[-FAR, -FAR], [FAR, FAR]]},
        {"shape_type": "polygon", "points": [[-FAR, -FAR], [FAR, -FAR], [FAR, FAR], [-FAR, FAR]]},
        {"shape_type": "polygon", "points": [[-9e6, 5], [9e6, 6], [9e6, 9e6]]},
        {"shape_type": "polygon", "points": [[(-1) ** n * 9e6, n] for n in range(2000)]},
        {"shape_type": "polygon", "points": [[-9e6, -9e6], [9e6, 9e6]]},
        {"shape_type": "rectangle", "points": [[-FAR, -FAR], [FAR, FAR]]},
    ],
)
def test_shapes_are_cut_to_the_frame_before_they_are_drawn(client, shape):  # noqa: F811
    begun = time.process_time()
    answer = client.put("/api/frames/0/shapes", content=shapes(*[{**shape, "group_id": n} for n in range(1, 4)]))
    assert answer.status_code in (200, 400), answer.text
    assert time.process_time() - begun < 12 * QUICK  # the network's passes among them


@pytest.mark.parametrize("far", [300, 5e4, 9e5])
def test_a_shape_that_is_cut_covers_what_it_covered(far):
    ring = [(-far, 40.0), (70.0, -far), (far, 60.0), (60.0, far)]
    near = cut_polygon(ring, 96, 128)
    image = Image.new("1", (128 + 2000, 96 + 2000))
    from PIL import ImageDraw

    ImageDraw.Draw(image).polygon([(x + 1000, y + 1000) for x, y in near], fill=1, outline=1)
    found = np.array(image)[1000:1096, 1000:1128]
    rows, columns = np.mgrid[:96, :128]
    expected = np.ones((96, 128), bool)
    for (x1, y1), (x2, y2) in zip(ring, [*ring[1:], ring[0]], strict=True):
        expected &= (x2 - x1) * (rows - y1) - (y2 - y1) * (columns - x1) >= 0
    assert (found ^ expected).sum() < 0.02 * expected.sum() + 80, "but for the pixels of the edge"
    assert all(-10_000 < value < 10_000 for corner in near for value in corner) or far < 10_000


def test_polygons_near_the_frame_are_not_touched():
    ring = [(-5.0, -5.0), (130.0, 3.0), (64.0, 200.0)]
    assert cut_polygon(ring, 96, 128) == ring
    assert cut_polygon([(1e5, 1e5), (2e5, 1e5), (2e5, 2e5)], 96, 128) == []


def test_a_circle_is_as_large_as_its_edge_says():
    mask = np.zeros((96, 128), bool)
    paint_circle(mask, (64.0, 48.0), (84.0, 48.0))
    assert mask[48, 44] and mask[48, 84] and not mask[48, 86] and not mask[48, 42]
    assert mask.sum() == pytest.approx(np.pi * 20.5**2, rel=0.02)
    paint_circle(mask, (-50.0, -50.0), (-40.0, -50.0))
    assert mask.sum() == pytest.approx(np.pi * 20.5**2, rel=0.02)
    paint_circle(mask, (0.0, 0.0), (FAR, FAR))
    assert mask.all()


@pytest.mark.parametrize(
    ("mask", "words"),
    [(lambda: packed(9_000, 9_000), "does not lie inside"), (lambda: packed(14_000, 14_000), "not a PNG"),
         (lambda: packed(8, 8, "gif"), "not a PNG"),
     (lambda: packed(8, 8, "tiff"), "not a PNG"), (lambda: packed(8, 8, "jpeg", "L"), "not a PNG"),
     (lambda: packed(40_000, 40_000)[:400], "not lie inside|not a PNG")],
)  # fmt: skip
def test_sizes_are_read_before_pixels(mask, words, clip):
    from sam2long.video import open_source

    data = shapes({"shape_type": "mask", "points": [[1, 1], [9, 9]], "mask": mask()})
    with open_source(str(clip)) as source:
        tracemalloc.start()
        with pytest.raises(DataError, match=words):
            read_shapes(data, source)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
        tracemalloc.stop()


def test_too_many_corners_and_objects_are_refused(client):  # noqa: F811
    ring = [[n % 100, n // 100 % 100] for n in range(210_000)]
    body = shapes({"shape_type": "polygon", "points": ring})
    refused(client.put("/api/frames/0/shapes", content=body), 400, "corners")
    refused(client.put("/api/frames/0/shapes", content=shapes(*[{"points": [[1, 1]]}] * 1001)), 400, "1000 at most")


def test_uploads_wait_for_each_other_and_nobody_else_does(client, desk):  # noqa: F811
    gate = threading.Event()
    desk.reading.submit(gate.wait)
    waiting = [
        threading.Thread(target=client.put, args=("/api/frames/0/shapes",), kwargs={"content": shapes(
            {"shape_type": "circle", "points": [[40, 40], [60, 40]]})})
        for _ in range(10)
    ]  # fmt: skip
    for thread in waiting:
        thread.start()
    try:
        begun = time.monotonic()
        for path in ("/api/state", "/api/timeline", "/api/frames/3.jpg", "/api/frames/2"):
            assert client.get(path).status_code == 200
        assert client.post("/api/objects", json={}).status_code == 200
        assert time.monotonic() - begun < 20
    finally:
        gate.set()
        for thread in waiting:
            thread.join()
    assert decode_mask(client.get("/api/frames/0").json()["objects"]["1"]["mask"]).any()


# ---- the same for every door ---------------------------------------------------------------------------------------

NAMES = ["a\x00b", "a\x1bb", "\x7f", "\ufffe", "x" * (MOST_LETTERS + 1), "x" * 5_000_000]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_are_refused_at_every_door(client, tmp_path, name):  # noqa: F811
    said = refused(client.post("/api/objects", json={"label": name}), 413 if len(name) > 1 << 20 else 400)
    assert len(said) < 300
    entry = {"shape_type": "point", "points": [[9, 9]], "label": name}
    said = refused(client.put("/api/frames/0/shapes", content=shapes(entry)), 400, "label")
    assert len(said) < 300
    from sam2long.runs.prompting import from_file, from_flags

    (tmp_path / "prompts.json").write_text(json.dumps([{"object": 1, "label": name, "box": [1, 1, 5, 5]}]))
    coco = {
        "images": [{"id": 1, "file_name": "1.jpg"}], "categories": [{"id": 1, "name": name}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}],
    }  # fmt: skip
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    for read in (
        lambda: from_file(tmp_path / "prompts.json"), lambda: read_prompts(tmp_path / "coco.json"),
        lambda: from_flags(0, "1,1,5,5", (), (), None, name),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="letters|printed"):
            read()


def test_the_highest_number_leaves_room_for_later_objects(client, truth):  # noqa: F811
    entry = {"shape_type": "circle", "points": [[40, 40], [60, 40]], "group_id": 2**31 - 1}
    assert client.put("/api/frames/0/shapes", content=shapes(entry)).status_code == 200
    new = client.post("/api/objects", json={}).json()["id"]
    assert clicked(client, truth, new).status_code == 200 or new != 1
    refused(client.put("/api/frames/0/shapes", content=shapes({**entry, "group_id": 2**31})), 400, "group_id")


def test_numbers_from_0_are_moved_on_and_the_page_is_told(client):  # noqa: F811
    entries = [{"shape_type": "circle", "points": [[40, 40], [60, 40]], "group_id": n} for n in (0, 1)]
    answer = client.put("/api/frames/0/shapes", content=shapes(*entries)).json()
    assert answer["moved"] == {"0": 1, "1": 2} and set(answer["objects"]) == {"1", "2"}


def test_what_old_files_hold_is_escaped_at_every_exit(tmp_path):
    """A masks.jsonl from before names were checked."""
    run = make_run(tmp_path / "run")
    lines = (run / "masks.jsonl").read_text().splitlines(keepends=True)
    header = json.loads(lines[0])
    header["objects"] = {"1": "=1+1\x00\x0b<b>&\"'", "2": "\x1b[31m\ufffe", "7": "</title>"}
    (run / "masks.jsonl").write_text("".join([json.dumps(header) + "\n", *lines[1:]]))
    for name in FORMATS:
        folder = export_run(run, name).folder
        for path in folder.rglob("*"):
            if path.suffix in (".xml", ".json", ".txt", ".yaml", ".csv", ".ini"):
                text = path.read_text(encoding="utf-8")
                assert not any(letter in text for letter in "\x00\x0b\x1b\ufffe"), path
                if path.suffix == ".xml":
                    ElementTree.fromstring(text)
                if path.suffix == ".json":
                    json.loads(text)


@pytest.mark.parametrize(
    "folder",
    ["view.json", "prompts.json", "VIEW.JSON", "masks", ".resume/x", ".lock", "run.json/deep", "con", "export/nul.txt",
     "x" * 300, "a\x01b", "export/dot."],
)  # fmt: skip
def test_folders_that_mean_something_else_are_refused(client, desk, truth, folder):  # noqa: F811
    client.post("/api/objects", json={})
    clicked(client, truth)
    refused(client.post("/api/export", json={"format": "coco", "folder": folder}), 400)
    with pytest.raises(DataError):
        export_run(desk.project.folder.path, "coco", desk.project.folder.path / folder)
    assert client.put("/api/view", json={"frame": 3}).status_code == 200
    assert client.get("/api/state").json()["view"]["frame"] == 3


# ---- what is left behind -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [{}, {"range": "bytes=99-1"}, {"range": "bytes=0-3"}, {"range": "nonsense"}])
def test_a_download_leaves_nothing_behind(client, desk, truth, header):  # noqa: F811
    client.post("/api/objects", json={"label": "dog"})
    clicked(client, truth)
    event = ended(desk, client, "/api/export", {"format": "object-png"})[-1]
    before = set(os.listdir(tempfile.gettempdir()))
    answer = client.get(f"/api/exports/{event['name']}.zip", headers=header)
    assert {name for name in set(os.listdir(tempfile.gettempdir())) - before if name.startswith("sam2long-")} == set()
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert set(archive.namelist()) == {*event["files"], "export.json"}
        for name in archive.namelist():
            assert archive.read(name) == (Path(event["folder"]) / name).read_bytes()


def test_exports_of_the_same_name_are_told_apart(client, desk, truth):  # noqa: F811
    client.post("/api/objects", json={})
    clicked(client, truth)
    events = [
        ended(desk, client, "/api/export", {"format": name, "folder": f"export/{place}/mine"})[-1]
        for name, place in (("coco", "a"), ("object-png", "b"))
    ]
    again = ended(desk, client, "/api/export", {"format": "coco", "folder": "export/a/mine", "overwrite": True})[-1]
    assert events[0]["name"] == again["name"] != events[1]["name"]
    names = [
        zipfile.ZipFile(io.BytesIO(client.get(f"/api/exports/{event['name']}.zip").content)).namelist()
        for event in events
    ]
    assert "annotations.json" in names[0] and "annotations.json" not in names[1]
    refused(client.get("/api/exports/other.zip"), 400, "no export 'other'")


@pytest.mark.parametrize(
    "origin", ["http://[", "http://[::1", "null", "http://127.0.0.1:1@[", "://", "http://evil.example"]
)
def test_an_origin_that_is_none_is_403(client, origin):  # noqa: F811
    refused(client.post("/api/objects", json={}, headers={"origin": origin}), 403, "another page")


def test_a_length_beyond_all_bounds_is_refused(client):  # noqa: F811
    answer = client.post("/api/objects", content=b"{}", headers={"content-length": "1" * 5000})
    assert answer.status_code == 400


def test_the_state_is_busy_as_soon_as_work_is_accepted(client, desk, truth):  # noqa: F811
    client.post("/api/objects", json={})
    clicked(client, truth)
    gate = threading.Event()
    desk.worker.submit(gate.wait)  # the thread has something else to do first
    try:
        assert client.post("/api/track", json={"start": 0}).status_code == 202
        assert client.get("/api/state").json()["busy"]["what"] == "tracking"
        refused(client.post("/api/track", json={"start": 0}), 409, "under way")
    finally:
        gate.set()
    for _ in range(600):
        if client.get("/api/state").json()["busy"] is None:
            break
        time.sleep(0.05)
    assert client.get("/api/state").json()["busy"] is None and not desk.worker.busy
    with MaskReader(desk.project.store.path) as masks:
        assert len(masks.frames) > 1


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", "/api/objects/1", None),
        ("POST", "/api/objects/1/reset", {}),
        ("POST", "/api/reset", {}),
        ("POST", "/api/prompts/click", {"object": 1, "frame": 2, "x": 9, "y": 9}),
        ("POST", "/api/prompts/clear", {"object": 1, "frame": 2}),
        ("POST", "/api/undo", {}),
    ],
)
def test_a_page_takes_nothing_away_that_it_has_not_seen(client, desk, truth, method, path, body):  # noqa: F811
    client.post("/api/objects", json={})
    seen = str(client.get("/api/state").json()["revision"])
    mask = png((truth[2] == 1) * np.uint8(255))
    painter, other = {"x-page": "a"}, {"x-page": "b"}
    client.put("/api/objects/1/frames/2/mask", content=mask, headers=painter).raise_for_status()
    before = client.get("/api/frames/2").json()
    refused(client.request(method, path, json=body, headers=other | {"x-seen": seen}), 409, "object 1 on frame 2")
    assert client.get("/api/frames/2").json() == before
    now = str(desk.project.revision)
    assert client.request(method, path, json=body, headers=other | {"x-seen": now}).status_code == 200
    assert (1, 2) not in desk.project.changed_at or method != "DELETE", "nothing is kept of what was removed"


def test_two_pages_do_not_replace_each_others_masks_unseen(client, truth):  # noqa: F811
    client.post("/api/objects", json={})
    data = io.BytesIO()
    Image.fromarray(np.uint8(truth[0] == 1) * 255).save(data, "png")
    at = "/api/objects/1/frames/0/mask"
    seen = str(client.get("/api/state").json()["revision"])
    first, second = ({"x-page": page, "x-seen": seen, "content-type": "image/png"} for page in "ab")
    assert client.put(at, content=data.getvalue(), headers=first).status_code == 200
    refused(client.put(at, content=data.getvalue(), headers=second), 409, "another page")
    assert client.put(at, content=data.getvalue(), headers=first).status_code == 200
    second["x-seen"] = str(client.get("/api/state").json()["revision"])
    assert client.put(at, content=data.getvalue(), headers=second).status_code == 200
    for odd in ("", "-1", "1e9", "9" * 500, "\xb2"):
        headers = {"x-page": "c", "x-seen": odd.encode("latin-1"), "content-type": "image/png"}
        assert client.put(at, content=data.getvalue(), headers=headers).status_code == 200
