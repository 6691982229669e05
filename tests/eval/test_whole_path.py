"""Every data set in its true layout, from run to score, pack and report, with the model that the package ships."""

import shutil

import pytest

from eval import cli, datasets, pack, trackers
from eval.trackers import TrackerSpec
from tests.eval import trees

SAME_CLASS = (
    "sav-test",
    "vost-test",
    "lvos-v1",
    "lvos-v2-test",
    "ytvos19-30fps",
)  # run in test_runner, without a network
NAMES = [name for name in (*trees.BUILDERS, "synthlong") if name not in SAME_CLASS]


@pytest.fixture(scope="module")
def nano():
    """The shipped model, built once; the one at hand with random weights until there are shipped ones."""
    from sam2long.weights import CHECKPOINTS

    if CHECKPOINTS["nano"].local_path() is not None:
        return trackers.build(TrackerSpec(device="cpu"))
    from tests.fakes import tiny_predictor

    tracker = trackers.Sam2Long.__new__(trackers.Sam2Long)
    tracker.spec, tracker._cuda, tracker.predictor = TrackerSpec(), False, tiny_predictor()
    return tracker


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_run_score_pack_report(name, nano, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trackers, "build", lambda spec: nano)
    where = ["--dataset", name]
    if name == "synthlong":
        where += ["--videos", "easy_00,reappear_00", "--size", "64", "--frames", "8"]
    else:
        where += ["--root", str(trees.BUILDERS[name](tmp_path / "data"))]
    runs = [tmp_path / "a", tmp_path / "b"]
    assert cli.main(["run", *where, "--out", str(runs[0]), "--device", "cpu", "--score"]) == 0
    shutil.copytree(*runs)
    output = capsys.readouterr().out
    if name in pack.NAMES:
        packed = ["pack", "--dataset", name, "--root", str(tmp_path / "data"), "--pred", str(runs[0])]
        assert cli.main([*packed, "--out", str(tmp_path / "x.zip")]) == 0
    if "no ground truth" in output:  # the server has it
        assert datasets.open_dataset(name, tmp_path / "data").gt() is None
        return
    assert cli.main(["report", *map(str, runs), "--out", str(tmp_path / "report")]) == 0
    assert "| b - a | +0.00 |" in (tmp_path / "report" / "report.md").read_text()
