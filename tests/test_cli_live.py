"""`sam2long live` with a real, very small model: files, a network stream, dropping, Ctrl-C, and what is refused."""

from __future__ import annotations

import functools
import http.server
import json
import os
import signal
import threading
import time
from contextlib import contextmanager

import av
import numpy as np
import pytest
from PIL import Image

from sam2long.cli import main
from sam2long.export import MaskReader
from sam2long.export.convert import export_run
from sam2long.predictor import SAM2LongVideoPredictor
from sam2long.video import live as video_live
from sam2long.video import open_source
from tests.fakes import noise_clip, tiny_flags
from tests.video_files import numbered_image, write_video

FRAMES = 20
BOX = ("--box", "4,4,30,40")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_flags(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return noise_clip(tmp_path_factory.mktemp("video") / "noise.mp4", FRAMES, fps=20)


@pytest.fixture
def slow(monkeypatch):
    """Tracking takes 150 ms a frame, three times what the clip's pace allows."""
    track = SAM2LongVideoPredictor.track

    def slowly(self, *args):
        time.sleep(0.15)
        return track(self, *args)

    monkeypatch.setattr(SAM2LongVideoPredictor, "track", slowly)


def live(*arguments):
    return main(["live", "--quiet", *map(str, arguments)])


def masks_of(out):
    with MaskReader(out / "masks.jsonl") as masks:
        return {(frame, obj_id): mask for frame in masks.frames for obj_id, mask in masks.masks(frame).items()}


def info(out):
    return json.loads((out / "run.json").read_text())


def test_live_masks_are_those_of_online_tracking(model, clip, tmp_path):
    assert live(clip, *BOX, "--label", "dog", *model, "--out", tmp_path / "live") == 0
    assert main(["track", "--quiet", clip, *BOX, "--online", *model, "--out", str(tmp_path / "track")]) == 0
    found, expected = masks_of(tmp_path / "live"), masks_of(tmp_path / "track")
    assert set(found) == set(expected) == {(frame, 1) for frame in range(FRAMES)}
    assert all(np.array_equal(found[key], mask) for key, mask in expected.items())
    assert len({int(mask.sum()) for mask in expected.values()}) > 5, "masks are not all one constant"
    said = info(tmp_path / "live")
    assert (said["status"], said["frames_tracked"], said["frames_dropped"]) == ("complete", FRAMES, 0)
    assert said["frames_per_second"] > 0
    assert sorted(path.name for path in (tmp_path / "live").iterdir()) == ["masks.jsonl", "overlay.mp4", "run.json"]
    assert open_source(tmp_path / "live" / "overlay.mp4").num_frames == FRAMES


def test_frames_that_no_overlay_can_hold_are_recorded_without_one(model, tmp_path):
    (tmp_path / "wide").mkdir()
    for number in range(2):
        Image.new("RGB", (16400, 8), (40 * number, 0, 0)).save(tmp_path / "wide" / f"{number}.png")
    out = tmp_path / "live"
    assert live(tmp_path / "wide", "--box", "1,1,9,7", *model, "--out", out) == 0
    assert info(out)["status"] == "complete" and "16384 pixels" in info(out)["notes"][0]
    assert sorted(path.name for path in out.iterdir()) == ["masks.jsonl", "run.json"]


def test_keeping_up_drops_frames_and_stays_with_the_source(model, clip, tmp_path, slow):
    out = tmp_path / "live"
    assert live(clip, *BOX, "--realtime", "--keep-up", *model, "--out", out) == 0
    said = info(out)
    frames = sorted(frame for frame, _ in masks_of(out))
    assert said["frames_dropped"] > 5 and said["frames_tracked"] + said["frames_dropped"] == FRAMES
    assert frames[0] == 0 and frames[-1] == FRAMES - 1 and len(frames) == said["frames_tracked"]
    assert said["seconds"]["track"] < 2.5, "one second of video, however slow the tracker"
    overlay = open_source(out / "overlay.mp4")
    assert overlay.num_frames == len(frames)
    times = [frame.time for frame in overlay]
    np.testing.assert_allclose(times, [frame / 20 for frame in frames], atol=0.02), "at the times of the frames"
    for name in ("coco", "matte"):
        (lost,) = export_run(out, name).lost
        assert f"{said['frames_dropped']} frames between the tracked ones were not looked at" in lost


def test_without_keeping_up_no_frame_is_dropped(model, clip, tmp_path, slow):
    assert live(clip, *BOX, "--realtime", *model, "--out", tmp_path / "live", "--max-frames", 8) == 0
    assert info(tmp_path / "live")["frames_dropped"] == 0
    assert sorted(frame for frame, _ in masks_of(tmp_path / "live")) == list(range(8))


def test_ctrl_c_leaves_finished_files(model, clip, tmp_path, monkeypatch):
    track, calls = SAM2LongVideoPredictor.track, []
    before = signal.getsignal(signal.SIGINT)  # a shell's background job ignores it

    def interrupted(self, *args):
        calls.append(None)
        if len(calls) == 6:
            signal.raise_signal(signal.SIGINT)
        return track(self, *args)

    monkeypatch.setattr(SAM2LongVideoPredictor, "track", interrupted)
    out = tmp_path / "live"
    assert live(clip, *BOX, *model, "--out", out) == 0
    frames = sorted(frame for frame, _ in masks_of(out))
    assert frames == list(range(len(frames))) and 6 <= len(frames) < FRAMES
    assert info(out)["status"] == "complete"
    assert open_source(out / "overlay.mp4").num_frames == len(frames)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_tracker_that_fails_leaves_what_was_done(model, clip, tmp_path, monkeypatch):
    track, calls = SAM2LongVideoPredictor.track, []

    def failing(self, *args):
        calls.append(None)
        if len(calls) == 5:
            raise MemoryError
        return track(self, *args)

    monkeypatch.setattr(SAM2LongVideoPredictor, "track", failing)
    with pytest.raises(MemoryError):
        live(clip, *BOX, *model, "--out", tmp_path / "live")
    assert len(masks_of(tmp_path / "live")) == open_source(tmp_path / "live" / "overlay.mp4").num_frames >= 4


def test_a_stream_over_the_network(model, clip, tmp_path):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=os.path.dirname(clip))
    handler.log_message = lambda *args: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/{os.path.basename(clip)}"
        assert live(url, *BOX, *model, "--out", tmp_path / "live") == 0
    finally:
        server.shutdown()
    assert len(masks_of(tmp_path / "live")) == FRAMES
    assert info(tmp_path / "live")["settings"]["video"] == url


