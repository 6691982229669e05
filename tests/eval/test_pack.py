"""The server's zips, and what is refused first."""

import shutil
import zipfile

import numpy as np
import pytest

from eval import cli, datasets, pack, runner
from eval.trackers import TrackerSpec
from sam2long.errors import ConfigError, DataError
from tests.eval import trees

ROOTS = {
    "davis17-test-dev": "",
    "mose-v1": "",
    "mose-v2": "",
    "ytvos19": "Annotations/",
    "lvos-v1-test": "Annotations/",
}


@pytest.fixture
def packed(tmp_path):
    """Run and pack a data set; returns (root, predictions)."""

    def make(name):
        root = tmp_path / "data"
        trees.BUILDERS[name](root)
        spec = TrackerSpec(method="tests.eval.fake_tracker:drift", model="none")
        runner.run(datasets.open_dataset(name, root), spec, tmp_path / "run")
        return root, tmp_path / "run" / "predictions"

    return make


@pytest.mark.parametrize("name", ROOTS)
def test_zip_has_the_servers_layout(packed, tmp_path, name):
    root, _ = packed(name)
    out = tmp_path / "x.zip"
    arguments = ["pack", "--dataset", name, "--root", str(root), "--pred", str(tmp_path / "run"), "--out", str(out)]
    assert cli.main(arguments) == 0
    dataset = datasets.open_dataset(name, root)
    expected = {f"{ROOTS[name]}{v}/{n}.png" for v in dataset.names() for n in dataset.video(v).saved_names}
    with zipfile.ZipFile(out) as archive:
        assert set(archive.namelist()) == expected


def test_same_predictions_give_the_same_zip(packed, tmp_path):
    root, pred = packed("mose-v2")
    for name in ("a.zip", "b.zip"):
        pack.pack("mose-v2", root, pred, tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


FAULTS = {
    "missing video": (lambda p: shutil.rmtree(p / "vid_b"), "video vid_b has no prediction"),
    "missing frame": (lambda p: (p / "vid_a/00002.png").unlink(), r"1 of 8 frames of video vid_a.*00002\.png"),
    "extra frame": (lambda p: shutil.copy(p / "vid_a/00002.png", p / "vid_a/00009.png"), "not asked for: 00009.png"),
    "other file": (lambda p: (p / "vid_a/notes.txt").touch(), "notes.txt"),
    "extra video": (lambda p: shutil.copytree(p / "vid_a", p / "other"), "other"),
    "RGB": (lambda p: trees.save_ids(p / "vid_a/00002.png", np.zeros((36, 48), np.uint8), "RGB"), "PNG mode RGB"),
    "no palette": (lambda p: trees.save_ids(p / "vid_a/00002.png", np.zeros((36, 48), np.uint8), "L"), "PNG mode L"),
    "wrong size": (
        lambda p: trees.save_ids(p / "vid_a/00002.png", np.zeros((6, 8), np.uint8)),
        "is 8x6, its video 48x36",
    ),
    "unknown id": (lambda p: trees.save_ids(p / "vid_a/00002.png", np.full((36, 48), 7, np.uint8)), "holds ids 7"),
    "corrupt": (lambda p: (p / "vid_a/00002.png").write_bytes(b"x"), "cannot be read as a PNG"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_no_zip_is_written(packed, tmp_path, fault):
    root, pred = packed("mose-v2")
    break_it, message = FAULTS[fault]
    break_it(pred)
    with pytest.raises(DataError, match=message):
        pack.pack("mose-v2", root, pred, tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_a_data_set_with_faults_is_not_packed_for(packed, tmp_path):
    root, pred = packed("mose-v2")
    for folder in (root / "nowhere", pred):
        with pytest.raises(DataError, match="mose-v2 is not complete"):
            pack.pack("mose-v2", folder, pred, tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_a_data_set_without_a_server_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no server"):
        pack.pack("vost", tmp_path, tmp_path, tmp_path / "x.zip")
