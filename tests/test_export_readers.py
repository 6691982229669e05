"""Exports read back by other people's programs, mask by mask against masks.jsonl.

The heavier readers come with `pip install ".[readers]"`; a test whose reader is missing is skipped and says so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import av
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from sam2long.export.convert import export_run
from sam2long.export.masks import encode_mask
from tests.export_run import FRAMES, HEIGHT, LABELS, START, WIDTH, assert_same, make_run, masters

SIZE = HEIGHT, WIDTH


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


@pytest.fixture
def crowded(tmp_path):
    return make_run(tmp_path / "crowded", overlapping=True)


def union_by_key(pairs):
    """(key, mask) pairs -> key -> everything that was said about it together."""
    found = {}
    for key, mask in pairs:
        found[key] = found.get(key, False) | mask
    return found


def boxed(mask):
    """The mask filled up to its box."""
    filled = np.zeros_like(mask)
    rows, columns = np.nonzero(mask)
    filled[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    return filled


# ---- run lengths: pycocotools and trackeval --------------------------------------------------------------------------


def test_coco_is_read_by_pycocotools(crowded):
    report = export_run(crowded, "coco")
    assert report.lost == []
    coco = COCO(str(report.folder / "annotations.json"))
    assert len(coco.getImgIds()) == FRAMES, "frames where nothing is seen are images, too"
    numbers = {image["id"]: image["frame_index"] for image in coco.loadImgs(coco.getImgIds())}
    annotations = coco.loadAnns(coco.getAnnIds())
    found = {(numbers[a["image_id"]], a["track_id"]): coco.annToMask(a) == 1 for a in annotations}
    assert_same(found, crowded)
    names = {a["track_id"]: coco.loadCats(a["category_id"])[0]["name"] for a in annotations}
    assert names == {1: "pedestrian", 2: "object", 7: "car"}
    for annotation in annotations:
        x, y, width, height = map(int, annotation["bbox"])
        mask = coco.annToMask(annotation) == 1
        assert annotation["area"] == mask.sum()
        assert boxed(mask)[y : y + height, x : x + width].all() and boxed(mask).sum() == width * height


def test_youtube_vis_is_read_by_pycocotools(crowded):
    report = export_run(crowded, "youtube-vis")
    assert report.lost == []
    content = json.loads((report.folder / "instances.json").read_text())
    video = content["videos"][0]
    assert (video["length"], video["height"], video["width"]) == (FRAMES, HEIGHT, WIDTH)
    found = {}
    for track in content["annotations"]:
        assert len(track["segmentations"]) == len(track["bboxes"]) == len(track["areas"]) == FRAMES
        for index, rle in enumerate(track["segmentations"]):
            if rle:
                packed = coco_mask.frPyObjects(rle, HEIGHT, WIDTH)
                assert track["areas"][index] == coco_mask.area(packed)
                found[START + index, track["track_id"]] = coco_mask.decode(packed) == 1
    assert_same(found, crowded)


def test_youtube_vis_is_read_by_trackeval(crowded, tmp_path):
    """The exported tracks as truth, and the masters as a tracker's results: trackeval finds them equal."""
    trackeval = pytest.importorskip("trackeval", reason='trackeval is not installed: pip install ".[readers]"')
    export_run(crowded, "youtube-vis", tmp_path / "gt" / "youtube_vis_train")
    (tmp_path / "gt" / "youtube_vis_train" / "export.json").unlink()
    truth = json.loads((tmp_path / "gt" / "youtube_vis_train" / "instances.json").read_text())
    shown = masters(crowded)
    results = [
        {**track, "score": 1.0, "segmentations": [
            encode_mask(shown[START + index, track["track_id"]]) if rle else None
            for index, rle in enumerate(track["segmentations"])]}
        for track in truth["annotations"]
    ]  # fmt: skip
    data = tmp_path / "trackers" / "youtube_vis_train" / "ours" / "data"
    data.mkdir(parents=True)
    (data / "results.json").write_text(json.dumps(results))
    dataset = trackeval.datasets.YouTubeVIS(
        {"GT_FOLDER": f"{tmp_path}/gt/", "TRACKERS_FOLDER": f"{tmp_path}/trackers/", "SPLIT_TO_EVAL": "train",
         "PRINT_CONFIG": False}
    )  # fmt: skip
    raw = dataset.get_raw_seq_data("ours", "clip")
    assert raw["num_timesteps"] == FRAMES
    assert sum(len(ids) for ids in raw["gt_ids"]) == len(masters(crowded))
    for name in ("pedestrian", "car", "object"):
        data = dataset.get_preprocessed_seq_data(raw, name)
        scores = trackeval.metrics.HOTA().eval_sequence(data)
        assert np.all(scores["HOTA"] == 1), name


