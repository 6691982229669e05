"""The paper's table by one command: found, run, scored, packed, compared; and gone on with."""

import csv
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eval import bootstrap, cli, layouts, paper, reproduce, runner
from eval.bootstrap import Interval
from eval.layouts import Clip
from eval.trackers import TrackerSpec
from sam2long.errors import DataError
from sam2long.synthetic import generate
from tests.eval import trees

PLACES = {
    "sav-val": "SA-V",
    "sav-test": "SA-V/of another day",
    "lvos-v2": "LVOS_V2",
    "mose-v1": "MOSE",
    "vost": "more/VOST",
    "pumavos": "more/PUMaVOS",
}


def data_of(folder: Path, names=tuple(PLACES)) -> Path:
    for name in names:
        trees.BUILDERS[name](folder / PLACES[name])
    if "mose-v1" in names:
        on_the_server(folder / PLACES["mose-v1"])
    return folder


def on_the_server(mose: Path) -> None:
    """MOSE gives away the first masks only."""
    for path in (mose / "valid/Annotations").rglob("*.png"):
        if path.stem != "00000":
            path.unlink()


def drifting(dataset, spec, folder):
    """Both methods are a tracker that needs no network; SAM 2's breaks off when it is told to."""
    return runner.run(dataset, replace(spec, method="tests.eval.fake_tracker:drift"), folder)


