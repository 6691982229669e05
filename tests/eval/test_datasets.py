"""Each data set: prompts and frames as its protocol gives them, and one clear sentence for every broken tree."""

import json
import shutil

import numpy as np
import pytest

from eval import datasets
from sam2long.errors import ConfigError
from tests.eval import trees

FRAMES = trees.FRAMES


def opened(name, tmp_path):
    trees.BUILDERS[name](tmp_path)
    return datasets.open_dataset(name, tmp_path)


def starts(dataset, video):
    return [(p.label, p.frame) for p in dataset.prompts(dataset.video(video))]


@pytest.mark.parametrize("name", trees.BUILDERS)
def test_a_sound_tree_has_no_fault(name, tmp_path):
    dataset = opened(name, tmp_path)
    assert dataset.check() == []
    assert dataset.names() == ["vid_a", "vid_b"]
    for video in map(dataset.video, dataset.names()):
        assert video.size == (trees.H, trees.W)
        assert all(p.mask.shape == video.size and p.mask.any() for p in dataset.prompts(video))


def test_every_name_opens_and_unknown_ones_are_refused(tmp_path):
    assert set(datasets.NAMES) == {*trees.BUILDERS, "synthlong", "davis-long"}
    with pytest.raises(ConfigError, match="davis18"):
        datasets.open_dataset("davis18", tmp_path)
    with pytest.raises(ConfigError, match="--root"):
        datasets.open_dataset("davis17-val")


# prompts and frames


@pytest.mark.parametrize("name", ["davis17-val", "mose-v1", "mose-v2", "vost", "folder"])
def test_all_objects_are_given_in_the_first_frame(name, tmp_path):
    assert starts(opened(name, tmp_path), "vid_a") == [("1", 0), ("2", 0)]


@pytest.mark.parametrize("name", ["lvos-v1", "lvos-v1-test", "lvos-v2", "ytvos19", "pumavos"])
def test_a_late_object_is_given_where_it_first_appears(name, tmp_path):
    assert starts(opened(name, tmp_path), "vid_a") == [("1", 0), ("2", 3)]


def test_mose_gives_only_the_first_frame_also_where_all_masks_are_at_hand(tmp_path):
    dataset = opened("mose-v1", tmp_path)
    trees.save_ids(tmp_path / "valid/Annotations/vid_b/00004.png", trees.id_map(4, {1: 0, 3: 0}))
    assert starts(dataset, "vid_b") == [("1", 0)]


def test_sav_objects_keep_their_folders_names_and_start_at_their_first_nonempty_mask(tmp_path):
    dataset = opened("sav-val", tmp_path)
    assert starts(dataset, "vid_a") == [("000", 0), ("001", 12)]
    video = dataset.video("vid_a")
    assert len(video.frame_names) == 4 * FRAMES + 1
    assert video.saved_names[:3] == ("00000", "00004", "00008")


def test_davis_prompts_leave_255_out(tmp_path):
    dataset = opened("davis17-val", tmp_path)
    ids = trees.id_map(0, {1: 0})
    ids[-3:] = 255
    trees.save_ids(tmp_path / "Annotations/480p/vid_b/00000.png", ids)
    assert starts(dataset, "vid_b") == [("1", 0)]


def test_davis16_mask_of_255_is_the_object(tmp_path):
    dataset = opened("davis16-val", tmp_path)
    prompt = dataset.prompts(dataset.video("vid_a"))[0]
    assert (prompt.obj, int(prompt.mask.sum())) == (1, int((trees.id_map(0, {1: 0}) == 1).sum()))


def test_vost_tracks_10_fps_and_saves_the_annotated_5_fps(tmp_path):
    video = opened("vost", tmp_path).video("vid_a")
    assert len(video.frame_names) == 2 * FRAMES
    assert video.saved_names[:2] == ("frame00012", "frame00018")
    assert video.saved[:3] == (0, 2, 4)