def test_sa_v_is_read_by_pycocotools(crowded):
    report = export_run(crowded, "sa-v")
    assert [sentence.split(":")[0] for sentence in report.lost] == [
        "The frames' numbers in the video", "The objects' names",
    ]  # fmt: skip
    content = json.loads((report.folder / "clip_manual.json").read_text())
    assert content["masklet_id"] == list(LABELS) and content["video_frame_count"] == FRAMES
    found = {
        (START + index, obj_id): coco_mask.decode(rle) == 1
        for index, masks in enumerate(content["masklet"])
        for obj_id, rle in zip(content["masklet_id"], masks, strict=True)
    }
    assert len(found) == FRAMES * len(LABELS)
    assert_same({key: mask for key, mask in found.items() if mask.any()}, crowded)
    assert content["masklet_first_appeared_frame"] == [0, 0, 2]
    assert content["masklet_visibility_changes"] == [0, 2, 1]


# ---- text: motmetrics, trackeval, ultralytics ------------------------------------------------------------------------


def test_mot_is_read_by_motmetrics(run):
    motmetrics = pytest.importorskip("motmetrics", reason='motmetrics is not installed: pip install ".[readers]"')
    report = export_run(run, "mot")
    assert len(report.lost) == 1 and report.lost[0].startswith("The masks' shapes: MOT has boxes (13 masks")
    table = motmetrics.io.loadtxt(report.folder / "clip" / "gt" / "gt.txt", fmt="mot16", min_confidence=1)
    found = {}
    for (frame, obj_id), row in table.iterrows():
        mask = np.zeros(SIZE, bool)
        left, top = int(row["X"]), int(row["Y"])
        mask[top : top + int(row["Height"]), left : left + int(row["Width"])] = True
        found[frame - 1, obj_id] = mask
    expected = masters(run)
    assert set(found) == set(expected)
    assert all(np.array_equal(found[key], boxed(mask)) for key, mask in expected.items())


def test_mots_is_read_by_trackeval(run, tmp_path):
    trackeval = pytest.importorskip("trackeval", reason='trackeval is not installed: pip install ".[readers]"')
    report = export_run(run, "mots", tmp_path / "gt")
    assert report.lost == []
    results = tmp_path / "trackers" / "ours" / "data"
    results.mkdir(parents=True)
    (results / "clip.txt").write_text((report.folder / "clip" / "gt" / "gt.txt").read_text())
    dataset = trackeval.datasets.MOTSChallenge(
        {"GT_FOLDER": str(tmp_path / "gt"), "TRACKERS_FOLDER": str(tmp_path / "trackers"), "SKIP_SPLIT_FOL": True,
         "SEQ_INFO": {"clip": START + FRAMES}, "PRINT_CONFIG": False}
    )  # fmt: skip
    raw = dataset.get_raw_seq_data("ours", "clip")
    found = {
        (frame, int(track) % 1000): coco_mask.decode(rle) == 1
        for frame, (tracks, rles) in enumerate(zip(raw["gt_ids"], raw["gt_dets"], strict=True))
        for track, rle in zip(tracks, rles, strict=True)
    }
    assert_same(found, run)
    classes = {int(t) % 1000: int(c) for frame in zip(raw["gt_ids"], raw["gt_classes"], strict=True)
               for t, c in zip(*frame, strict=True)}  # fmt: skip
    assert classes == {1: 2, 2: 11, 7: 1}, "pedestrian and car as the challenge numbers them"