def table_of(out: Path) -> list[dict[str, str]]:
    with (out / "reproduce.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# ---- finding -------------------------------------------------------------------------------------------------


def test_data_sets_are_found_below_the_folder_wherever_they_lie(tmp_path):
    found = paper.find(data_of(tmp_path))
    assert list(found.here) == list(PLACES) == list(paper.NAMES)
    assert found.missing == {}
    for name, place in PLACES.items():
        assert found.here[name].root.is_relative_to(tmp_path / place)


@pytest.mark.parametrize("name", PLACES)
def test_a_data_set_may_be_the_folder_itself(name, tmp_path):
    folder = tmp_path / Path(PLACES[name]).name
    trees.BUILDERS[name](folder)
    assert list(paper.find(folder).here) == [name]


def test_other_versions_are_not_taken_for_those_of_the_paper(tmp_path):
    trees.BUILDERS["mose-v2"](tmp_path / "MOSEv2")
    trees.BUILDERS["lvos-v1"](tmp_path / "LVOS-v1")
    assert paper.find(tmp_path).here == {}


def test_what_is_missing_or_broken_is_said_with_where_it_comes_from(tmp_path):
    data_of(tmp_path, ("vost", "pumavos"))
    for image in (tmp_path / "more/PUMaVOS/JPEGImages/vid_a").iterdir():
        image.unlink()
    found = paper.find(tmp_path)
    assert list(found.here) == ["vost"]
    assert "get it from Meta's SA-V page" in found.missing["sav-val"]
    assert "henghuiding.com/MOSE" in found.missing["mose-v1"]
    assert "1 faults" in found.missing["pumavos"] and "vid_a" in found.missing["pumavos"]
    with pytest.raises(DataError, match="is not a folder"):
        paper.find(tmp_path / "nowhere")


def test_without_any_data_or_weights_it_says_what_to_get(tmp_path, capsys, monkeypatch):
    assert cli.main(["reproduce", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: none of sav-val, sav-test,") and captured.err.count("\n") == 1
    assert captured.out.count("get it from") == len(PLACES)
    data_of(tmp_path, ["vost"])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda **_: (_ for _ in ()).throw(OSError("offline")))
    assert cli.main(["reproduce", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert "error: none of sam2.1-tiny, sam2.1-small," in captured.err
    assert captured.out.count("no weights for sam2.1-") == 4
    assert not (tmp_path / "out").exists()


# ---- the table -----------------------------------------------------------------------------------------------


def test_every_layout_runs_to_one_table_and_a_zip(tmp_path):
    out = tmp_path / "out"
    found = paper.find(data_of(tmp_path / "data"))
    whole = reproduce.Reproduction(found, ["sam2.1-large"], out, TrackerSpec(), drifting)
    assert whole.all()
    rows = table_of(out)
    assert [row["data set"] for row in rows[::3]] == [
        "sav-val",
        "sav-test",
        "lvos-v2",
        "lvos-v2",
        "mose-v1",
        "vost",
        "pumavos",
    ]
    assert [row["method"] for row in rows[:3]] == ["SAM 2", "SAM2Long", "gain"]
    by = {(row["data set"], row["scored by"].split(",")[0], row["method"]): row for row in rows}
    assert by["sav-val", "SA-V's evaluator", "SAM2Long"]["paper"] == "81.1"
    assert by["sav-val", "SA-V's evaluator", "gain"]["paper"] == "+2.5"
    assert by["sav-val", "SA-V's evaluator", "gain"]["ours"] == "+0.0"
    assert by["lvos-v2", "SA-V's evaluator on LVOS's masks", "SAM2Long"]["paper"] == "85.3"
    assert by["lvos-v2", "LVOS's own evaluator", "SAM2Long"]["paper"] == "85.9"
    assert by["vost", "SA-V's evaluator", "SAM 2"]["scored by"].endswith("255 set to 0, Table 4")
    assert by["mose-v1", "MOSE's server", "SAM2Long"]["verdict"] == "upload mose-v1/sam2.1-large-sam2long.zip"
    assert (out / "mose-v1/sam2.1-large-sam2long.zip").is_file() and (out / "mose-v1/sam2.1-large-sam2.zip").is_file()
    assert {row["verdict"] for row in rows if row["ours"] != "–"} == {"too few videos to say"}
    assert "| pumavos | SA-V's evaluator, Table 4 | sam2.1-large | SAM2Long |" in (out / "reproduce.md").read_text()


def test_our_figure_is_the_evaluators(tmp_path):
    found = paper.find(data_of(tmp_path / "data", ("sav-val", "lvos-v2", "vost")))
    whole = reproduce.Reproduction(found, ["nano"], tmp_path / "out", TrackerSpec(), drifting)
    whole.all()
    for line in whole.lines({}):
        if line.method != "gain":
            protocol = "lvos" if line.said.startswith("LVOS") else "sav"
            folder = tmp_path / "out" / line.dataset / ("nano-sam2" if line.method == "SAM 2" else "nano-sam2long")
            run = reproduce.report.Run(folder, protocol)
            official = run.summary["J&F"] if protocol == "sav" else 100 * run.summary["J&F-Mean"]
            assert line.ours.mean == pytest.approx(official, abs=0.06)
            assert line.paper is None and line.verdict == "the paper has no figure"


def test_it_goes_on_after_a_stop_and_says_what_is_not_run_yet(tmp_path):
    out, done = tmp_path / "out", []

    def stopped(dataset, spec, folder):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(folder)
        return drifting(dataset, spec, folder)

    found = paper.find(data_of(tmp_path / "data", ("sav-val", "vost")))
    with pytest.raises(KeyboardInterrupt):
        reproduce.Reproduction(found, ["sam2.1-large"], out, TrackerSpec(), stopped).all()
    assert [row["verdict"] for row in table_of(out)] == ["too few videos to say"] * 4 + [
        "not run yet",
        "when both have figures",
    ]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    scored = (out / "sav-val/sam2.1-large-sam2/scores/sav/frames.csv").stat().st_mtime_ns
    assert reproduce.Reproduction(found, ["sam2.1-large"], out, TrackerSpec(), drifting).all()
    assert {row["verdict"] for row in table_of(out)} == {"too few videos to say"}
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    assert (out / "sav-val/sam2.1-large-sam2/scores/sav/frames.csv").stat().st_mtime_ns == scored


def test_a_failed_video_costs_its_own_figure_only(tmp_path):
    def breaking(dataset, spec, folder):
        method = "breaks" if dataset.name == "sav-val" and spec.method == "sam2" else "drift"
        return runner.run(dataset, replace(spec, method=f"tests.eval.fake_tracker:{method}"), folder)

    found = paper.find(data_of(tmp_path / "data", ("sav-val", "pumavos")))
    assert not reproduce.Reproduction(found, ["nano"], tmp_path / "out", TrackerSpec(), breaking).all()
    verdicts = [row["verdict"] for row in table_of(tmp_path / "out")]
    assert (
        verdicts
        == ["1 videos failed; start it again", "the paper has no figure", "when both have figures"]
        + ["the paper has no figure"] * 3
    )


@pytest.mark.parametrize(
    "ours, paper_says, verdict",
    [
        (Interval(2.4, 1.9, 3.1, 155), 2.5, "within the noise"),
        (Interval(1.0, 0.5, 1.9, 155), 2.5, "below the paper"),
        (Interval(3.4, 2.9, 4.1, 155), 2.5, "above the paper"),
        (Interval(2.4, 1.9, 3.1, 9), 2.5, "too few videos to say"),
        (Interval(2.4, 1.9, 3.1, 155), None, "the paper has no figure"),
    ],
)
def test_verdicts(ours, paper_says, verdict):
    assert reproduce.Line("sav-val", "", "nano", "gain", ours, paper_says).verdict == verdict


def test_intervals_draw_videos_within_their_groups():
    """Against the error of a mean of two groups' means, from the spread of the videos' means."""
    rng = np.random.default_rng(1)
    of_videos = {"seen": 70 + 10 * rng.normal(size=20), "unseen": 50 + 10 * rng.normal(size=40)}
    values, groups = {}, {}
    for group, means in of_videos.items():
        for number, mean in enumerate(means):
            for obj, apart in (("1", -3.0), ("2", 3.0)):
                values[f"{group}{number}", obj] = mean + apart
                groups[f"{group}{number}", obj] = group
    got = bootstrap.interval(values, groups)
    assert got.mean == pytest.approx(np.mean([means.mean() for means in of_videos.values()])) and got.videos == 60
    error = np.sqrt(sum(means.var() / len(means) for means in of_videos.values())) / 2
    assert got.high - got.low == pytest.approx(2 * 1.96 * error, rel=0.05)
    assert bootstrap.interval({("v", "1"): 3.0, ("w", "1"): 3.0}, {("v", "1"): "", ("w", "1"): ""})[:3] == (3, 3, 3)


# ---- as a user does it ---------------------------------------------------------------------------------------


def generated(folder: Path, names=tuple(PLACES)) -> Path:
    clips = [Clip.of(generate("easy", seed, 9, 64, 1)) for seed in (0, 1)]
    for name in names:
        layouts.write(name, folder / PLACES[name], clips)
    if "mose-v1" in names:
        on_the_server(folder / PLACES["mose-v1"])
    return folder


@pytest.mark.slow
def test_the_whole_command_with_nano(tmp_path, capsys):
    data, out = generated(tmp_path / "data"), tmp_path / "out"
    command = ["reproduce", "--data", str(data), "--models", "nano", "--out", str(out), "--device", "cpu"]
    assert cli.main(command) == 0
    rows = table_of(out)
    assert len(rows) == 21 and sum(row["ours"] != "–" for row in rows) == 18
    assert "# SAM2Long's tables, run again" in capsys.readouterr().out
    assert cli.main(command) == 0  # nothing is left to do
    assert table_of(out) == rows


@pytest.mark.slow
def test_with_ray_and_two_workers_of_which_one_is_killed(tmp_path):
    ray, psutil = pytest.importorskip("ray"), pytest.importorskip("psutil")
    data, killed = generated(tmp_path / "data", ("sav-val",)), []
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False,
             runtime_env={"env_vars": {"PYTHONPATH": os.getcwd(), "TQDM_DISABLE": "1"}})  # fmt: skip

    def kill_one() -> None:
        while not done.wait(0.02):
            mine = psutil.Process().children(recursive=True)
            if busy := [each for each in mine if each.is_running() and "Worker.run" in _title(each)]:
                busy[0].send_signal(signal.SIGKILL)
                killed.append(busy[0].pid)
                return

    done = threading.Event()
    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        command = ["reproduce", "--data", str(data), "--models", "nano", "--device", "cpu", "--workers", "2"]
        assert cli.main([*command, "--engine", "ray", "--out", str(tmp_path / "ray")]) == 0
    finally:
        done.set()
        killer.join()
        ray.shutdown()
    assert killed
    assert cli.main([*command, "--out", str(tmp_path / "here")]) == 0
    assert table_of(tmp_path / "ray") == table_of(tmp_path / "here")


def _title(process) -> str:
    try:
        return " ".join(process.cmdline())
    except Exception:  # gone meanwhile
        return ""
