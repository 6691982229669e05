"""`sam2long track` with a real (very small, random, lively) model: stopping changes nothing, --auto finds something."""

from __future__ import annotations

import functools
import json

import numpy as np
import pandas as pd
import pytest
import torch

from sam2long.cli import main
from sam2long.export import MaskReader
from sam2long.runs import Everything, states
from sam2long.tracking.session import Session
from tests.fakes import TINY, interrupt_every, noise_clip, tiny_flags

FRAMES = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_flags(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return noise_clip(tmp_path_factory.mktemp("video") / "noise.mp4", FRAMES, fps=25)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "prompts.json"
    entries = [
        {"frame": 0, "object": 1, "label": "left", "box": [4, 4, 30, 40]},
        {"frame": 7, "object": 2, "points": [[50, 50]]},
        {"frame": 15, "object": 1, "box": [10, 10, 40, 50]},
    ]
    path.write_text(json.dumps(entries))
    return str(path)


def track(*arguments):
    return main(["track", "--quiet", *map(str, arguments)])


def lines(out):
    return (out / "masks.jsonl").read_text().splitlines()


@pytest.mark.parametrize("direction", ["forward", "both"])
def test_a_run_stopped_again_and_again_gives_the_masks_of_an_unbroken_one(
    model, clip, prompts, tmp_path, monkeypatch, direction
):
    flags = (clip, "--prompts", prompts, "--direction", direction, *model)
    assert track(*flags, "--out", tmp_path / "whole") == 0
    interrupt_every(monkeypatch, 7)
    out = tmp_path / "stopped"
    codes = [track(*flags, "--out", out)]
    while codes[-1] == 130 and len(codes) < 12:
        codes.append(track("--resume", "--out", out))
    assert codes[-1] == 0 and codes.count(130) >= 3
    assert lines(out) == lines(tmp_path / "whole")
    assert (out / "report.csv").read_text() == (tmp_path / "whole" / "report.csv").read_text()
    report = pd.read_csv(out / "report.csv")
    assert report["pathways"].max() > 1  # hypotheses did part; otherwise this proves little
    with MaskReader(out / "masks.jsonl") as masks:
        areas = [mask.sum() for frame in masks.frames for mask in masks.masks(frame).values()]
    assert len(set(areas)) > 10  # masks are not all one constant
    expected = {1: FRAMES, 2: FRAMES if direction == "both" else FRAMES - 7}
    assert report.groupby("obj_id").size().to_dict() == expected


def test_a_killed_run_resumes_from_its_last_save(model, clip, prompts, tmp_path, monkeypatch):
    flags = (clip, "--prompts", prompts, *model)
    assert track(*flags, "--out", tmp_path / "whole") == 0

    class Killed(BaseException):
        pass

    monkeypatch.setattr(states, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(states, "SAVE_SHARE", float("inf"))
    steps = []
    with monkeypatch.context() as patch:
        step = Session._step

        def deadly(self, *args):
            steps.append(None)
            if len(steps) == 12:
                raise Killed
            return step(self, *args)

        patch.setattr(Session, "_step", deadly)
        with pytest.raises(Killed):
            track(*flags, "--out", tmp_path / "killed")
    assert track("--resume", "--out", tmp_path / "killed") == 0
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")


def test_online_hands_out_every_frame_at_once(model, clip, tmp_path):
    out = tmp_path / "run"
    assert track(clip, "--box", "4,4,30,40", "--online", *model, "--out", out) == 0
    with MaskReader(out / "masks.jsonl") as masks:
        assert masks.frames == list(range(FRAMES))
    assert json.loads((out / "run.json").read_text())["settings"]["sam2long"]["emit"] == "online"


def test_auto_tracks_what_the_mask_generator_finds(model, clip, tmp_path, monkeypatch):
    from sam2 import automatic_mask_generator

    class Generator(automatic_mask_generator.SAM2AutomaticMaskGenerator):
        """With thresholds that a random model can pass."""

        def __init__(self, model, **options):
            super().__init__(model, **options | {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0})

    monkeypatch.setattr(automatic_mask_generator, "SAM2AutomaticMaskGenerator", Generator)
    out = tmp_path / "run"
    monkeypatch.setattr(Everything, "__init__", functools.partialmethod(Everything.__init__, points_per_side=4))
    flags = ("--auto", "--max-objects", 3, "--max-frames", 4)
    assert track(clip, *flags, *model, "--out", out) == 0
    with MaskReader(out / "masks.jsonl") as masks:
        objects = set(masks.masks(0))
        areas = [int(mask.sum()) for mask in masks.masks(0).values()]
    assert 1 <= len(objects) <= 3 and objects == set(range(1, len(objects) + 1)) and all(areas)
    info = json.loads((out / "run.json").read_text())
    pixels = [prompt["mask_pixels"] for prompt in info["prompts"]]
    assert pixels == sorted(pixels, reverse=True)


def test_weights_that_do_not_fit_and_prompts_outside_are_refused_in_one_sentence(model, clip, tmp_path, capsys):
    wrong = tmp_path / "wrong.pt"
    torch.save({"model": {"a": torch.zeros(1)}}, wrong)
    flags = ("--box", "4,4,30,40", "--model", TINY, "--checkpoint", wrong)
    assert track(clip, *flags, "--out", tmp_path / "run") == 2
    assert "do not fit" in capsys.readouterr().err
    assert track(clip, "--box", "4,4,300,40", *model, "--out", tmp_path / "run") == 2
    assert "outside the frame" in capsys.readouterr().err
    np.testing.assert_equal((tmp_path / "run").exists(), False)
