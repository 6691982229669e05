"""Names and numbers as people have them: colons, plates with gaps, other scripts, a machine that knows ASCII only."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from sam2long.cli import main
from sam2long.errors import ConfigError, PromptError
from sam2long.export import MaskWriter
from sam2long.export.convert import export_run
from sam2long.export.fonts import font_file, note_on_fonts, shown_names
from sam2long.export.overlay import paint
from sam2long.imports import ObjectPrompt
from sam2long.runs import opening
from sam2long.video import VideoWriter, open_source
from sam2long.video.names import gap
from tests.export_run import make_run
from tests.fake_tracker import FakePredictor
from tests.video_files import numbered_image, read_number, write_video

PLATES = [n for n in range(1001, 1013) if n != 1005]


@pytest.fixture
def built(monkeypatch):
    monkeypatch.setattr(opening, "build_predictor", lambda settings: FakePredictor())


@pytest.fixture
def plates(tmp_path):
    folder = tmp_path / "seq"
    folder.mkdir()
    for number in PLATES:
        Image.fromarray(numbered_image(number - 1000)).save(folder / f"shot.{number}.png")
    return folder


@pytest.mark.parametrize("name", ["a:b.mp4", "12:30:05.mp4", "file:x.mp4", "pipe:", "http://x/y.mp4"])
def test_a_file_that_is_there_is_a_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(tmp_path / "v.mp4", 4).rename(path)
    assert [read_number(frame.image) for frame in open_source(name)] == [0, 1, 2, 3]


def test_a_colon_in_what_is_written_and_where_its_sound_is_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "in.mp4", 4, audio="aac").rename(tmp_path / "i:n.mp4")
    with VideoWriter("o:ut.mp4", 25, 64, 48, audio_from="i:n.mp4") as out:
        for number in range(3):
            out.write(numbered_image(number))
    assert out.audio == "copied" and open_source("o:ut.mp4").num_frames == 3


def test_a_source_is_read_on_when_the_host_changes_its_folder(tmp_path, monkeypatch):
    write_video(tmp_path / "v.mp4", 4)
    monkeypatch.chdir(tmp_path)
    source = open_source("v.mp4")
    monkeypatch.chdir("/")
    assert read_number(source.frame(3)) == 3


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["shot.1004", "shot.1006", "shot.1007"], "between shot.1004 and shot.1006; frames are counted by position"),
        (["1", "2", "4", "5", "9"], "between 2 and 4, and at 1 more places"),
        (["0", "5", "10", "15"], None),
        (["a", "b", "c"], None),
        (["a2", "b1", "c3", "d9"], None),
        (["1", "9"], None),
    ],
)
def test_gaps_between_numbered_images(names, said):
    assert (gap(names) is None) if said is None else said in gap(names)


def test_a_plate_that_is_missing_is_said_and_frames_go_by_position(built, plates, tmp_path, capsys):
    track = ["track", str(plates), "--box", "4,6,12,14", "--out", str(tmp_path / "out"), "--quiet"]
    assert main([*track, "--frame", "1003"]) == 2
    assert "shot.1003 is frame 2" in capsys.readouterr().err
    assert main([*track, "--frame", "2"]) == 0
    assert "missing between shot.1004 and shot.1006" in capsys.readouterr().err
    notes = json.loads((tmp_path / "out" / "run.json").read_text())["notes"]
    assert len(notes) == 1 and "shot.1006" in notes[0]


def plate_run(folder, plates, frames):
    folder.mkdir()
    header = {"video": str(plates), "height": 48, "width": 64, "fps": None, "objects": {"1": ""}}
    with MaskWriter(folder / "masks.jsonl", header) as out:
        for frame in frames:
            out.write(frame, frame, None, {1: numbered_image(3)[:, :, 0] > 100})
    return folder


@pytest.mark.parametrize(
    ("to", "example"),
    [
        ("mot", "counted from 1 by position, and shot.1003 is its frame 3"),
        ("mots", "shot.1003 is its frame 3"),
        ("cvat", "counted from 0 by position, and shot.1003 is its frame 2"),
        ("matte", "shot.1003 is its frame 2"),
    ],
)
def test_formats_that_count_frames_themselves_say_what_became_of_the_plates_numbers(plates, tmp_path, to, example):
    lost = export_run(plate_run(tmp_path / "run", plates, [2, 3, 4]), to).lost
    assert any("numbers of the images" in sentence and example in sentence for sentence in lost)


def test_formats_with_names_keep_the_plates_names(plates, tmp_path):
    report = export_run(plate_run(tmp_path / "run", plates, [2, 3, 4]), "coco")
    images = json.loads(report.files[0].read_text())["images"]
    assert [image["file_name"] for image in images] == ["shot.1003.png", "shot.1004.png", "shot.1006.png"]
    assert report.lost == []


@pytest.mark.parametrize("first", [0, 1])
def test_images_numbered_from_0_or_1_lose_nothing(tmp_path, first):
    folder = tmp_path / "seq"
    folder.mkdir()
    for number in range(4):
        Image.fromarray(numbered_image(number)).save(folder / f"{number + first:05d}.png")
    assert not any("numbers" in said for said in export_run(plate_run(tmp_path / "run", folder, [0, 1]), "mot").lost)


def test_coco_names_the_frames_of_a_video_as_cvat_does(tmp_path):
    run = make_run(tmp_path / "run")
    report = export_run(run, "coco", images=True)
    names = [image["file_name"] for image in json.loads((report.folder / "annotations.json").read_text())["images"]]
    assert names == [f"frame_{number:06d}.jpg" for number in range(2, 8)]
    assert sorted(path.name for path in (report.folder / "images").iterdir()) == names


def test_frames_of_a_video_are_called_as_asked(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    assert main(["export", str(run), "--to", "yolo", "--frame-names", "frame_%06d", "--quiet"]) == 0
    assert (run / "export" / "yolo" / "labels" / "train" / "frame_000002.txt").exists()
    for wrong in ("frame", "%d_%d", "../%d", "%s", "%0999d", "a/%d", ""):
        with pytest.raises(ConfigError, match="expected a name with one number"):
            export_run(run, "coco", frame_names=wrong, overwrite=True)


def overlay_of(label):
    mask = np.zeros((120, 160), bool)
    mask[60:100, 20:90] = True
    return paint(np.full((120, 160, 3), 90, np.uint8), {1: mask}, {1: label})


def test_names_in_other_scripts_are_written_with_letters():
    assert shown_names({1: "собака", 2: "café", 3: ""}) == {1: "собака", 2: "café", 3: ""}
    assert font_file("собака") and note_on_fonts({1: "собака", 2: "café"}) is None
    pictures = [overlay_of(label) for label in ("со", "ба", "aé", "aè")]  # boxes would be all alike
    assert not any((a == b).all() for at, a in enumerate(pictures) for b in pictures[:at])


def test_a_name_that_no_font_can_write_becomes_the_objects_number_and_is_said(monkeypatch):
    from matplotlib.font_manager import fontManager

    plain = [entry for entry in fontManager.ttflist if "DejaVu" in entry.name or "Last Resort" in entry.name]
    monkeypatch.setattr(fontManager, "ttflist", plain)
    font_file.cache_clear()
    try:
        assert shown_names({4: "狗", 5: "dog"}) == {4: "object 4", 5: "dog"}
        assert "letters of 狗" in note_on_fonts({4: "狗", 5: "dog"})
    finally:
        font_file.cache_clear()


def test_a_label_that_is_no_text_is_refused():
    with pytest.raises(PromptError, match="not text in UTF-8"):
        ObjectPrompt(frame=0, obj_id=1, label="\udcff")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no ASCII locale")
def test_an_ascii_locale_reads_and_writes_every_name(tmp_path):
    run = make_run(tmp_path / "läufe")
    lines = (run / "masks.jsonl").read_text().replace("pedestrian", "狗")
    (run / "masks.jsonl").write_text(lines)
    ascii_only = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    for to in ("labelme", "yolo", "mot"):
        command = [sys.executable, "-m", "sam2long.cli", "export", str(run), "--to", to]
        done = subprocess.run(command, capture_output=True, env=os.environ | ascii_only)
        assert (done.returncode, done.stderr) == (0, b"")
        assert "läufe" in done.stdout.decode("utf-8")
    assert (run / "export" / "mot" / "clip" / "gt" / "labels.txt").read_text(encoding="utf-8").startswith("狗")