def test_ytvos_saves_only_the_listed_frames(tmp_path):
    trees.ytvos(tmp_path)
    meta = json.loads((tmp_path / "valid/meta.json").read_text())
    meta["videos"]["vid_b"]["objects"]["2"]["frames"] = ["00000", "00010"]
    (tmp_path / "valid/meta.json").write_text(json.dumps(meta))
    video = datasets.open_dataset("ytvos19", tmp_path).video("vid_b")
    assert (video.saved_names, len(video.frame_names)) == (("00000", "00010"), FRAMES)


def test_ytvos_30_fps_tracks_from_the_first_to_the_last_listed_frame(tmp_path):
    video = opened("ytvos19-30fps", tmp_path).video("vid_a")
    assert (video.frame_names[0], video.frame_names[-1]) == ("00000", "00035")
    assert video.saved_names == tuple(f"{5 * t:05d}" for t in range(FRAMES))


def test_frames_are_ordered_by_number_not_by_text(tmp_path):
    for t in (2, 10, 1):
        trees.save_jpeg(tmp_path / "clip" / f"frame{t}.jpg", trees.id_map(0, {1: 0}))
    trees.save_ids(tmp_path / "Annotations" / "clip.png", trees.id_map(0, {1: 0}))
    assert datasets.open_dataset("folder", tmp_path).video("clip").frame_names == ("frame1", "frame2", "frame10")


def test_frames_are_handed_over_under_integer_names_and_taken_away_again(tmp_path):
    dataset = opened("vost", tmp_path)
    with dataset.frames_folder(dataset.video("vid_a"), tmp_path / "work") as folder:
        assert sorted(p.name for p in folder.iterdir())[:2] == ["00000.jpg", "00001.jpg"]
        original = tmp_path / "JPEGImages_10fps/vid_a/frame00015.jpg"
        assert (folder / "00001.jpg").read_bytes() == original.read_bytes()
    assert not folder.exists()


def test_raw_sav_gives_its_video_as_frames_and_its_masks_as_a_tree(tmp_path):
    dataset = opened("sav-raw", tmp_path / "raw")
    video = dataset.video("vid_a")
    assert starts(dataset, "vid_a") == [("000", 0), ("001", 12)]
    assert video.saved_names == ("00000", "00004", "00008", "00012", "00016")
    with dataset.frames_folder(video, tmp_path / "work") as folder:
        assert len(list(folder.iterdir())) == 18
    dataset.export_gt(tmp_path / "gt")
    assert (tmp_path / "gt/vid_a/001/00012.png").exists()


def test_real_sav_json_is_read(shared_data):
    raw = datasets.open_dataset("sav-raw", shared_data / "sav_example", auto=True)
    video = raw.video("sav_000001")
    assert (video.size, len(video.frame_names), len(video.saved)) == ((848, 480), 483, 121)
    prompts = {p.label: p.frame for p in raw.prompts(video)}
    assert {k: prompts[k] for k in ("000", "003")} == {"000": 0, "003": 4 * 113}
    assert len(prompts) == 5 + 9
    assert ["mp4 does not exist" in f.replace("'", "") for f in raw.check()] == [True]


def test_synthlong_prompts_and_truth_agree(tmp_path):
    dataset = datasets.open_dataset("synthlong", videos=["twins_00"], size=64, frames=6)
    video = dataset.video("twins_00")
    dataset.export_gt(tmp_path)
    from eval import pngs

    for p in dataset.prompts(video):
        ids = pngs.read_ids(tmp_path / "twins_00" / f"{video.frame_names[p.frame]}.png")
        assert np.array_equal(ids == p.obj, p.mask)
    assert len(list((tmp_path / "twins_00").iterdir())) == 6


# broken trees: what is broken, and what the sentence must name


def remove(*parts):
    def act(root):
        path = root.joinpath(*parts)
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return act


def write(name, content):
    return lambda root: (root / name).write_bytes(content)


def mask(name, ids, mode="P"):
    return lambda root: trees.save_ids(root / name, ids, mode)


def image(name, shape):
    return lambda root: trees.save_jpeg(root / name, np.zeros(shape, np.uint8))


def truncate(name):
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:50])