def test_mots_gives_shared_pixels_to_one_object_and_says_so(crowded):
    lost = export_run(crowded, "mots").lost
    assert len(lost) == 1 and "went to the lower id" in lost[0] and "4 masks" in lost[0]


def test_yolo_is_read_by_ultralytics(run):
    utils = pytest.importorskip(
        "ultralytics.data.utils", reason='ultralytics is not installed: pip install ".[readers]"'
    )
    report = export_run(run, "yolo", images=True)
    found = {}
    dataset = utils.check_det_dataset(str(report.folder / "data.yaml"), autodownload=False)
    assert dataset["names"] == {0: "pedestrian", 1: "object", 2: "car"}
    for image in sorted((report.folder / "images" / "train").iterdir()):
        labels = utils.img2label_paths([str(image)])[0]
        _, rows, shape, segments, _, missing, _, _, corrupt, message = utils.verify_image_label(
            (str(image), labels, "", False, 3, 0, 0, False)
        )
        assert shape == SIZE and missing == corrupt == 0, message
        for row, segment in zip(rows, segments, strict=True):
            mask = utils.polygon2mask(SIZE, [(segment * (WIDTH, HEIGHT)).ravel()]) == 1
            found[int(image.stem), {0: 1, 1: 2, 2: 7}[int(row[0])]] = mask
    assert len(report.lost) == 1 and "one pixel wide joins them (3 masks" in report.lost[0]
    whole = {key for key in found if key[1] != 2 or key[0] > START + 2}
    expected = masters(run)
    assert set(found) == set(expected)
    assert all(np.array_equal(found[key], expected[key]) for key in whole), "holes and edges to the pixel"
    for key in set(found) - whole:
        assert not (expected[key] & ~found[key]).any() and 0 < (found[key] & ~expected[key]).sum() < 30


# ---- editors: labelme, datumaro for CVAT -----------------------------------------------------------------------------

READ_LABELME = """
import json, sys
import numpy as np
from labelme._label_file import read_label_file
from labelme.utils import shape_to_mask
for path in sys.argv[2:]:
    data = read_label_file(path)
    found = []
    for shape in data.shapes:
        size = tuple(json.loads(sys.argv[1]))
        if shape["shape_type"] == "mask":
            mask = np.zeros(size, bool)
            (x1, y1), (x2, y2) = np.asarray(shape["points"]).astype(int)
            mask[y1 : y2 + 1, x1 : x2 + 1] = shape["mask"]
        else:
            mask = shape_to_mask(size, shape["points"], shape["shape_type"])
        found.append([shape["label"], shape["group_id"], np.flatnonzero(mask).tolist()])
    print(json.dumps([path, found]))
"""


def read_with_labelme(files):
    """LabelMe is GPL: it runs as a program of its own."""
    found = subprocess.run(
        [sys.executable, "-c", READ_LABELME, json.dumps(SIZE), *map(str, files)],
        capture_output=True, text=True, env={**os.environ, "QT_QPA_PLATFORM": "offscreen"}, check=False,
    )  # fmt: skip
    if "No module named" in found.stderr:
        pytest.skip(f'labelme 6 is not installed ({found.stderr.splitlines()[-1]}): pip install ".[readers]"')
    assert found.returncode == 0, found.stderr
    for line in found.stdout.splitlines():
        path, shapes = json.loads(line)
        for label, group_id, places in shapes:
            mask = np.zeros(HEIGHT * WIDTH, bool)
            mask[places] = True
            assert label == (LABELS[group_id] or "object")
            yield (int(os.path.basename(path)[:-5]), group_id), mask.reshape(SIZE)


