"""Generated videos in every layout: sound to `check`, and a perfect prediction of them scores 100."""

import numpy as np
import pytest
from PIL import Image

from eval import cli, datasets, layouts, score
from eval.layouts import Clip
from sam2long.errors import ConfigError, DataError
from sam2long.synthetic import generate
from tests.eval import trees

FRAMES = 20
ON_A_SERVER = ("davis17-test-dev", "lvos-v1-test", "lvos-v2-test", "ytvos19", "ytvos19-30fps", "vost-test")


@pytest.fixture(scope="module")
def clips():
    """Four objects, of which one has been away; and two that stay."""
    return [Clip.of(generate("crowd", 3, FRAMES, 64)), Clip.of(generate("twins", 4, FRAMES, 64))]


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_what_is_written_is_a_sound_data_set_with_the_true_prompts(name, clips, tmp_path):
    dataset = datasets.open_dataset(name, layouts.write(name, tmp_path / "data", clips))
    assert dataset.check() == []
    assert sorted(dataset.names()) == sorted(clip.name for clip in clips)
    for clip in clips:
        given = {p.obj: p.mask for p in dataset.prompts(dataset.video(clip.name))}
        first = next(iter(clip.frames)).ids
        if name == "davis16-val":
            assert np.array_equal(given[1], first > 0)
        else:
            assert given.keys() == set(clip.objects)
            assert all(np.array_equal(given[o], first == o) for o in clip.objects)


def predict_truth(dataset, clips, folder, shift=0):
    """The masks of every wanted frame as the runner saves them; shifted, they are wrong."""
    for clip in clips:
        video = dataset.video(clip.name)
        frames = list(clip.frames)
        for index, name in zip(video.saved, video.saved_names, strict=True):
            ids = np.roll(frames[index].ids, shift, axis=1)
            if dataset.per_object:
                for k, obj in enumerate(clip.objects):
                    trees.save_ids(folder / clip.name / f"{k:03d}" / f"{name}.png", (ids == obj).astype(np.uint8))
            else:
                trees.save_ids(folder / clip.name / f"{name}.png", ids)
    return folder


@pytest.mark.parametrize("name", [n for n in layouts.LAYOUTS if n not in ON_A_SERVER and n != "sav-raw"])
def test_the_truth_scores_a_hundred_and_a_shifted_one_does_not(name, clips, tmp_path):
    dataset = datasets.open_dataset(name, layouts.write(name, tmp_path / "data", clips))
    scores = {}
    for shift in (0, 9):
        predicted = predict_truth(dataset, clips, tmp_path / str(shift), shift)
        found = score.evaluate(dataset.protocol, dataset.gt(), predicted, processes=1)
        name_of_j = next(k for k in found.objects[0].values if k.startswith("J"))
        whole = {"fraction": 1, "percent": 100}[found.unit]
        scores[shift] = np.mean([o.values[name_of_j] for o in found.objects]) / whole
    assert scores[0] == pytest.approx(1) and scores[9] < 0.8


@pytest.mark.parametrize("name", ON_A_SERVER)
def test_where_a_server_has_the_truth_only_first_masks_are_written(name, clips, tmp_path):
    root = layouts.write(name, tmp_path / "data", clips)
    dataset = datasets.open_dataset(name, root)
    assert dataset.gt() is None
    assert all(len(dataset.annotation_files(clip.name)) < FRAMES // 4 for clip in clips)


def test_the_command_writes_what_the_runner_reads(tmp_path, capsys):
    out = tmp_path / "mine"
    line = ["generate", "--layout", "sav-val", "--out", str(out), "--scenarios", "easy,long", "--videos", "2"]
    assert cli.main([*line, "--frames", "9", "--size", "40", "--seed", "5", "--objects", "1"]) == 0
    assert f"--dataset sav-val --root {out}" in capsys.readouterr().out
    assert cli.main(["check", "--dataset", "sav-val", "--root", str(out)]) == 0
    assert "4 videos, no fault found" in capsys.readouterr().out
    images = out / "sav_val" / "JPEGImages_24fps" / "long_0006"
    assert [p.name for p in sorted(images.iterdir())] == [f"{t:05d}.jpg" for t in range(9)]
    shown = np.asarray(Image.open(images / "00004.jpg")).astype(int)
    assert abs(shown - generate("long", 6, 9, 40, 1).frame(4).image).mean() < 12


@pytest.mark.parametrize(
    "options, message",
    [
        (["--scenarios", "hard"], "unknown scenario 'hard'"),
        (["--videos", "0"], "--videos is 0"),
        (["--frames", "0"], "num_frames is 0"),
        (["--scenarios", "easy, easy"], "name each one once"),
        (["--layout", "sav-raw", "--size", "45"], "take even numbers"),
    ],
)
def test_what_cannot_be_written_is_one_sentence_and_leaves_nothing(options, message, tmp_path, capsys):
    out = tmp_path / "new" / "deep" / "x"
    assert cli.main(["generate", "--layout", "folder", "--out", str(out), *options]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_fails_half_way_leaves_nothing(clips, tmp_path):
    class Broken:
        def __len__(self):
            return FRAMES

        def __iter__(self):
            yield from list(clips[0].frames)[:3]
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        layouts.write("lvos-v2", tmp_path / "new" / "x", [Clip(name="a", frames=Broken(), objects=(1,))])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(clips, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="new or empty"):
        layouts.write("folder", tmp_path, clips)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(ConfigError, match="no layout 'synthlong'"):
        layouts.write("synthlong", tmp_path / "x", clips)
    with pytest.raises(ConfigError, match="each with a name of its own"):
        layouts.write("folder", tmp_path / "x", [clips[0], clips[0]])


def test_the_empty_folder_one_stands_in_can_be_filled(clips, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layouts.write("folder", ".", clips[:1])
    assert {p.name for p in tmp_path.iterdir()} == {"JPEGImages", "Annotations"}
