"""report.html: what it says, and that it is one file."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from sam2long.export import MaskReader, MaskWriter
from sam2long.export.page import write_page
from sam2long.video import open_source
from tests.test_export_pictures import report_of
from tests.video_files import write_video

FRAMES = 20
COMMAND = ["sam2long", "annotate", "a clip.mp4", "--out", "runs/a"]


class Page(HTMLParser):
    """The text, the links and the pictures of a page; every tag that is opened is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.links, self.pictures, self.bars = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.links += [attributes["href"]] if tag == "a" else []
        self.pictures += [attributes["src"]] if tag == "img" else []
        self.bars += [attributes] if tag == "rect" else []
        assert not any(name.startswith("on") for name in attributes) and tag not in ("script", "link")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.words.append(text)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def page_of(folder, statuses, labels=None, start=0, **changed):
    """The page of one report; object 1 is a square that moves right, present where it is not absent."""
    labels = labels or {1: "dog"}
    report = report_of(statuses, objects=tuple(labels)).assign(**changed)
    video = write_video(folder / "clip.mp4", FRAMES + start, height=90, width=160)
    header = {"height": 90, "width": 160, "objects": {str(key): name for key, name in labels.items()}}
    with MaskWriter(folder / "masks.jsonl", header) as out:
        for frame, status in enumerate(statuses):
            mask = np.zeros((90, 160), bool)
            if status != "a":
                mask[40:48, 10 + frame : 18 + frame] = True
            out.write(frame, start + frame, (start + frame) / 25, dict.fromkeys(labels, mask))
    with open_source(video, start=start) as source, MaskReader(folder / "masks.jsonl") as masks:
        write_page(
            report, folder / "report.html", source=source, masks=masks, labels=labels, title="a <b> & c",
            annotate=COMMAND,
        )  # fmt: skip
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_it_says_how_long_the_object_was_seen_when_it_was_away_and_where_to_look(tmp_path):
    page = page_of(tmp_path, "vvvvvaaaaauuvvvvvvvv", start=5)
    assert "a <b> & c" in page.text and "sam2long annotate 'a clip.mp4' --out runs/a" in page.text
    assert "visible on 13 frames, 0.5 s; uncertain on 2 frames, 0.1 s; absent on 5 frames, 0.2 s" in page.text
    assert "frame 10 (0:00.4) to frame 14 (0:00.6): 5 frames, 0.2 s" in page.text  # numbers of the video
    assert "unsure if it is there" in page.text
    assert "the middle of 19 frames that nobody has looked at" in page.text
    assert [link for link in page.links if link.endswith("#frame=10")], "frames as the page of annotate counts them"
    assert [(int(bar["x"]), int(bar["width"])) for bar in page.bars] == [(0, 5), (5, 5), (10, 2), (12, 8)]


def test_the_stills_show_the_object_and_lie_in_the_file(tmp_path):
    page = page_of(tmp_path, "vvvvvvvvvvuvvvvvvvvv")
    assert len(page.pictures) == 3, "first, where to look first, last"
    for address in page.pictures:
        assert address.startswith("data:image/jpeg;base64,")
        picture = np.array(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("RGB")).astype(int)
        assert picture.shape == (176, 320, 3), "a quarter of the picture, larger"
        blue = (picture[:, :, 2] - picture[:, :, 0]) > 40  # the object's colour, eight times as large as in the video
        assert blue[66:110, 130:142].all() and not blue[140:].any()
    assert not re.search(r"(src|href)=\"(?!data:|http://127)", (tmp_path / "report.html").read_text())


def test_an_object_that_was_never_seen_has_a_section_all_the_same(tmp_path):
    page = page_of(tmp_path, "a" * FRAMES)
    assert page.pictures == [] and "absent on 20 frames, 0.8 s" in page.text


def test_names_are_text(tmp_path):
    page = page_of(tmp_path, "vu" * 10, labels={1: "<script>alert(1)</script>", 2: "b"}, iou=0.2)
    assert "1 <script>alert(1)</script>" in page.text


@pytest.mark.parametrize("number", [11, 30])
def test_of_a_long_list_the_first_ten_are_shown(number):
    from sam2long.export.page import _list

    shown = _list("Title", [f"line {at}" for at in range(number)])
    assert shown.count("<li>") == 11 and f"and {number - 10} more" in shown and "line 10" not in shown
