"""`export_run` around the formats: options, what is in the way, all or nothing; and the PNG formats."""

from __future__ import annotations

import json
import signal
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image, ImageOps

from sam2long.cli import main
from sam2long.errors import ConfigError, DataError, VideoError
from sam2long.export import MaskWriter, stills
from sam2long.export.convert import FORMATS, export_run
from tests.export_run import FRAMES, HEIGHT, LABELS, START, WIDTH, assert_same, make_run, masters
from tests.video_files import read_number


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


@pytest.fixture
def crowded(tmp_path):
    """Objects 1 and 7 share pixels."""
    return make_run(tmp_path / "crowded", overlapping=True)


def snapshot(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pixels(path):
    with Image.open(path) as image:
        return np.array(image)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_writes_what_it_reports_and_says_so_in_a_manifest(run, name):
    report = export_run(run, name)
    assert report.folder == run / "export" / name and report.files
    there = {path for path in report.folder.rglob("*") if path.is_file()}
    assert there == {*report.files, report.folder / "export.json"}
    manifest = json.loads((report.folder / "export.json").read_text())
    assert manifest["format"] == name and manifest["lost"] == report.lost
    assert len(list(run.parent.rglob("*partial*"))) == 0


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_that_breaks_off_leaves_nothing_and_keeps_the_earlier_one(run, name):
    class Cancelled(Exception):
        pass

    def cancel(done, total):
        raise Cancelled

    before = snapshot(run.parent)
    with pytest.raises(Cancelled):
        export_run(run, name, progress=cancel)
    assert snapshot(run.parent) == before and not (run / "export").exists()
    export_run(run, name)
    before = snapshot(run.parent)
    with pytest.raises(Cancelled):
        export_run(run, name, overwrite=True, progress=cancel)
    assert snapshot(run.parent) == before


def test_an_earlier_export_is_replaced_only_when_told_and_foreign_files_never(run):
    out = export_run(run, "object-png").folder
    with pytest.raises(DataError, match="overwrite it"):
        export_run(run, "object-png")
    assert len(export_run(run, "object-png", objects=[2], overwrite=True).files) == FRAMES
    assert not (out / "1").exists()
    (out / "mine.txt").write_text("hours of work")
    before = snapshot(out)
    with pytest.raises(DataError, match=r"mine\.txt"):
        export_run(run, "object-png", overwrite=True)
    with pytest.raises(DataError, match="no export wrote"):
        export_run(run, "coco", run.parent, overwrite=True)
    assert snapshot(out) == before


@pytest.mark.parametrize(
    ("to", "options", "message"),
    [
        ("cocos", {}, "did you mean coco"),
        ("coco", {"shape": "polygon"}, "shape"),
        ("coco", {"tolerance": 2.0}, "polygons only"),
        ("palette-png", {"images": True}, "no place for images"),
        ("coco", {"objects": [3]}, "no object 3"),
        ("coco", {"tolerance": float("nan")}, "tolerance"),
    ],
)
def test_what_cannot_be_honoured_is_refused(run, to, options, message):
    with pytest.raises(ConfigError, match=message):
        export_run(run, to, **options)
    assert not (run / "export").exists()


def test_a_missing_run_or_video_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(DataError, match=r"masks\.jsonl"):
        export_run(tmp_path / "nothing", "coco")
    run = make_run(tmp_path / "run", video=False)
    with pytest.raises(VideoError, match="--video"):
        export_run(run, "cutout-png")
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0 ftyp")
    with pytest.raises(DataError, match="is no run"):
        export_run(tmp_path / "clip.mp4", "coco")
    with pytest.raises(DataError, match=r"clip\.mp4 is a file"):
        export_run(run, "coco", tmp_path / "clip.mp4" / "coco")
    other = make_run(tmp_path / "deeper" / "other").parent / "clip.mp4"
    assert export_run(run, "cutout-png", video=other).files
    assert export_run(run, "coco").files


def test_a_run_that_names_no_video_is_exported_but_for_pixels(tmp_path):
    run = make_run(tmp_path / "run", video=False)
    lines = (run / "masks.jsonl").read_text().splitlines(keepends=True)
    header = {
        key: value for key, value in json.loads(lines[0]).items() if key in ("format", "version", "height", "width")
    }
    (run / "masks.jsonl").write_text("".join([json.dumps(header) + "\n", *lines[1:]]))
    for name, entry in FORMATS.items():
        if not entry.needs_video:
            assert export_run(run, name).files
    with pytest.raises(VideoError, match="unknown.*--video"):
        export_run(run, "matte")


def test_palette_pngs_have_an_id_per_pixel(run):
    report = export_run(run, "palette-png")
    assert report.lost == [] and [path.name for path in report.files] == [f"{START + f:05d}.png" for f in range(FRAMES)]
    labels = {int(path.stem): pixels(path) for path in report.files}
    assert_same({(f, i): image == i for f, image in labels.items() for i in np.unique(image) if i}, run)
    with Image.open(report.files[0]) as image:
        assert image.mode == "P" and image.getpalette()[3:6] == [128, 0, 0]


def test_a_label_volume_has_a_page_for_every_frame(crowded):
    masks = masters(crowded)
    report = export_run(crowded, "tiff")
    with Image.open(report.folder / "labels.tif") as image:
        assert image.n_frames == FRAMES and image.mode == "L"
        for page in range(FRAMES):
            image.seek(page)
            labels = np.zeros((HEIGHT, WIDTH), np.uint8)
            for obj_id in LABELS:
                labels[masks.get((START + page, obj_id), np.zeros((HEIGHT, WIDTH), bool))] = obj_id
            np.testing.assert_array_equal(np.array(image), labels)
    lost = " ".join(report.lost)
    assert "two objects claim" in lost and f"page 0 is frame {START} of the video" in lost and "names" in lost


def test_a_label_volume_has_pages_for_frames_that_were_not_tracked_and_ids_of_16_bits(tmp_path):
    header = {"video": "", "height": 4, "width": 5, "num_frames": 7, "objects": {"300": ""}}
    with MaskWriter(tmp_path / "masks.jsonl", header) as out:
        for frame in (2, 4):
            out.write(frame, frame, None, {300: np.eye(4, 5, dtype=bool)})
    with Image.open(export_run(tmp_path, "tiff").files[0]) as image:
        found = []
        for page in range(image.n_frames):
            image.seek(page)
            found.append(int(np.array(image).max()))
    assert found == [0, 0, 300, 0, 300, 0, 0]


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_images_turned_by_exif_lie_with_their_shapes(tmp_path, ending):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    (tmp_path / "shot").mkdir()
    for number in range(FRAMES + START):
        image = Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90 + number, np.uint8))
        image.save(tmp_path / "shot" / f"{number}.{ending}", exif=exif)
    run = make_run(tmp_path / "run", video=False)
    for name, entry in FORMATS.items():
        report = export_run(run, name, video=tmp_path / "shot", images=entry.takes_images)
        copies = [path for path in report.files if path.suffix == f".{ending}"] if entry.takes_images else []
        copies = [path for path in copies if not path.parent.name.isdigit()]  # a trimap is a PNG as well
        assert len(copies) == (FRAMES if entry.takes_images else 0)
        for path in copies:
            with Image.open(path) as copy:
                assert copy.size == ImageOps.exif_transpose(copy).size == (WIDTH, HEIGHT)
        if not entry.takes_images:
            assert any("turned by EXIF" in sentence for sentence in report.lost)
    (said,) = export_run(run, "coco", video=tmp_path / "shot", overwrite=True).lost
    assert f"{FRAMES + START} of them are turned by EXIF" in said and "--images copies them" in said