@pytest.mark.parametrize("shape", ["polygon", "mask", "rectangle"])
def test_labelme_is_read_by_labelme(crowded, shape):
    report = export_run(crowded, "labelme", shape=shape, images=True)
    files = [path for path in report.files if path.suffix == ".json"]
    assert len(files) == FRAMES
    found = union_by_key(read_with_labelme(files))
    expected = masters(crowded)
    if shape == "rectangle":
        assert "a rectangle is a box" in report.lost[0]
        assert set(found) == set(expected)
        assert all(np.array_equal(found[key], boxed(mask)) for key, mask in expected.items())
    else:
        assert report.lost == []
        assert_same(found, crowded)


def read_cvat(folder):
    """(frame, group, shape) of everything datumaro finds in view."""
    datumaro = pytest.importorskip("datumaro", reason='datumaro is not installed: pip install ".[readers]"')
    for item in datumaro.Dataset.import_from(str(folder), "cvat"):
        for annotation in item.annotations:
            if not annotation.attributes.get("outside"):
                yield int(item.id.rsplit("_", 1)[-1]), annotation


@pytest.mark.parametrize("shape", ["polygon", "rectangle"])
def test_cvat_is_read_by_datumaro(crowded, shape):
    report = export_run(crowded, "cvat", shape=shape)
    groups = track_groups(report.folder)
    found = union_by_key(
        ((frame, groups[annotation.attributes["track_id"]]), rasterised(annotation))
        for frame, annotation in read_cvat(report.folder)
    )
    expected = masters(crowded)
    if shape == "rectangle":
        assert report.lost[0].startswith("The masks' shapes: a rectangle is a box (13 masks")
        assert set(found) == set(expected)
        assert all(np.array_equal(found[key], boxed(mask)) for key, mask in expected.items())
    else:
        assert report.lost == []
        assert_same(found, crowded)


def test_cvat_masks_are_run_lengths_row_by_row_in_their_box(crowded):
    """By CVAT's description of the format: datumaro reads masks of images only, and CVAT itself is a server."""
    from xml.etree import ElementTree

    report = export_run(crowded, "cvat", shape="mask")
    assert len(report.lost) == 1 and "CVAT tracks no masks" in report.lost[0]
    found = {}
    for track in ElementTree.parse(report.folder / "annotations.xml").getroot().findall("track"):
        shown = [shape for shape in track.findall("mask") if shape.get("outside") == "0"]
        assert len(shown) == 1
        place = {key: int(shown[0].get(key)) for key in ("left", "top", "width", "height")}
        lengths = [int(length) for length in shown[0].get("rle").split(",")]
        flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
        mask = np.zeros(SIZE, bool)
        rows = slice(place["top"], place["top"] + place["height"])
        columns = slice(place["left"], place["left"] + place["width"])
        mask[rows, columns] = flat.reshape(place["height"], place["width"])
        found[int(shown[0].get("frame")), int(track.get("group_id"))] = mask
    assert_same(found, crowded)


def test_cvat_tracks_leave_the_picture_where_the_object_does(run):
    from xml.etree import ElementTree

    root = ElementTree.parse(export_run(run, "cvat", shape="rectangle").folder / "annotations.xml").getroot()
    tracks = {int(track.get("group_id")): track.findall("box") for track in root.findall("track")}
    shown = [(int(box.get("frame")), box.get("outside")) for box in tracks[2]]
    assert shown == [(2, "0"), (3, "0"), (4, "0"), (5, "1"), (7, "0"), (8, "1")]
    assert [int(box.get("frame")) for box in tracks[7]] == [4, 5, 6, 7, 8]
    assert root.find("meta/task/size").text == "10", "the whole video"


def rasterised(annotation):
    """A datumaro annotation as a mask, by datumaro and pycocotools."""
    from datumaro.util import mask_tools

    if type(annotation).__name__ == "Bbox":
        x, y, width, height = map(int, annotation.get_bbox())
        mask = np.zeros(SIZE, bool)
        mask[y : y + height, x : x + width] = True
        return mask
    return mask_tools.rles_to_mask([annotation.points], WIDTH, HEIGHT) == 1