def move_down(root):
    for part in list(root.iterdir()):
        shutil.move(part, root / "inner" / part.name) if (root / "inner").mkdir(exist_ok=True) is None else None


def edit_json(name, change):
    def act(root):
        content = json.loads((root / name).read_text())
        change(content)
        (root / name).write_text(json.dumps(content))

    return act


EMPTY = np.zeros((trees.H, trees.W), np.uint8)
A480, J480 = "Annotations/480p", "JPEGImages/480p"
META = "val/valid_meta.json"
BROKEN = {
    "no root": ("davis17-val", lambda r: shutil.rmtree(r), ["is not a folder", "davischallenge.org"]),
    "one folder too high": ("davis17-val", move_down, ["inner looks like it", "--root"]),
    "no images": ("davis17-val", remove("JPEGImages"), ["no folder JPEGImages/480p", "davischallenge.org"]),
    "no annotations": ("davis17-val", remove("Annotations"), ["no folder Annotations/480p"]),
    "no list": ("davis17-val", remove("ImageSets"), ["ImageSets/2017/val.txt is not in"]),
    "empty list": ("davis17-val", write("ImageSets/2017/val.txt", b"\n"), ["val.txt lists no video"]),
    "listed video without images": ("davis17-val", remove(J480, "vid_b"), ["vid_b has no image folder"]),
    "empty video": (
        "mose-v1",
        lambda r: [p.unlink() for p in (r / "valid/JPEGImages/vid_b").iterdir()],
        ["vid_b holds no image"],
    ),
    "missing frame": ("davis17-val", remove(J480, "vid_a", "00003.jpg"), ["1 frames are missing", "vid_a: 3"]),
    "missing frame in steps of five": (
        "lvos-v2",
        remove("val/JPEGImages/vid_b/00000016.jpg"),
        ["frames are missing", "vid_b: 16"],
    ),
    "empty image file": ("davis17-val", write(f"{J480}/vid_a/00004.jpg", b""), ["empty files: 00004.jpg"]),
    "corrupt image": (
        "davis17-val",
        write(f"{J480}/vid_a/00000.jpg", b"no image"),
        ["00000.jpg cannot be read as an image"],
    ),
    "frame name without a number": (
        "davis17-val",
        image(f"{J480}/vid_a/first.jpg", EMPTY.shape),
        ["first.jpg", "number"],
    ),
    "frame twice": ("davis17-val", image(f"{J480}/vid_a/3.png", EMPTY.shape), ["frames 3 more than once"]),
    "two sizes in a video": ("davis17-val", image(f"{J480}/vid_a/00007.jpg", (20, 20)), ["is 20x20", "48x36"]),
    "no mask of a video": ("davis17-val", remove(A480, "vid_b"), ["no PNG mask of video vid_b"]),
    "no first mask": ("davis17-val", remove(A480, "vid_b", "00000.png"), ["begins with 00001.png", "00000.png"]),
    "mask of another size": (
        "davis17-val",
        mask(f"{A480}/vid_a/00000.png", np.ones((9, 9), np.uint8)),
        ["is 9x9", "48x36"],
    ),
    "RGB mask": ("davis17-val", mask(f"{A480}/vid_a/00000.png", EMPTY, "RGB"), ["PNG mode RGB", "mode P"]),
    "corrupt mask": ("davis17-val", truncate(f"{A480}/vid_a/00000.png"), ["00000.png cannot be read as a PNG"]),
    "first mask without an object": ("mose-v1", mask("valid/Annotations/vid_a/00000.png", EMPTY), ["holds no object"]),
    "mask without an image": (
        "mose-v1",
        mask("valid/Annotations/vid_a/00099.png", EMPTY),
        ["without an image", "00099.png"],
    ),
    "annotated video without images": (
        "mose-v1",
        mask("valid/Annotations/other/00000.png", EMPTY),
        ["videos without images", "other"],
    ),
    "MOSEv2 length": (
        "mose-v2",
        edit_json("valid/meta.json", lambda m: m["videos"]["vid_a"].update(length=99)),
        ["vid_a 99 frames", "holds 8"],
    ),
    "no meta": ("lvos-v2", remove(META), ["no valid_meta.json was found"]),
    "meta is not JSON": ("lvos-v2", write(META, b"{"), ["not a meta file"]),
    "meta of another data set": ("lvos-v2", write(META, b'{"info": 1}'), ["not a meta file"]),
    "meta lists an unknown video": (
        "lvos-v2",
        edit_json(META, lambda m: m["videos"].update(ghost={"objects": {}})),
        ["videos without images", "ghost"],
    ),
    "meta lacks a video": (
        "lvos-v2",
        edit_json(META, lambda m: m["videos"].pop("vid_b")),
        ["does not list video vid_b"],
    ),
    "range beyond the images": (
        "lvos-v2",
        edit_json(META, lambda m: m["videos"]["vid_a"]["objects"]["1"]["frame_range"].update(end=61, frame_nums=12)),
        ["frames without an image", "00000041"],
    ),
    "range longer than frame_nums": (
        "lvos-v2",
        edit_json(META, lambda m: m["videos"]["vid_a"]["objects"]["1"]["frame_range"].update(frame_nums=3)),
        ["frame_nums is 3"],
    ),
    "range without numbers": (
        "lvos-v2",
        edit_json(META, lambda m: m["videos"]["vid_a"]["objects"]["1"].update(frame_range={})),
        ["expected start, end and frame_nums"],
    ),
    "SA-V without its list": ("sav-val", remove("sav_val/sav_val.txt"), ["sav_val.txt is not in"]),
    "SA-V video without objects": (
        "sav-val",
        remove("sav_val/Annotations_6fps/vid_b/000"),
        ["no object folder of video vid_b"],
    ),
    "SA-V object without masks": (
        "sav-val",
        lambda r: [p.unlink() for p in (r / "sav_val/Annotations_6fps/vid_b/000").iterdir()],
        ["vid_b/000 holds no PNG"],
    ),
    "SA-V id map instead of a mask": (
        "sav-val",
        mask("sav_val/Annotations_6fps/vid_b/000/00000.png", np.arange(36 * 48, dtype=np.uint8).reshape(36, 48)),
        ["holds 256 values", "one PNG per object"],
    ),
    "YouTube-VOS without meta": ("ytvos19", remove("valid/meta.json"), ["meta.json does not exist"]),
    "YouTube-VOS object without its first mask": (
        "ytvos19",
        remove("valid/Annotations/vid_a/00015.png"),
        ["object 2 of video vid_a starts at frame 00015", "no 00015.png"],
    ),
    "YouTube-VOS listed frame without image": ("ytvos19", remove("valid/JPEGImages/vid_a/00035.jpg"), ["00035"]),
    "YouTube-VOS 30 fps frames missing": (
        "ytvos19-30fps",
        remove("all_frames"),
        ["no folder all_frames/valid_all_frames/JPEGImages"],
    ),
    "VOST annotated frame missing at 10 fps": ("vost", remove("JPEGImages_10fps/vid_a/frame00018.jpg"), ["frame00018"]),
    "raw SA-V without video": ("sav-raw", remove("vid_a.mp4"), ["vid_a.mp4 does not exist"]),
    "raw SA-V annotation cut short": ("sav-raw", truncate("vid_a_manual.json"), ["not an SA-V annotation"]),
    "raw SA-V with too few annotated frames": (
        "sav-raw",
        edit_json("vid_a_manual.json", lambda m: m["masklet"].pop()),
        ["annotates 4 frames; expected 5"],
    ),
    "own video without a mask": ("folder", remove("Annotations/vid_b.png"), ["no PNG mask of video vid_b"]),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_tree_gets_one_clear_sentence(fault, tmp_path):
    name, break_it, words = BROKEN[fault]
    root = tmp_path / "root"
    trees.BUILDERS[name](root)
    break_it(root)
    faults = datasets.open_dataset(name, root).check()
    about = [f for f in faults if all(word in f for word in words)]
    assert len(about) == 1, faults
    assert "\n" not in about[0]
    assert len(faults) <= 2, faults