def test_pixels_of_two_objects_are_reported_as_lost_by_the_palette_and_kept_by_folders(crowded):
    report = export_run(crowded, "palette-png")
    assert len(report.lost) == 1 and "4 masks; the first is object 7 on frame 2" in report.lost[0]
    report = export_run(crowded, "object-png")
    assert report.lost == []
    found = {(int(p.stem), int(p.parent.name)): pixels(p) == 255 for p in report.files}
    assert len(found) == 2 * FRAMES + 4, "empty masks have a file, too"
    assert_same({key: mask for key, mask in found.items() if mask.any()}, crowded)


def test_cut_outs_show_the_object_and_hide_everything_else(run):
    report = export_run(run, "cutout-png", objects=[1])
    found = {}
    for path in report.files:
        image = pixels(path)
        found[int(path.stem), 1] = image[:, :, 3] == 255
        assert set(np.unique(image[:, :, 3])) <= {0, 255}
        assert not image[image[:, :, 3] == 0].any(), "the background must not lie hidden in the file"
    expected = {key: mask for key, mask in masters(run).items() if key[1] == 1}
    assert set(found) == set(expected)
    assert all(np.array_equal(found[key], mask) for key, mask in expected.items())
    plain = export_run(run, "coco", images=True).folder / "images"
    for path in report.files:
        frame = pixels(plain / f"frame_{int(path.stem):06d}.jpg")
        assert read_number(frame) == int(path.stem)
        inside = pixels(path)[:, :, 3] == 255
        assert np.abs(pixels(path)[inside][:, :3].astype(int) - frame[inside]).mean() < 6  # JPEG against the video


