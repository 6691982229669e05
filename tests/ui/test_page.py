"""The page in a headless Chromium, against the real command: what a user does, by mouse and by keyboard alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import time

import numpy as np
import pytest

from sam2long.export.masks import MaskReader, decode_mask
from sam2long.video import VideoWriter
from tests.ui.conftest import FRAMES, SIDE, inside, overlap

pytest.importorskip("httpx", reason="needs the extra [dev]")

from tests.ui.server import START_SECONDS, Server

playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra [dev]: pip install playwright")
pytestmark = pytest.mark.slow

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
# Done by the page itself: on a busy machine the test may look too late.
STOP_WHEN_SEEN = """() => {
    const bar = document.querySelector("#progress");
    window.locked = null;
    new MutationObserver((changes, observer) => {
        if (bar.hidden) return;
        observer.disconnect();
        window.locked = document.querySelector("[data-command=clear]").disabled;
        document.querySelector("#stage").dispatchEvent(new KeyboardEvent("keydown", {key: "Escape", bubbles: true}));
    }).observe(bar, {attributes: true});
}"""
STEP = 2  # pixels of this small video that an arrow key moves the cursor by
MARGIN = 12  # pixels that the page leaves around the picture


@pytest.fixture(scope="module")
def browser():
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        message = "no Chromium here (Debian: apt-get install chromium)"
        if os.environ.get("REQUIRE_CHROMIUM") == "1":
            pytest.fail(f"REQUIRE_CHROMIUM=1 but there is {message}")
        pytest.skip(message)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def serve(clip):
    servers = []

    def start(out, video=clip):
        servers.append(Server(video, out))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.kill()


@pytest.fixture
def long_clip(scene, tmp_path):
    """Long enough for a second page to see that it is being tracked, and to stop that."""
    with VideoWriter(tmp_path / "long.mp4", 25, SIDE, SIDE) as out:
        for turn in range(20):
            for image in scene[0][:: -1 if turn % 2 else 1]:
                out.write(image)
    return tmp_path / "long.mp4"


class Page:
    """A page that must not complain."""

    def __init__(self, browser, server, size=(1280, 800)):
        self.page = browser.new_page(viewport={"width": size[0], "height": size[1]})
        self.page.set_default_timeout(1000 * START_SECONDS)
        self.trouble = []
        self.page.on("console", lambda line: self.trouble.append(line.text) if line.type in ("error", "warning") else 0)
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.goto(server.address)
        self.page.wait_for_selector("body[data-ready=true]")
        self.key = self.page.keyboard.press

    def point(self, x, y):
        """Where a pixel of the video is on the page."""
        box = self.page.locator("#canvas").bounding_box()
        scale = min(box["width"] - 2 * MARGIN, box["height"] - 2 * MARGIN) / SIDE
        left, top = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        return left + (x + 0.5 - SIDE / 2) * scale, top + (y + 0.5 - SIDE / 2) * scale

    def settled(self):
        """Wait until the server has everything."""
        self.page.wait_for_timeout(60)
        self.page.wait_for_selector("body[data-pending='0']")

    def click(self, x, y, **how):
        self.page.mouse.click(*self.point(x, y), **how)
        self.settled()

    def drag(self, start, end):
        self.page.mouse.move(*self.point(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.point(*end), steps=3)
        self.page.mouse.up()
        self.settled()

    def press(self, *keys):
        for key in keys:
            self.key(key)
        self.settled()

    def tracked(self, text):
        """Wait for the end of a propagation."""
        self.shows("#outcome", text)
        self.settled()

    def shows(self, selector, text):
        # Not wait_for_function: it needs eval, which the page's own security policy forbids.
        playwright.expect(self.page.locator(selector)).to_contain_text(text, timeout=1000 * START_SECONDS)

    def go(self, frame):
        self.press("g", *str(frame), "Enter")

    def close(self):
        self.page.wait_for_timeout(500)  # where the user is, is saved a moment later
        self.page.close()
        assert self.trouble == []


def test_prompt_track_correct_track_again_export_and_lose_nothing_by_a_kill(browser, serve, truth, tmp_path):
    out = tmp_path / "project"
    server = serve(out)
    page = Page(browser, server)
    for obj_id in (1, 2):
        page.click(*inside(truth, 0, obj_id))
        page.press("f")
    assert [entry["prompts"] for entry in server.get("api/state")["objects"]] == [[0], [0]]
    page.page.get_by_label("Class of object 2").fill("thing")
    page.page.get_by_label("Class of object 2").press("Enter")
    page.settled()
    page.press("Control+m")
    page.tracked(f"{FRAMES} frames tracked")
    first = server.annotations()
    for obj_id in (1, 2):
        scores = [
            overlap(decode_mask(found[str(obj_id)]["mask"]), truth[frame] == obj_id)
            for frame, found in enumerate(first["frames"])
        ]
        assert np.mean(scores) > 0.4, scores

    page.go(8)  # a correction: a box around something else, and what is not it
    page.press("1", "r")
    page.drag((4, 4), (44, 44))
    page.press("q")
    page.click(40, 40, button="right")
    corrected = server.get("api/frames/8")["objects"]["1"]["prompt"]
    assert corrected["box"] == pytest.approx([4.5, 4.5, 44.5, 44.5], abs=1) and corrected["labels"] == [0]
    page.press("Control+z")
    assert server.get("api/frames/8")["objects"]["1"]["prompt"]["labels"] == []
    page.page.get_by_label("Selected object only").check()
    page.press("Control+m")
    page.tracked(f"{FRAMES - 8} frames tracked")
    second = server.annotations()
    assert second["frames"][:8] == first["frames"][:8]
    masks = [[found[obj]["mask"] for found in (first["frames"][11], second["frames"][11])] for obj in ("1", "2")]
    assert masks[0][0] != masks[0][1] and masks[1][0] == masks[1][1]

    page.press("Control+e")
    page.page.select_option("#export-format", "coco")
    page.page.click("#export-start")
    page.page.wait_for_selector("#export-result a")
    with page.page.expect_download() as download:
        page.page.click("#export-result a")
    assert download.value.suggested_filename == "coco.zip"
    assert not page.page.locator("#export-tracked-only").is_visible()
    page.page.select_option("#export-format", "matte")
    page.page.locator("#export-tracked-only").check()
    with page.page.expect_request("**/api/export") as sent:
        page.page.click("#export-start")
    assert sent.value.post_data_json["tracked_only"] is True
    page.shows("#export-result", "export/matte")
    page.press("Escape")
    [file] = [path for path in (out / "export" / "coco").glob("*.json") if path.name != "export.json"]
    assert {entry["name"] for entry in json.loads(file.read_text())["categories"]} >= {"thing"}

    page.go(5)
    page.press("2", "q")
    page.click(*inside(truth, 5, 2))  # and before the tracker's state is saved again ...
    page.page.wait_for_timeout(600)
    before = server.annotations()
    assert before["view"]["frame"] == 5 and before["objects"][1]["prompts"] == [0, 5]
    server.kill()
    page.page.close()
    again = serve(out)
    assert again.annotations() == before
    page = Page(browser, again)
    assert page.page.locator("#frame").input_value() == "5"
    page.press("Control+m")  # and it goes on from there
    page.tracked("frames tracked")
    page.close()
    output, code = again.stop()
    assert code == 0 and "saved" in output
    with MaskReader(out / "masks.jsonl") as masks:
        assert masks.frames == list(range(FRAMES)) and not masks.torn


def test_everything_goes_by_keyboard_alone(browser, serve, truth, tmp_path):
    out = tmp_path / "project"
    server = serve(out)
    page = Page(browser, server)

    def place(x, y):
        """Bring the cursor to a pixel: in steps, and by single pixels at the end."""
        for axis, keys in ((0, ("ArrowLeft", "ArrowRight")), (1, ("ArrowUp", "ArrowDown"))):
            stands = [int(n) for n in re.match(r"(\d+), (\d+)", page.page.locator("#hint").inner_text()).groups()]
            missing = int((x, y)[axis]) - stands[axis]
            key = keys[int(missing > 0)]
            for _ in range(abs(missing) // STEP):
                page.key(key)
            for _ in range(abs(missing) % STEP):
                page.key(f"Shift+{key}")

    page.press("c")
    place(*inside(truth, 0, 1))
    page.press("Enter", "f")
    rows, columns = np.nonzero(truth[0] == 2)
    page.press("r")
    place(columns.min(), rows.min())
    page.press("Enter")
    place(columns.max() + 1, rows.max() + 1)
    page.press("Enter", "Escape")
    page.press("F2")
    page.page.keyboard.type("second")
    page.press("Enter")
    found = server.get("api/frames/0")["objects"]
    assert found["1"]["prompt"]["points"] == [list(inside(truth, 0, 1))]
    assert found["2"]["prompt"]["box"] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert [overlap(decode_mask(found[str(o)]["mask"]), truth[0] == o) > 0.3 for o in (1, 2)] == [True, True]
    assert server.get("api/state")["objects"][1]["name"] == "second"

    page.press("ArrowRight", "ArrowRight", "[", "ArrowRight", "ArrowRight", "ArrowRight", "]")
    page.press("Control+m")
    page.tracked("4 frames tracked")
    assert [frame for frame in range(FRAMES) if server.get(f"api/frames/{frame}")["objects"]] == [0, 2, 3, 4, 5]
    page.press("\\", "Home", "Control+b")
    page.tracked(f"{FRAMES} frames tracked")
    page.go(6)
    page.press("ArrowUp", "l")  # locks a frame of the first object
    assert server.get("api/state")["objects"][0]["prompts"] == [0, 6]
    page.press("b")
    page.press("v", "v", "v", "h", "h", "Space", "Space", "n", "Shift+N", "m", "+", "0")
    assert page.page.locator("[data-show=rotated]").get_attribute("aria-checked") == "true"
    page.press("?")
    assert (
        "To the middle of the longest stretch that nobody has looked at"
        in page.page.locator("#help-dialog").inner_text()
    )
    page.press("Escape", "Delete", "Tab", "Enter")  # removes the selected object; asked, "Cancel" comes first
    playwright.expect(page.page.locator("#objects .object")).to_have_count(1)
    page.press("Control+e")
    page.press("Tab", "Tab", "Tab", "Tab", "Enter")
    page.page.wait_for_selector("#export-result a")
    assert (out / "export" / "palette-png" / "00003.png").exists()
    page.press("Escape")
    page.close()


def test_a_mask_is_mended_with_brush_and_eraser_and_tracked_on_from(browser, serve, truth, tmp_path):
    server = serve(tmp_path / "project")
    page = Page(browser, server)

    def mask(obj_id, frame=0):
        return decode_mask(server.get(f"api/frames/{frame}")["objects"][str(obj_id)]["mask"]).astype(bool)

    page.click(*inside(truth, 0, 1))
    before = mask(1)
    page.press("w", *"[[[[[[[[[[", "]", "]", "]")
    page.shows("#hint", "4 pixels wide")
    page.drag((4, 3), (60, 3))
    painted = mask(1)
    assert painted[2:5, 4:61].all() and not painted[7:9, 4:61][~before[7:9, 4:61]].any()
    assert np.array_equal(painted[8:], before[8:]), "what is not painted over stays to the pixel"
    assert server.get("api/frames/0")["objects"]["1"]["prompt"]["mask"], "it is a prompt now"
    page.press("s")
    page.drag((20, 3), (30, 3))
    erased = mask(1)
    assert not erased[2:5, 20:31].any() and np.array_equal(erased[:, 40:], painted[:, 40:])
    page.press("Control+z")
    assert np.array_equal(mask(1), painted)
    page.press("w")
    page.page.mouse.move(*page.point(40, 3))
    page.page.mouse.wheel(0, -100)
    page.shows("#hint", "5 pixels wide")
    page.page.mouse.down(button="right")  # erases, whatever the tool
    page.page.mouse.up(button="right")
    page.settled()
    assert not mask(1)[2:5, 39:42].any() and mask(1)[3, 50]

    page.press("f", "w")  # a new object, by keyboard alone
    page.press("c", "Enter", *["Shift+ArrowRight"] * 9, "Enter", "Escape")
    [_, second] = server.get("api/state")["objects"]
    stroke = mask(second["id"])
    rows, columns = np.nonzero(stroke)
    assert 12 <= np.ptp(columns) <= 15 and 3 <= np.ptp(rows) <= 5
    page.press("Control+m")
    page.tracked("frames tracked")
    assert np.array_equal(mask(second["id"]), stroke), "a painted frame stays as it was painted"
    page.press("ArrowRight", "]", "]", "s")
    page.page.screenshot(path=tmp_path / "brush.png")
    page.close()


def test_where_to_look_a_good_mask_and_a_correction(browser, serve, truth, tmp_path):
    page = Page(browser, serve(tmp_path / "project"))
    page.click(*inside(truth, 0, 1))
    page.press("Control+m")
    page.tracked("frames tracked.")
    page.press("n")
    page.shows("#look-text", f"the middle of {FRAMES - 1} frames that nobody has looked at")
    first = int(page.page.locator("#frame").input_value())
    page.press("y")
    page.shows("#look-text", f"the middle of {FRAMES - 1 - first} frames")
    second = int(page.page.locator("#frame").input_value())
    assert (first, second) == (7, 4)
    page.press("r")
    rows, columns = np.nonzero(truth[second] == 1)
    page.drag((columns.min(), rows.min()), (columns.max(), rows.max()))
    page.press("Control+b")
    page.tracked("changed")  # how many, depends on the model
    assert page.page.locator("#look-text").inner_text() == "", "what it said of a frame no longer holds"
    page.press("n")
    page.shows("#look-text", f"the middle of {FRAMES - 1 - first} frames")
    assert page.page.locator("#frame").input_value() == "11"
    page.close()


def test_two_pages_see_the_same_one_stops_the_other_and_both_notice_the_end(browser, serve, long_clip, truth, tmp_path):
    server = serve(tmp_path / "project", long_clip)
    one, two = Page(browser, server, (1920, 1080)), Page(browser, server, (1024, 700))
    one.click(*inside(truth, 0, 1))
    two.page.wait_for_selector("#objects .object")
    two.shows("#facts", "prompted")
    two.press("1")
    two.page.get_by_label("Name of object 1").fill("seen by both")
    two.page.get_by_label("Name of object 1").press("Enter")
    playwright.expect(one.page.get_by_label("Name of object 1")).to_have_value("seen by both")
    two.page.evaluate(STOP_WHEN_SEEN)
    one.press("Control+m")
    one.tracked("frames tracked")
    two.tracked("frames tracked")
    assert two.page.evaluate("window.locked"), "nobody may change anything while another page tracks"
    done = server.get("api/timeline")["objects"]["1"]["status"]
    assert done[0] == "p" and set(done.lstrip("pa")) == {"."}  # what was done is kept, without a gap
    two.page.evaluate("location.hash = '#frame=3'")  # as links of report.html have it
    playwright.expect(two.page.locator("#frame")).to_have_value("3")
    for page in (one, two):
        wide = page.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide == 0, "the page is wider than its window"
    one.close()
    begun = time.monotonic()
    output, code = server.stop()  # an open page does not hold the server up, and says what has happened
    assert code == 0 and time.monotonic() - begun < 20, output
    two.shows("#saved", "Connection lost")
    two.page.mouse.click(*two.point(30, 30))
    two.shows("#toasts", "does not answer")
    two.page.close()


def test_what_one_page_does_while_another_draws_is_not_lost_unseen(browser, serve, truth, tmp_path):
    server = serve(tmp_path / "project")
    one, two = Page(browser, server), Page(browser, server)
    one.click(*inside(truth, 0, 1))
    two.shows("#facts", "prompted")
    two.press("1")

    def said():
        return server.get("api/frames/0")["objects"]["1"]["prompt"]

    def meanwhile(corner):
        """The first page draws a box, and the second one shows it."""
        before = server.get("api/state")["revision"]
        one.press("1", "r")
        with two.page.expect_response("**/api/frames/0*"):
            one.drag((corner, corner), (corner + 50, corner + 50))
        assert server.get("api/state")["revision"] == before + 1 and said()["box"][0] == pytest.approx(corner, abs=1)

    def refused():
        two.shows("#toasts", "Another page has just changed object 1 on frame 0")
        two.settled()
        assert two.trouble.pop().endswith("409 (Conflict)") and not two.trouble
        two.page.evaluate("document.querySelector('#toasts').replaceChildren()")

    for tool, corner in (("w", 10), ("r", 20)):
        two.press(tool)
        two.page.mouse.move(*two.point(40, 60))
        two.page.mouse.down()
        two.page.mouse.move(*two.point(80, 90), steps=3)
        meanwhile(corner)
        two.page.mouse.up()
        refused()
        assert said()["box"][0] == pytest.approx(corner, abs=1) and not said()["mask"]

    two.press("Delete")  # asks first
    meanwhile(30)
    two.page.get_by_role("button", name="Remove", exact=True).last.click()
    refused()
    assert said()["box"][0] == pytest.approx(30, abs=1)

    two.press("r")
    two.drag((40, 60), (80, 90))  # now it has been seen
    assert said()["box"][0] == pytest.approx(40, abs=1)
    for page in (one, two):  # points are added to points, seen or not
        page.press("q")
        page.page.mouse.click(*page.point(50 if page is one else 60, 70))
    one.settled()
    two.settled()
    assert {50, 60} <= {round(x) for x, _ in said()["points"]}
    one.close()
    two.close()
