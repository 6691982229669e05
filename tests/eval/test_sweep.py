"""Many settings in one go: the masks, files and resume behaviour of single runs."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from eval import datasets, pngs, runner, sweep, trackers
from eval.sweep_tracker import Sweep
from eval.trackers import Sam2Long, TrackerSpec
from sam2long import Sam2LongConfig
from sam2long.errors import ConfigError
from sam2long.network.batched import Batched
from tests.eval import trees

REPOSITORY = Path(__file__).parents[2]
SETTINGS = {
    "default": {},
    "two": {"num_pathways": 2},
    "strict": {"iou_threshold": 0.9},
    "unsure": {"certainty_threshold": 100.0},
    "weights": {"modulation": [0.6, 1.4]},
    "merge": {"twins": "merge"},
    "sam2": {"num_pathways": 1, "object_aware_memory": False, "modulation": [1.0, 1.0]},
}


@pytest.fixture
def with_model(monkeypatch):
    """The shipped model, built once: tests compare masks, so it has to have some."""
    from sam2long import SAM2LongVideoPredictor

    def build(self, spec):
        self.spec, self._cuda = spec, False
        config = Sam2LongConfig.from_mapping(spec.sam2long | {"redraw": False})  # as a sweep tracks
        self.predictor = SAM2LongVideoPredictor.from_sam2(_nano(), config)

    monkeypatch.setattr(trackers._Torch, "__init__", build)


@cache
def _nano():
    from sam2long import build_sam2long_video_predictor

    return build_sam2long_video_predictor("nano", device="cpu", apply_postprocessing=False)


@pytest.fixture
def late(tmp_path):
    """Two objects, the second of which comes later."""
    dataset = datasets.open_dataset("lvos-v2", trees.lvos(tmp_path / "data"))
    video = dataset.video("vid_a")
    return dataset, video, dataset.prompts(video)


def swept(late, tmp_path, names, sweep_tracker=None):
    """Logits by setting and frame."""
    dataset, video, prompts = late
    tracker = sweep_tracker or Sweep(TrackerSpec())
    configs = {name: Sam2LongConfig.from_mapping(SETTINGS[name]) for name in names}
    found = {name: {} for name in names}
    with dataset.frames_folder(video, tmp_path / "work") as folder:
        for name, frame, masks in tracker.track(folder, video, prompts, configs):
            assert frame == len(found[name])
            found[name][frame] = tracker.logits(masks, video.size)
    return found


def single(late, tmp_path, name):
    dataset, video, prompts = late
    tracker = Sam2Long(TrackerSpec(sam2long=SETTINGS[name]))
    with dataset.frames_folder(video, tmp_path / "work") as folder:
        return dict(tracker.track(folder, video, prompts)), tracker.tree_counts()


@pytest.mark.parametrize("name", SETTINGS)
def test_one_setting_alone_is_a_single_run_to_the_bit(with_model, late, tmp_path, name):
    alone = swept(late, tmp_path, [name])[name]
    run, _ = single(late, tmp_path, name)
    assert alone.keys() == run.keys()
    for t in run:  # clipped: enlarging sam2's constant for "absent" rounds it
        assert np.array_equal(alone[t].clip(-1000), run[t].clip(-1000))
    assert all((run[t][0] > 0).any() for t in run)


def test_each_setting_of_many_has_the_masks_of_its_single_run(with_model, late, tmp_path):
    tracker = Sweep(TrackerSpec())
    together = swept(late, tmp_path, SETTINGS, tracker)
    for name in SETTINGS:
        run, counts = single(late, tmp_path, name)
        assert tracker.tree_counts(name) == counts
        assert together[name].keys() == run.keys()
        differing = np.mean([np.mean((together[name][t] > 0) != (run[t] > 0)) for t in run])
        assert differing < 1e-4, name
    # else this would show nothing
    assert any((together["default"][t] != together["weights"][t]).any() for t in run)
    assert tracker.tree_counts("unsure")["diverged"] > 0


def test_frames_are_encoded_once_and_equal_rows_computed_once(with_model, late, tmp_path, monkeypatch):
    encoded, rows, asked = [], [], []
    count(monkeypatch, Batched, "encode", lambda images: encoded.append(len(images)))
    count(monkeypatch, Batched, "propose", lambda f, readings, *_: asked.append(len(readings)))
    count(monkeypatch, Batched, "_batches", lambda readings: rows.append(len(readings)))
    swept(late, tmp_path, ["default", "two", "strict", "unsure"])
    assert sum(encoded) == trees.FRAMES
    assert (asked[0], rows[0]) == (4, 1)  # after the prompt all four settings are one row
    assert sum(rows) < sum(asked)


def count(monkeypatch, owner, name, note):
    original = getattr(owner, name)

    def noted(self, *arguments):
        note(*arguments)
        return original(self, *arguments)

    monkeypatch.setattr(owner, name, noted)


@pytest.fixture
def davis(tmp_path):
    return datasets.open_dataset("davis17-val", trees.davis17(tmp_path / "data"))


def specs(out, names=SETTINGS):
    return {out / name: TrackerSpec(sam2long=SETTINGS[name], device="cpu") for name in names}


@pytest.mark.slow
def test_run_folders_are_those_of_single_runs(with_model, davis, tmp_path):
    results = sweep.run(davis, specs(tmp_path / "sweep"))
    for out, spec in specs(tmp_path / "sweep").items():
        assert results[out].done == ["vid_a", "vid_b"]
        alone = tmp_path / "alone" / out.name
        runner.run(davis, spec, alone)
        assert {p.relative_to(out) for p in out.rglob("*")} == {p.relative_to(alone) for p in alone.rglob("*")}
        ours, theirs = (json.loads((f / "manifest.json").read_text()) for f in (out, alone))
        assert ours.pop("sweep") == len(SETTINGS)
        assert ours | {"commit": ""} == theirs | {"commit": ""}
        record, other = (json.loads((f / "videos/vid_a.json").read_text()) for f in (out, alone))
        assert (record["settings"], other["settings"]) == (len(SETTINGS), 1)
        assert record["tree"] == other["tree"]
        for png in (out / "predictions").rglob("*.png"):
            mask, expected = pngs.read_ids(png), pngs.read_ids(alone / png.relative_to(out))
            assert (mask != expected).mean() < 1e-3
        assert runner.run(davis, spec, out).skipped == ["vid_a", "vid_b"]  # a single run takes it for its own


def test_only_what_is_missing_is_run(with_model, davis, tmp_path):
    all_of_them = specs(tmp_path, ["default", "two"])
    sweep.run(davis, all_of_them)
    before = (tmp_path / "two/videos/vid_b.json").stat().st_mtime_ns
    (tmp_path / "default/videos/vid_b.json").unlink()
    results = sweep.run(davis, all_of_them)
    assert [r.done for r in results.values()] == [["vid_b"], []]
    assert (tmp_path / "two/videos/vid_b.json").stat().st_mtime_ns == before
    assert json.loads((tmp_path / "default/videos/vid_b.json").read_text())["settings"] == 1


def test_a_video_that_fails_costs_no_other(with_model, davis, tmp_path, monkeypatch):
    track = Sweep.track

    def breaks(self, folder, video, prompts, configs):
        for i, item in enumerate(track(self, folder, video, prompts, configs)):
            if video.name == "vid_a" and i == 5:
                raise RuntimeError("the device is on fire")
            yield item

    monkeypatch.setattr(Sweep, "track", breaks)
    results = sweep.run(davis, specs(tmp_path, ["default", "two"]))
    for out, result in results.items():
        assert result.done == ["vid_b"]
        assert "the device is on fire" in json.loads((out / "failures.json").read_text())["vid_a"]
        assert pngs.subfolders(out / "predictions") == ["vid_b"]
        assert not list((out / "predictions").glob(".*"))


def test_what_is_not_a_setting_of_one_model_is_refused(davis, tmp_path):
    for other in (TrackerSpec(method="sam2", device="cpu"), TrackerSpec(device="cpu", overrides=("++model.x=1",))):
        with pytest.raises(ConfigError, match="settings of one model"):
            sweep.run(davis, {tmp_path / "a": TrackerSpec(device="cpu"), tmp_path / "b": other})
    assert not (tmp_path / "a").exists()


KILLED = """
import sys
from pathlib import Path
from eval import datasets, sweep
from eval.trackers import TrackerSpec
VIDEOS = ["easy_00", "reappear_00", "twins_00"]
if __name__ == "__main__":
    dataset = datasets.open_dataset("synthlong", None, videos=VIDEOS, size=64, frames=12)
    out = Path(sys.argv[1])
    specs = {out / str(p): TrackerSpec(sam2long={"num_pathways": p}, device="cpu") for p in (1, 2, 3)}
    sweep.run(dataset, specs, workers=int(sys.argv[2]))
"""


@pytest.mark.slow
def test_two_processes_killed_on_the_way_and_started_again_are_an_unbroken_run(tmp_path):
    script = tmp_path / "sweep_it.py"
    script.write_text(KILLED)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}

    def start(out, workers):
        return subprocess.Popen([sys.executable, str(script), str(out), workers], env=environment, cwd=REPOSITORY,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip

    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    assert start(unbroken, "1").wait() == 0
    killed = start(broken, "2")
    deadline = time.monotonic() + 120
    while not list(broken.glob("*/predictions/.*.part/*")) and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    for out in broken.iterdir():  # whatever is there is a whole video
        for record in (out / "videos").glob("*.json"):
            assert len(pngs.png_stems(out / "predictions" / record.stem)) == 12
    assert start(broken, "2").wait() == 0
    for out in ("1", "2", "3"):
        files = sorted(p.relative_to(unbroken) for p in (unbroken / out / "predictions").rglob("*"))
        assert files == sorted(p.relative_to(broken) for p in (broken / out / "predictions").rglob("*"))
        assert len([f for f in files if f.suffix == ".png"]) == 36
        assert all((unbroken / f).read_bytes() == (broken / f).read_bytes() for f in files if f.suffix == ".png")