def test_images_of_a_folder_keep_their_names(tmp_path):
    run = make_run(tmp_path / "run")
    folder = tmp_path / "shots"
    folder.mkdir()
    for number in range(10):
        Image.fromarray(np.full((48, 64, 3), 20 * number, np.uint8)).save(folder / f"shot_{number}.png")
    report = export_run(run, "coco", video=folder, images=True)
    assert sorted(p.name for p in report.files if p.suffix == ".png") == [f"shot_{n}.png" for n in range(2, 8)]
    names = [image["file_name"] for image in json.loads((report.folder / "annotations.json").read_text())["images"]]
    assert names == [f"shot_{n}.png" for n in range(2, 8)]
    assert [p.name for p in export_run(run, "palette-png", video=folder).files] == names


@pytest.fixture
def soft(run):
    pytest.importorskip("cv2", reason='opencv is not installed: pip install ".[export]"')
    return run


def distance(mask):
    """Pixels from each pixel's middle to the nearest one on the other side, the slow way."""
    here, there = np.argwhere(mask), np.argwhere(~mask)
    found = np.zeros(mask.shape)
    for side, other in ((here, there), (there, here)):
        found[tuple(side.T)] = np.sqrt(((side[:, None] - other[None]) ** 2).sum(2)).min(1)
    return found


def test_a_trimap_is_unknown_along_the_edge_and_sure_elsewhere(soft):
    report = export_run(soft, "trimap", band=3, images=True)
    found = {(int(p.stem), int(p.parent.name)): pixels(p) for p in report.files if p.suffix == ".png"}
    assert len(found) == 2 * FRAMES + 4 and (report.folder / "images" / "00002.jpg").exists()
    for key, mask in masters(soft).items():
        near = distance(mask) < 3.5  # the edge runs between the pixels
        assert np.array_equal(found[key] == 128, near)
        assert np.array_equal(found[key] == 255, mask & ~near) and np.array_equal(found[key] == 0, ~mask & ~near)
    gone = [image for key, image in found.items() if key not in masters(soft)]
    assert gone and not any(image.any() for image in gone), "nothing is unknown where nothing is"
    assert any("thinner than the band" in line for line in report.lost)  # the object of one pixel


def test_a_mask_that_the_border_cuts_has_no_edge_there():
    pytest.importorskip("cv2", reason='opencv is not installed: pip install ".[export]"')
    from sam2long.export.edges import alpha, trimap

    mask = np.zeros((20, 30), bool)
    mask[:, :15] = True
    assert (trimap(mask, 4)[:, :11] == 255).all() and (trimap(mask, 4)[:, 11:19] == 128).all()
    assert (alpha(mask, 4)[:, :11] == 255).all() and (alpha(mask, 4)[:, 19:] == 0).all()
    assert (np.diff(alpha(mask, 4)[0, 10:20].astype(int)) < 0).all()
    everything = np.ones((4, 4), bool)
    assert (trimap(everything, 9) == 255).all() and (alpha(everything, 9) == 255).all()
    assert not trimap(~everything, 9).any() and not alpha(~everything, 9).any()


