"""What other programs drew becomes prompts, and what they drew wrong is refused with its place."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from sam2long.cli import main
from sam2long.errors import DataError
from sam2long.export import MaskReader
from sam2long.export.convert import export_run
from sam2long.imports import read_prompts
from sam2long.runs import opening
from tests.export_run import HEIGHT, START, WIDTH, make_run, masters
from tests.fake_tracker import FakePredictor


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", overlapping=True)


def shape(kind, points, label="dog", **more):
    return {"label": label, "shape_type": kind, "points": points, "group_id": None, **more}


def drawing(path, *shapes, height=HEIGHT, width=WIDTH):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"shapes": list(shapes), "imageHeight": height, "imageWidth": width}))
    return path


def assert_masters(prompts, run):
    """Every mask of the run is a prompt, to the pixel."""
    found = {(prompt.frame, prompt.obj_id): prompt.mask for prompt in prompts}
    expected = masters(run)
    assert set(found) == set(expected)
    assert all(np.array_equal(found[key], mask) for key, mask in expected.items())


@pytest.mark.parametrize(
    ("to", "options"),
    [("object-png", {}), ("coco", {}), ("labelme", {}), ("labelme", {"shape": "mask"}), ("x-anylabeling", {})],
)
def test_exports_come_back_to_the_pixel(run, to, options):
    out = export_run(run, to, **options).folder
    (out / "export.json").unlink()  # otherwise only what was changed comes back
    assert_masters(read_prompts(out / "annotations.json" if to == "coco" else out), run)


def test_palette_pngs_come_back_to_the_pixel(tmp_path):
    run = make_run(tmp_path / "run")
    out = export_run(run, "palette-png").folder
    assert_masters(read_prompts(out), run)
    one = read_prompts(out / f"{START:05d}.png")
    assert [(prompt.frame, prompt.obj_id) for prompt in one] == [(START, 1), (START, 2)]


def test_coco_polygons_and_boxes_are_prompts_too(tmp_path):
    path = tmp_path / "coco.json"
    content = {
        "images": [{"id": 5, "file_name": "shots/frame_12.jpg", "height": 20, "width": 30}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 3, "segmentation": [[2, 2, 10, 2, 10, 10, 2, 10]]},
            {"id": 2, "image_id": 5, "category_id": 3, "bbox": [1, 2, 10, 5]},
        ],
    }
    path.write_text(json.dumps(content))
    first, second = read_prompts(path)
    assert (first.frame, first.obj_id, first.label) == (12, 1, "cat")
    assert 60 <= first.mask.sum() <= 81 and first.mask[5, 5] and not first.mask[15, 15]
    assert second.obj_id == 2 and second.box == (1, 2, 11, 7) and second.mask is None
    content["images"].append({"id": 6, "file_name": "frame_13.jpg", "height": 20, "width": 30})
    content["annotations"][1]["image_id"] = 6
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="no track_id"):
        read_prompts(path)


def test_shapes_become_boxes_clicks_and_masks(tmp_path):
    path = drawing(
        tmp_path / "00030.json",
        shape("rectangle", [[40, 30], [10, 5]], group_id=4),
        shape("rectangle", [[1, 1], [9, 1], [9, 7], [1, 7]], "four corners"),
        shape("rotation", [[10, -3], [20, 5], [15, 12], [5, 4]], "turned", direction=0.5),
        shape("point", [[7, 8]], "clicked"),
        shape("circle", [[30, 30], [30, 35]], "round"),
        shape("polygon", [[0, 0], [5, 0], [5, 5], [0, 5]], "two parts", group_id=9),
        shape("polygon", [[20, 20], [25, 20], [25, 25]], "two parts", group_id=9),
    )
    prompts = {prompt.label: prompt for prompt in read_prompts(path)}
    assert all(prompt.frame == 30 for prompt in prompts.values())
    assert prompts["dog"].obj_id == 4 and prompts["dog"].box == (10, 5, 40, 30)
    assert prompts["four corners"].box == (1, 1, 9, 7)
    assert prompts["turned"].box == (5, 0, 20, 12), "corners outside the frame are cut"
    assert prompts["clicked"].points == ((7, 8),) and prompts["clicked"].point_labels == (1,)
    assert 60 <= prompts["round"].mask.sum() <= 100 and prompts["round"].mask[30, 33]
    parts = prompts["two parts"]
    assert parts.obj_id == 9 and parts.mask[2, 2] and parts.mask[21, 24] and not parts.mask[15, 15]
    assert sorted(prompt.obj_id for prompt in prompts.values()) == [4, 9, 10, 11, 12, 13]


def test_labels_name_the_same_object_on_every_frame(tmp_path):
    drawing(tmp_path / "f" / "00000.json", shape("point", [[1, 1]], "a"), shape("point", [[2, 2]], "b"))
    drawing(tmp_path / "f" / "00007.json", shape("point", [[3, 3]], "b"), shape("point", [[4, 4]], "c"))
    found = {(prompt.frame, prompt.label): prompt.obj_id for prompt in read_prompts(tmp_path / "f")}
    assert found == {(0, "a"): 1, (0, "b"): 2, (7, "b"): 2, (7, "c"): 3}


def test_only_what_was_changed_in_the_editor_comes_back(run):
    out = export_run(run, "x-anylabeling").folder
    with pytest.raises(DataError, match="no frame in .* has been changed"):
        read_prompts(out)
    for number in (START, START + 1):  # opened and saved by the editor, which writes other numbers of decimals
        path = out / f"{number:05d}.json"
        content = json.loads(path.read_text())
        for entry in content["shapes"]:
            entry["points"] = [[x + 0.0001, float(y)] for x, y in entry["points"]]
        content["version"] = "4.0.0"
        path.write_text(json.dumps(content))
    path = out / f"{START + 3:05d}.json"
    content = json.loads(path.read_text())
    content["shapes"] = content["shapes"][:1]
    content["shapes"][0]["points"] = [[1, 1], [9, 1], [9, 9], [1, 9]]
    path.write_text(json.dumps(content))
    (prompt,) = read_prompts(out)
    assert (prompt.frame, prompt.obj_id, prompt.label) == (START + 3, 1, "pedestrian")
    assert prompt.mask.sum() == 81
    assert len(read_prompts(out / f"{START:05d}.json")) == 2, "one that is named is taken as it is"


def test_frames_of_image_folders_go_by_their_names(tmp_path):
    path = drawing(tmp_path / "b_shot.json", shape("point", [[1, 1]]))
    assert read_prompts(path, ["a_shot", "b_shot"])[0].frame == 1
    with pytest.raises(DataError, match="no image b_shot"):
        read_prompts(path, ["a_shot"])
    with pytest.raises(DataError, match="which frame"):
        read_prompts(path)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([shape("linestrip", [[1, 1], [2, 2]])], "shape 1 is a linestrip"),
        ([shape("point", [[1, 1]]), shape("point", [[2, 2]])], "several shapes 'dog' without group_id"),
        ([shape("point", [[1, 1]], group_id=-1)], "group_id is -1"),
        ([shape("point", [[1, 1]], group_id=2**31)], "group_id is 2147483648"),
        ([shape("point", [[1, 1]], "a\x01b")], "cannot be printed"),
        ([shape("point", [[1, 1]], "a" * 5000)], "5000 letters"),
        ([shape("polygon", [[1, 1], [2, "2"]])], "points is"),
        ([shape("polygon", [[1, 1]])], "1 corners"),
        ([shape("polygon", [[900, 900], [950, 900], [950, 950]])], "no pixel"),
        ([shape("mask", [[1, 1], [2, 2]], mask="nonsense!")], "base64"),
        ([shape("rectangle", [[1, 1], [2, 2]], group_id=1)] * 2, "two boxes"),
        ([{"points": []}], "no label"),
        ([], "nothing about any object"),
    ],
)
def test_drawings_that_say_no_object_are_refused(tmp_path, shapes, message):
    path = drawing(tmp_path / "00001.json", *shapes)
    with pytest.raises(DataError, match=message):
        read_prompts(path)


@pytest.mark.parametrize("text", ["{", "[]", '{"shapes": 3}', '{"images": [], "annotations": [{}]}', ""])
def test_files_that_are_something_else_are_refused(tmp_path, text):
    path = tmp_path / "00001.json"
    path.write_text(text)
    with pytest.raises(DataError):
        read_prompts(path)
    with pytest.raises(DataError):
        read_prompts(tmp_path / "missing.json")


# ---- sam2long track --import -----------------------------------------------------------------------------------------


def track(monkeypatch, *arguments):
    monkeypatch.setattr(opening, "build_predictor", lambda settings: FakePredictor())
    return main(["track", "--quiet", *map(str, arguments)])


def test_a_frame_corrected_in_the_editor_is_tracked_from_again(run, tmp_path, monkeypatch):
    out = export_run(run, "x-anylabeling").folder
    path = out / f"{START + 2:05d}.json"
    content = json.loads(path.read_text())
    content["shapes"] = [shape("rectangle", [[30, 20], [40, 30]], "pedestrian", group_id=1)]
    path.write_text(json.dumps(content))
    clip = run.parent / "clip.mp4"
    assert track(monkeypatch, clip, "--import", out, "--out", tmp_path / "again") == 0
    with MaskReader(tmp_path / "again" / "masks.jsonl") as masks:
        assert masks.frames[0] == START + 2 and masks.header["objects"] == {"1": "pedestrian"}
        assert np.argwhere(masks.masks(START + 2)[1])[0].tolist() == [20, 30]
    box = ("--box", "4,6,12,14")
    assert track(monkeypatch, clip, *box, "--import", out, "--out", tmp_path / "both") == 0
    said = json.loads((tmp_path / "both" / "run.json").read_text())["prompts"]
    assert [prompt["frame"] for prompt in said] == [0, START + 2]


def test_imports_that_contradict_the_flags_are_refused(run, tmp_path, monkeypatch, capsys):
    out = export_run(run, "labelme").folder
    file = out / f"{START:05d}.json"
    clip = run.parent / "clip.mp4"
    flags = ("--box", "4,6,12,14", "--frame", START, "--import", file)
    assert track(monkeypatch, clip, *flags, "--out", tmp_path / "x") == 2
    assert "prompted here and in" in capsys.readouterr().err
    assert track(monkeypatch, clip, "--auto", "--import", file, "--out", tmp_path / "x") == 2
    assert "--auto does not go with --import" in capsys.readouterr().err
    assert track(monkeypatch, clip, "--import", out, "--out", tmp_path / "x") == 2
    assert "no frame" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_images_named_by_hand_find_their_frames(run, tmp_path, monkeypatch):
    folder = tmp_path / "shots"
    folder.mkdir()
    for name in ("one", "two", "three"):
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(folder / f"{name}.png")
    path = drawing(tmp_path / "json" / "three.json", shape("rectangle", [[3, 3], [9, 9]]))
    assert track(monkeypatch, folder, "--import", path, "--out", tmp_path / "run2") == 0
    said = json.loads((tmp_path / "run2" / "run.json").read_text())["prompts"]
    assert said == [{"frame": 1, "object": 1, "label": "dog", "box": [3.0, 3.0, 9.0, 9.0]}], "one, three, two"


def coco_of(path, *tracks, image=1, more=()):
    """A file as CVAT writes it for a video task, with an object for each track."""
    annotations = [
        {"id": number, "image_id": image, "category_id": 1, "bbox": [3, 3, 9, 9], "attributes": {"track_id": track}}
        for number, track in enumerate(tracks, start=1)
    ]
    images = [{"id": n, "width": WIDTH, "height": HEIGHT, "file_name": f"frame_{n - 1:06d}.PNG"} for n in (1, 2)]
    content = {"images": images, "categories": [{"id": 1, "name": "dog"}], "annotations": [*annotations, *more]}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("tracks", "expected"),
    [((0, 1), {1: "0", 2: "1"}), (("0", "7"), {1: "0", 8: "7"}), ((3, 1), {3: "", 1: ""}), (("3", "1"), {3: "", 1: ""}),
     (("Rex", 2, "Bo"), {3: "Rex", 2: "", 4: "Bo"}), (("Rex", 0), {2: "Rex", 1: "0"})],
)  # fmt: skip
def test_tracks_of_cvat_count_from_0_or_have_names(tmp_path, tracks, expected):
    prompts = read_prompts(coco_of(tmp_path / "instances_default.json", *tracks))
    assert {prompt.obj_id: prompt.called for prompt in prompts} == expected


def test_numbers_move_on_in_all_files_of_a_folder_together(tmp_path):
    folder = tmp_path / "frames"
    drawing(folder / "00001.json", shape("rectangle", [[1, 1], [9, 9]], group_id=0), shape("point", [[20, 20]], "cat"))
    drawing(folder / "00002.json", shape("rectangle", [[1, 1], [9, 9]], group_id=1))
    found = [(prompt.frame, prompt.obj_id, prompt.called) for prompt in read_prompts(folder)]
    assert found == [(1, 1, "0"), (1, 3, ""), (2, 2, "1")]
    coco_of(tmp_path / "coco" / "a.json", 0)
    coco_of(tmp_path / "coco" / "b.json", 1, image=2)
    assert [(prompt.frame, prompt.obj_id) for prompt in read_prompts(tmp_path / "coco")] == [(0, 1), (1, 2)]


@pytest.mark.parametrize("track", [-1, 2**31, 1.5, [1], "a\x00b", "x" * 5000, True])
def test_tracks_that_are_no_number_and_no_name_are_refused(tmp_path, track):
    with pytest.raises(ValueError, match="track_id") as caught:
        read_prompts(coco_of(tmp_path / "coco.json", track))
    assert len(str(caught.value)) < 250


def test_what_was_moved_on_is_said_and_kept(run, tmp_path, monkeypatch, capsys):
    path = coco_of(tmp_path / "instances_default.json", 0, 1)
    monkeypatch.setattr(opening, "build_predictor", lambda settings: FakePredictor())
    command = ["track", run.parent / "clip.mp4", "--import", path, "--out", tmp_path / "out"]
    assert main(list(map(str, command))) == 0
    assert "1 0, 2 1" in capsys.readouterr().out
    said = json.loads((tmp_path / "out" / "run.json").read_text())["prompts"]
    assert [(prompt["object"], prompt["called"]) for prompt in said] == [(1, "0"), (2, "1")]


@pytest.mark.parametrize(("given", "message"), [(0, "count objects from 1"), (-3, "from 1 to"), ("dog", "from 1 to")])
def test_object_numbers_of_prompts_json_are_said_as_they_are_meant(tmp_path, given, message):
    from sam2long.runs.prompting import from_file

    path = tmp_path / "prompts.json"
    entry = {"frame": 0, "object": "3", "box": [1, 1, 5, 5]}
    path.write_text(json.dumps([entry]))
    assert from_file(path)[0].obj_id == 3
    path.write_text(json.dumps([{**entry, "object": given}]))
    with pytest.raises(ValueError, match=message):
        from_file(path)