def track_groups(folder):
    from xml.etree import ElementTree

    tracks = ElementTree.parse(folder / "annotations.xml").getroot().findall("track")
    return {int(track.get("id")): int(track.get("group_id")) for track in tracks}


# ---- video: PyAV -----------------------------------------------------------------------------------------------------


def read_video(path, decoder=None, pixel_format="rgba"):
    """Frames as arrays. decoder: FFmpeg's own VP9 decoder drops alpha, libvpx keeps it."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if decoder is None:
            frames = container.decode(stream)
        else:
            context = av.CodecContext.create(decoder, "r")
            frames = (frame for packet in container.demux(stream) for frame in context.decode(packet or None))
        return [frame.to_ndarray(format=pixel_format) for frame in frames]


def together(run, number):
    found = [mask for (frame, _), mask in masters(run).items() if frame == number]
    return np.any([np.zeros(SIZE, bool), *found], axis=0)


@pytest.mark.parametrize(("name", "file", "decoder"), [
    ("alpha-mov", "alpha.mov", None), ("alpha-webm", "alpha.webm", "libvpx-vp9"),
])  # fmt: skip
def test_alpha_videos_are_read_by_pyav(run, name, file, decoder):
    cv2 = pytest.importorskip("cv2", reason='opencv is not installed: pip install ".[export]"')
    report = export_run(run, name, tracked_only=True)
    frames = read_video(report.folder / file, decoder)
    assert len(frames) == FRAMES
    bright = 0
    clip = read_video(run.parent / "clip.mp4", pixel_format="rgb24")[START : START + FRAMES]
    for index, (frame, picture) in enumerate(zip(frames, clip, strict=True)):
        expected = together(run, START + index)
        assert np.array_equal(frame[:, :, 3] >= 128, expected)
        assert np.abs(frame[expected][:, :3].astype(int) - picture[expected]).mean() < 12
        far = ~cv2.dilate(expected.astype(np.uint8), np.ones((33, 33), np.uint8)).astype(bool)
        assert frame[far][:, :3].max() < 40, "far from the objects the picture is gone"
        bright += int((picture[far] > 200).sum())
    assert bright > 150, "there was something to hide"
    assert any(line.startswith("Which object is which") for line in report.lost)
    assert not any(line.startswith("Which") for line in export_run(run, name, run / "one", objects=[1]).lost)


def test_feathered_videos_fade_along_the_edge_and_keep_their_colours(run):
    pytest.importorskip("cv2", reason='opencv is not installed: pip install ".[export]"')
    hard, soft = (
        read_video(export_run(run, "alpha-mov", run / f"f{f}", feather=f, tracked_only=True).folder / "alpha.mov")
        for f in (0, 4)
    )
    green = read_video(
        export_run(run, "green-screen", feather=4, tracked_only=True).folder / "green.mp4", pixel_format="rgb24"
    )
    clip = read_video(run.parent / "clip.mp4", pixel_format="rgb24")[START : START + FRAMES]
    for index in range(FRAMES):
        expected, faded = together(run, START + index), soft[index][:, :, 3]
        fades, faded_hard = ((each > 20) & (each < 235) for each in (faded, hard[index][:, :, 3]))
        assert np.array_equal(faded >= 128, expected) and fades.sum() > 4 * faded_hard.sum()
        assert np.abs(soft[index][faded > 20][:, :3].astype(int) - clip[index][faded > 20]).mean() < 12
        share = faded[:, :, None] / 255
        mixed = share * clip[index] + (1 - share) * (0, 177, 64)
        assert np.abs(green[index] - mixed).mean() < 12


def test_matte_and_green_screen_are_read_by_pyav(run):
    matte = read_video(export_run(run, "matte").folder / "matte.mp4", pixel_format="rgb24")
    green = read_video(export_run(run, "green-screen").folder / "green.mp4", pixel_format="rgb24")
    assert len(matte) == len(green) == START + FRAMES + 2, "as long as the clip"
    for index in range(len(matte)):
        expected = together(run, index)
        assert np.array_equal(matte[index][:, :, 1] >= 128, expected)
        assert np.abs(green[index][~expected].astype(int) - (0, 177, 64)).mean() < 12


def test_single_pixels_thin_lines_and_full_frames_survive_as_polygons(tmp_path):
    cv2 = pytest.importorskip("cv2", reason='opencv is not installed: pip install ".[export]"')
    from sam2long.export.polygons import join, outlines

    def filled(rings):
        image = np.zeros(SIZE, np.uint8)
        for ring in rings:
            cv2.fillPoly(image, [np.asarray(ring, np.int32)], 1)
        return image == 1

    masks = [np.zeros(SIZE, bool) for _ in range(4)]
    masks[0][7, 9] = True
    masks[1][5, 3:40] = masks[1][5:30, 20] = True
    masks[2][:] = True
    masks[3][4:40, 4:50] = True
    masks[3][10:30, 10:30] = False
    masks[3][15:25, 15:25] = True  # an island in a hole
    masks[3][18, 18] = False  # with a hole of its own
    noise = np.random.default_rng(3).random((20, *SIZE)) > 0.6
    for mask in [*masks, *noise]:
        rings = outlines(mask)
        assert all(len(ring) >= 3 for ring in rings)
        assert np.array_equal(filled(rings), mask)
    assert len(outlines(masks[3])) == 2
    assert outlines(np.zeros(SIZE, bool)) == []
    ring, hole = np.array([[0, 0], [9, 0], [9, 9], [0, 9]]), np.array([[3, 3], [3, 6], [6, 6], [6, 3]])
    assert len(join([ring, hole])) == 4 + 4 + 2
    assert filled([outlines(masks[3], tolerance=2.0)[0]]).sum() > 500


def test_the_pngs_are_read_by_pillow(run):
    report = export_run(run, "palette-png")
    with Image.open(report.files[0]) as image:
        assert image.mode == "P" and set(np.unique(image)) == {0, 1, 2}


def test_alpha_videos_have_odd_sides_sound_and_the_times_of_a_variable_rate(tmp_path):
    from sam2long.export import MaskWriter
    from sam2long.video import open_source
    from tests.video_files import write_video

    times = [0, 40, 100, 140, 260, 300, 340, 400]
    clip = write_video(tmp_path / "clip.mkv", 8, codec="ffv1", height=47, width=63, times=times, audio="aac")
    run = tmp_path / "run"
    run.mkdir()
    mask = np.zeros((47, 63), bool)
    mask[10:30, 20:50] = True
    with MaskWriter(run / "masks.jsonl", {"video": str(clip), "height": 47, "width": 63, "fps": 20.0}) as out:
        for frame in (1, 2, 5):  # 3 and 4 were not tracked
            out.write(frame, frame, None, {1: mask})
    shown = [times[frame] - times[1] for frame in range(1, 6)]
    for name, file, decoder in (("alpha-mov", "alpha.mov", None), ("alpha-webm", "alpha.webm", "libvpx-vp9")):
        report = export_run(run, name, tracked_only=True)
        frames = read_video(report.folder / file, decoder)
        assert [bool((frame[:, :, 3] >= 128).any()) for frame in frames] == [True, True, False, False, True]
        assert frames[0].shape == (47, 63, 4) and np.array_equal(frames[0][:, :, 3] >= 128, mask)
        found = [round(1000 * frame.time) for frame in open_source(report.folder / file)]
        np.testing.assert_allclose(found, shown, atol=2)
        with av.open(str(report.folder / file)) as container:
            assert bool(container.streams.audio) == (name == "alpha-mov")
        assert any("WebM takes Opus and Vorbis" in line for line in report.lost) == (name == "alpha-webm")