@pytest.mark.parametrize("feather", [1, 3.5])
def test_feathered_cut_outs_fade_and_are_half_opaque_where_the_mask_ends(soft, feather):
    report = export_run(soft, "cutout-png", feather=feather)
    faded = 0
    for path in report.files:
        opacity = pixels(path)[:, :, 3]
        mask = masters(soft).get((int(path.stem), int(path.parent.name)), np.zeros_like(opacity, bool))
        assert np.array_equal(opacity >= 128, mask)
        if mask.any():
            far = distance(mask) > feather + 0.5
            assert (opacity[mask & far] == 255).all() and not opacity[~mask & far].any()
        faded += int(((opacity > 0) & (opacity < 255)).sum())
        assert not pixels(path)[opacity == 0].any()
    assert faded > 1000


# ---- sam2long export -------------------------------------------------------------------------------------------------


def export(*arguments):
    return main(["export", *map(str, arguments)])


def test_the_command_says_what_was_written_and_what_was_lost(crowded, capsys):
    assert export(crowded, "--to", "palette-png", "--object", 1, "--object", 7, "--out", crowded / "palette") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"palette-png: 6 files in {crowded / 'palette'}"
    assert said[1].startswith("  not in this format: Pixels that two objects claim") and len(said) == 2
    assert export(crowded, "--to", "coco", "--quiet") == 0 and capsys.readouterr().out == ""


def test_the_command_lists_the_formats(capsys):
    assert export("--list") == 0
    said = capsys.readouterr().out
    assert all(name in said and entry.description in said for name, entry in FORMATS.items())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "--to"),
        (("--to", "coc"), "did you mean coco"),
        (("--to", "yolo", "--shape", "mask"), "shape"),
        (("--to", "coco", "--object", "5"), "no object 5"),
        (("--to", "matte", "--video", "nowhere.mp4"), "--video"),
        (("--to", "coco", "--feather", "2"), "cutout-png, alpha-mov, alpha-webm, matte, green-screen"),
        (("--to", "matte", "--feather", "-1"), "0 to 500"),
        (("--to", "matte", "--feather", "nan"), "0 to 500"),
        (("--to", "matte", "--band", "5"), "a band goes with trimap"),
        (("--to", "trimap", "--band", "0"), "above 0"),
    ],
)
def test_the_command_refuses_in_one_sentence(run, capsys, flags, message):
    assert export(run, *flags) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not (run / "export").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_export_leaves_nothing(run, monkeypatch, number):
    save, calls = stills.save_mask, []

    def stopped(mask, path):
        calls.append(path)
        if len(calls) == 3:
            signal.raise_signal(number)
        save(mask, path)

    monkeypatch.setattr(stills, "save_mask", stopped)
    before = snapshot(run.parent)
    assert export(run, "--to", "object-png", "--quiet") == 130
    assert snapshot(run.parent) == before and not (run / "export").exists() and len(calls) == 3


def test_names_with_line_breaks_stay_on_one_line(tmp_path):
    run = make_run(tmp_path / "run")
    master = run / "masks.jsonl"
    master.write_text(master.read_text().replace('"pedestrian"', '"a <b>\\n \\"c\\" & d"', 1))
    assert (export_run(run, "mot").folder / "clip" / "gt" / "labels.txt").read_text().splitlines()[0] == 'a <b> "c" & d'
    names = (export_run(run, "yolo").folder / "data.yaml").read_text()
    assert yaml.safe_load(names)["names"][0] == 'a <b> "c" & d'
    tree = ElementTree.parse(export_run(run, "cvat").folder / "annotations.xml")
    assert tree.find("track").get("label") == tree.find("meta/task/labels/label/name").text == 'a <b> "c" & d'