@contextmanager
def sent(*answers):
    """The address of a server that sends these bytes, one after the other to each who asks, and the last for ever.

    Each answer: (bytes, length that it announces).
    """
    left = list(answers)

    class Sender(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            data, length = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sender)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/stream.ts"
    finally:
        server.shutdown()


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    """A transport stream of twenty frames."""
    return write_video(tmp_path_factory.mktemp("stream") / "clip.ts").read_bytes()


def test_a_stream_that_breaks_off_says_so_and_keeps_what_came(model, stream, tmp_path, capsys):
    half = stream[: len(stream) // 2]
    with sent((half, len(stream))) as url:
        assert live(url, *BOX, *model, "--out", tmp_path / "live") == 1
    said = info(tmp_path / "live")
    count = len(masks_of(tmp_path / "live"))
    assert 5 < count < 20 and open_source(tmp_path / "live" / "overlay.mp4").num_frames == count
    assert said["status"] == "broken off" and f"broke off after {count} frames" in said["notes"][0]
    assert said["notes"][0] in capsys.readouterr().err


def test_a_stream_that_changes_its_size_ends_in_one_sentence(model, stream, tmp_path, capsys):
    larger = write_video(tmp_path / "larger.ts", height=64, width=96).read_bytes()
    with sent((stream + larger, len(stream + larger))) as url:
        assert live(url, *BOX, *model, "--reconnect", "--out", tmp_path / "live") == 1
    assert len(masks_of(tmp_path / "live")) == 20 and info(tmp_path / "live")["status"] == "broken off"
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "changes its size from 64x48 to 96x64" in said


def test_a_stream_is_connected_to_again(model, stream, tmp_path, monkeypatch):
    monkeypatch.setattr(video_live, "PAUSES", (0.05,))
    with sent((stream[: len(stream) // 2], len(stream)), (stream, len(stream))) as url:
        assert live(url, *BOX, *model, "--reconnect", "--out", tmp_path / "live") == 0
    said = info(tmp_path / "live")
    assert said["status"] == "complete" and said["frames_tracked"] > 25 and said["frames_lost"] >= 1
    assert "it was back after" in said["notes"][0] and "frames of the stream were lost" in said["notes"][1]
    times = [frame.time for frame in open_source(tmp_path / "live" / "overlay.mp4")]
    assert len(times) == said["frames_tracked"] and times == sorted(times)


def test_a_cover_picture_is_no_stream(model, stream, tmp_path):
    with av.open(str(tmp_path / "cover.mp4"), "w") as out:
        cover = out.add_stream("png", rate=1)
        cover.height, cover.width, cover.pix_fmt = 32, 32, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        video = out.add_stream("libx264", rate=25)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        out.mux([*cover.encode(av.VideoFrame(32, 32, "rgb24")), *cover.encode(None)])
        for number in range(3):
            out.mux(video.encode(av.VideoFrame.from_ndarray(numbered_image(number), format="rgb24")))
        out.mux(video.encode(None))
    for source in (tmp_path / "cover.mp4", f"file://{tmp_path / 'cover.mp4'}"):
        assert live(source, *BOX, *model, "--out", tmp_path / "live", "--overwrite") == 0
        assert info(tmp_path / "live")["frames_tracked"] == 3


def test_several_objects_from_a_file_of_prompts(model, clip, tmp_path):
    entries = [{"object": 1, "label": "left", "box": [4, 4, 30, 40]}, {"object": 3, "points": [[50, 50]]}]
    (tmp_path / "prompts.json").write_text(json.dumps(entries))
    flags = ("--prompts", tmp_path / "prompts.json", "--max-frames", 3)
    assert live(clip, *flags, *model, "--out", tmp_path / "live") == 0
    assert {obj_id for _, obj_id in masks_of(tmp_path / "live")} == {1, 3}
    entries[1]["frame"] = 4
    (tmp_path / "prompts.json").write_text(json.dumps(entries))
    assert live(clip, *flags, *model, "--out", tmp_path / "live2") == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "nothing to track"),
        (("--box", "4,4,300,40"), "outside the frame"),
        ((*BOX, "--max-frames", "0"), "--max-frames"),
        ((*BOX, "--prompts", "x.json"), "--prompts does not go with"),
    ],
)
def test_what_is_wrong_is_said_and_an_older_run_is_kept(model, clip, tmp_path, capsys, flags, message):
    out = tmp_path / "live"
    assert live(clip, *BOX, "--max-frames", 2, *model, "--out", out) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert live(clip, *flags, *model, "--out", out, "--overwrite") == 2
    assert message in capsys.readouterr().err
    assert live(clip, *BOX, *model, "--out", out) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_source_that_is_not_there(model, tmp_path, capsys):
    for source in ("nowhere.mp4", "77", "rtsp://127.0.0.1:9/none"):
        assert live(source, *BOX, *model, "--out", tmp_path / "live") == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "live").exists()
